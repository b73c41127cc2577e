"""The group of the square, kernels that are alike under it, and the network whose maps turn with the image."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nucleate.networks import equivariant
from nucleate.networks.equivariant import ELEMENTS, compose, inverse, transform, transform_vector
from nucleate.networks.unet import Architecture, Convolution, GroupConvolution, UNet

elements = st.sampled_from(ELEMENTS)


def test_the_elements_are_a_group():
    assert len(set(ELEMENTS)) == equivariant.ORDER == 8
    nothing = ELEMENTS[0]
    for a, b in itertools.product(ELEMENTS, repeat=2):
        assert compose(a, b) in ELEMENTS and compose(a, nothing) == a == compose(nothing, a)
        assert compose(a, inverse(a)) == nothing == compose(inverse(a), a)
        assert all(compose(compose(a, b), c) == compose(a, compose(b, c)) for c in ELEMENTS)


@given(first=elements, second=elements, size=st.integers(1, 5))
def test_turning_twice_is_turning_by_the_product(first, second, size):
    grid = torch.arange(size * size).view(size, size)
    assert torch.equal(transform(transform(grid, second), first), transform(grid, compose(first, second)))
    vector = torch.tensor(2.0), torch.tensor(-3.0)
    assert transform_vector(*transform_vector(*vector, second), first) == transform_vector(
        *vector, compose(first, second)
    )


@given(element=elements, start=st.tuples(st.integers(0, 4), st.integers(0, 4)), end=st.tuples(*[st.integers(0, 4)] * 2))
def test_a_vector_goes_on_pointing_to_the_same_pixel(element, start, end):
    def moved(pixel):
        grid = torch.zeros(5, 5)
        grid[pixel] = 1
        return transform(grid, element).nonzero()[0]

    vector = transform_vector(*(torch.tensor(b - a) for a, b in zip(start, end, strict=True)), element)
    assert torch.equal(moved(start) + torch.stack(vector), moved(end))


SPREADS = {
    "from the image": equivariant.lifting(3, 4),
    "between": equivariant.group_convolution(2, 3),
    "between, 1 x 1": equivariant.group_convolution(3, 1),
    "to maps": equivariant.projection(3),
}


@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS.keys())
def test_spreading_repeats_each_row_eight_times_and_its_derivative_is_right(spread):
    rows = torch.randn(spread.back.shape[1], 2, dtype=torch.float64, requires_grad=True)
    kernel = spread(rows)
    assert len(kernel) == 8 * len(rows)
    torch.testing.assert_close(kernel.square().sum(), 8 * rows.square().sum())
    assert torch.autograd.gradcheck(spread, rows)
    first = kernel[: len(rows)] if spread is not SPREADS["to maps"] else kernel[::8]
    assert torch.equal(first, rows)  # the first of the group does nothing


def random_network(widths, channels, classes, seed):
    torch.manual_seed(seed)
    network = UNet(Architecture(channels, classes, widths)).double()
    with torch.no_grad():
        nn.init.normal_(network.heads.maps.weight, std=0.3)
        for name, parameter in network.named_parameters():
            if name.endswith(("bias", "gain")):
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return network


@settings(deadline=None, max_examples=25)
@given(
    element=elements,
    widths=st.lists(st.sampled_from([8, 16]), min_size=1, max_size=3).map(tuple),
    channels=st.integers(1, 3),
    classes=st.integers(2, 4),
    seed=st.integers(0, 99),
    folded=st.booleans(),
)
def test_the_maps_of_a_turned_image_are_the_turned_maps(element, widths, channels, classes, seed, folded):
    network = random_network(widths, channels, classes, seed)
    network = network.folded() if folded else network
    image = torch.rand(2, channels, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        maps, found = network(image), network(transform(image, element))
    expected = transform(maps, element).clone()
    y, x = classes + 1, classes + 2
    expected[:, y], expected[:, x] = transform_vector(expected[:, y].clone(), expected[:, x].clone(), element)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_neither_kernels_nor_maps_are_the_same_for_all_inputs():
    """The law above also holds for a network that sees nothing."""
    network = random_network((16, 16), 1, 2, 0)
    image = torch.rand(1, 1, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        maps = network(image)[0]
    assert all(float(one.std()) > 1e-3 for one in maps)
    kernel, _ = network.encoder.blocks[0].first.applied()
    assert len(torch.unique(kernel.detach().round(decimals=9))) == network.encoder.blocks[0].first.weight.numel()


def test_what_is_first_used_in_prediction_can_be_used_in_training():
    tables = [table for table in vars(equivariant).values() if hasattr(table, "cache_clear")]
    assert len(tables) == 7
    for table in tables:
        table.cache_clear()
    network = random_network((8, 8), 1, 2, 0)
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        network(image)
        equivariant.blocks(network.encoder.blocks[0].first.weight)
    network(image).square().sum().backward()
    assert all(bool(parameter.grad.abs().max() > 0) for parameter in network.parameters())


def test_an_eighth_of_the_numbers_is_learnt():
    convolution = GroupConvolution(16, 24, 3)
    kernel, bias = convolution.applied()
    assert kernel.shape == (24, 16, 3, 3) and bias.shape == (24,)
    assert convolution.weight.numel() * 8 == kernel.numel()
    network = UNet()
    learnt = sum(parameter.numel() for parameter in network.parameters())
    assert learnt < sum(parameter.numel() for parameter in network.folded().parameters()) / 7.5
    assert not any(isinstance(module, Convolution) for module in network.folded().modules())


@pytest.mark.parametrize("widths", [(8, 12), (4,), (8, 8, 1)])
def test_widths_that_eight_groups_do_not_share_are_refused(widths):
    with pytest.raises(ValueError, match="multiples of 8"):
        UNet(Architecture(widths=widths))


def polar(matrix):
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


@settings(deadline=None, max_examples=30)
@given(outputs=st.integers(1, 4), inputs=st.integers(1, 3), size=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_blocks_are_the_matrix_of_the_kernel_taken_apart(outputs, inputs, size, seed):
    weight = torch.randn(
        outputs, 8 * inputs, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    rows = weight.permute(0, 2, 3, 1).reshape(-1, inputs)
    matrix = equivariant.group_convolution(outputs, size)(rows).view(8 * outputs, -1)
    blocks = equivariant.blocks(weight)
    assert len(blocks) == equivariant.BLOCKS
    assert [one.shape for one in blocks[:4]] == [(outputs, inputs * size * size)] * 4
    assert blocks[4].shape == (2 * outputs, 2 * inputs * size * size)
    own = [value for one in (*blocks, blocks[4]) for value in torch.linalg.svdvals(one).tolist()]
    short = min(matrix.shape)
    np.testing.assert_allclose(sorted(own)[-short:], sorted(torch.linalg.svdvals(matrix).tolist()), atol=1e-9)
    torch.testing.assert_close(equivariant.from_blocks(blocks, weight), weight)
    # What is done to the directions of the matrix can be done to those of its blocks.
    expected = polar(matrix)[:outputs].view(outputs, size, size, 8 * inputs).permute(0, 3, 1, 2)
    found = equivariant.from_blocks([polar(one) for one in blocks], weight)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-7)
