"""The network: shapes, folding, and that a pixel's output depends on its surroundings and on nothing else."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nucleate.networks.graph import halo
from nucleate.networks.unet import Architecture, GroupConvolution, Residual, UNet, split


def network(widths=(8, 8), channels=1, classes=2, seed=0, dtype=torch.float32):
    """A network whose every parameter is random, so that no law holds because something is zero."""
    torch.manual_seed(seed)
    made = UNet(Architecture(channels, classes, tuple(widths)))
    with torch.no_grad():
        nn.init.normal_(made.heads.maps.weight, std=0.3)
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
            elif name.endswith("gain"):
                parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))
    return made.to(dtype)


@settings(deadline=None, max_examples=25)
@given(
    widths=st.lists(st.sampled_from([8, 16]), min_size=1, max_size=4),
    channels=st.integers(1, 3),
    classes=st.integers(2, 4),
    cells=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    count=st.integers(1, 3),
)
def test_maps_have_the_size_of_the_image(widths, channels, classes, cells, count):
    architecture = Architecture(channels, classes, tuple(widths))
    height, width = (cell * architecture.stride for cell in cells)
    maps = UNet(architecture)(torch.zeros(count, channels, height, width))
    assert architecture.stride == 2 ** len(widths)
    assert maps.shape == (count, classes + 4, height, width) == (count, architecture.outputs, height, width)
    out = split(maps, classes)
    shapes = [tuple(part.shape[1:]) for part in (out.logits, out.heat, out.offset, out.log_radius)]
    assert shapes == [(channel, height, width) for channel in (classes, 1, 2, 1)]


def test_split_gives_every_channel_to_one_meaning():
    maps = torch.arange(7.0).reshape(1, 7, 1, 1).bfloat16()
    out = split(maps, 3)
    assert all(part.dtype == torch.float32 for part in (out.logits, out.heat, out.offset, out.log_radius))
    assert out.logits.flatten().tolist() == [0, 1, 2] and out.heat.item() == 3
    # Offsets are a multiple of their channels and the log radius is a shift of its own.
    assert (out.offset.flatten() / torch.tensor([4.0, 5.0])).unique().numel() == 1
    other = split(maps + 1, 3)
    assert (other.log_radius - out.log_radius).item() == 1


@pytest.mark.parametrize("widths", [(8,), (8, 8), (8, 16, 24), (8, 16, 16, 8)])
def test_folded_gives_the_same_output(widths):
    trained = network(widths, channels=2)
    folded = trained.folded()
    image = torch.randn(2, 2, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(folded(image), trained(image), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(folded.folded()(image), folded(image), atol=0, rtol=0)


def test_folding_leaves_the_original_as_it_was():
    trained = network()
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    folded = trained.folded()
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not folded.training
    assert all(parameter.requires_grad for parameter in trained.parameters())
    assert trained.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    assert not any(name.endswith("gain") for name in folded.state_dict())
    # A second folded network takes the weights of the first, as reading a model does.
    UNet(trained.architecture).folded().load_state_dict(folded.state_dict())


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100), shift=st.floats(-5, 5))
def test_standardised_kernels_ignore_scale_and_mean_of_the_weights(seed, scale, shift):
    torch.manual_seed(seed)
    convolution = GroupConvolution(16, 8, 3).double()
    kernel, _ = convolution.applied()
    fan_in = kernel[0].numel()
    torch.testing.assert_close(kernel.mean((1, 2, 3)), torch.zeros(8).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(kernel.square().sum((1, 2, 3)), torch.ones(8).double(), atol=1e-4, rtol=0)
    with torch.no_grad():
        convolution.weight.mul_(scale).add_(shift)
    # The small number under the root is felt where the weights are small: 1e-8 / (scale^2 variance fan in).
    torch.testing.assert_close(convolution.applied()[0], kernel, atol=1e-8 / scale**2 * fan_in + 1e-9, rtol=1e-6)


def test_default_has_at_most_two_million_parameters():
    default = UNet()
    assert sum(parameter.numel() for parameter in default.parameters()) <= 2_000_000
    assert sum(parameter.numel() for parameter in default.folded().parameters()) <= 2_000_000


@pytest.mark.parametrize("other", [0.0, 1e3, float("nan"), float("inf")])
def test_output_does_not_depend_on_the_rest_of_the_batch(other):
    made = network()
    image = torch.randn(1, 1, 24, 32)
    batch = torch.full((4, 1, 24, 32), other)
    batch[2] = image[0]
    with torch.no_grad():
        torch.testing.assert_close(made(batch)[2:3], made(image), atol=1e-6, rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(data=st.data(), widths=st.sampled_from([(8,), (8, 8), (8, 16, 16)]))
def test_a_tile_gives_what_the_whole_image_gives(data, widths):
    made = network(widths)
    stride = made.architecture.stride
    reach = halo(made, 1, stride)
    cells = data.draw(st.tuples(*[st.integers(4, 96 // stride)] * 2), label="size in strides")
    image = torch.randn(1, 1, *(cell * stride for cell in cells))
    spans = []
    for cell in cells:
        start, stop = sorted(data.draw(st.lists(st.integers(0, cell), min_size=2, max_size=2, unique=True)))
        spans.append((start * stride, stop * stride))
    (top, bottom), (left, right) = spans
    above, before = max(top - reach, 0), max(left - reach, 0)
    tile = image[..., above : bottom + reach, before : right + reach]
    with torch.no_grad():
        whole = made(image)[..., top:bottom, left:right]
        part = made(tile)[..., top - above : bottom - above, left - before : right - before]
    torch.testing.assert_close(part, whole, atol=1e-6, rtol=1e-5)


def test_a_tile_without_its_halo_does_not():
    made = network((8, 8))
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        difference = (made(image[..., 16:48, 16:48]) - made(image)[..., 16:48, 16:48]).abs()
    assert difference.max() > 1e-3


@settings(deadline=None, max_examples=20)
@given(cells=st.tuples(st.integers(-4, 4), st.integers(-4, 4)))
def test_moving_the_image_by_strides_moves_the_maps(cells):
    made = network()
    stride = made.architecture.stride
    reach = halo(made, 1, stride)
    torch.manual_seed(1)
    scene = torch.randn(1, 1, 96, 96)
    dy, dx = (cell * stride for cell in cells)
    here, there = scene[..., 16:80, 16:80], scene[..., 16 + dy : 80 + dy, 16 + dx : 80 + dx]
    with torch.no_grad():
        a, b = made(here), made(there)
    y, x = (slice(reach + max(d, 0), 64 - reach + min(d, 0)) for d in (dy, dx))
    y2, x2 = (slice(reach + max(-d, 0), 64 - reach + min(-d, 0)) for d in (dy, dx))
    assert a[..., y, x].numel() > 0
    torch.testing.assert_close(b[..., y2, x2], a[..., y, x], atol=1e-6, rtol=1e-5)


def test_every_parameter_takes_part():
    made = network((8, 16, 16))
    made(torch.randn(2, 1, 32, 32)).square().mean().backward()
    still = [name for name, parameter in made.named_parameters() if not parameter.grad.abs().max() > 0]
    assert still == []


def test_both_memory_formats_give_one_output():
    made = network()
    image = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        expected = made(image)
        last = made.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, atol=1e-6, rtol=1e-5)


def test_same_seed_same_weights():
    one, two, other = (network(seed=seed) for seed in (3, 3, 4))
    pairs = list(itertools.zip_longest(one.parameters(), two.parameters()))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in itertools.zip_longest(one.parameters(), other.parameters()))


@pytest.mark.parametrize("width", [32, 176])
def test_a_residual_begins_as_a_small_change_of_the_same_size_everywhere(width):
    torch.manual_seed(0)
    block, image = Residual(width), torch.randn(2, width, 32, 32)
    with torch.no_grad():
        change = (block(image) - image)[..., 2:-2, 2:-2]
    # Of a unit normal; the two gains keep the variance, but for 0.3 of the second.
    assert change.std().item() == pytest.approx(0.3, rel=0.15)
