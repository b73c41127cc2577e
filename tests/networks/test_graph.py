"""The graph of nodes: receptive fields proven pixel by pixel, costs, links, and the refusal of what is not known."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nucleate.networks.graph import Field, halo, nodes, trace
from nucleate.networks.unet import Architecture, UNet


def seen(network, image, y, x):
    """The rows and the columns of the image that the output at (y, x) depends on."""
    image = image.detach().requires_grad_(True)
    network(image)[..., y, x].abs().sum().backward()
    touched = image.grad[0].abs().amax(0) > 0
    return touched.any(1).nonzero().flatten().tolist(), touched.any(0).nonzero().flatten().tolist()


def random_unet(widths, seed=0):
    torch.manual_seed(seed)
    network = UNet(Architecture(widths=widths)).double()
    nn.init.normal_(network.heads.maps.weight)
    return network


@pytest.mark.parametrize(("widths", "size"), [((32,), 16), ((16, 16), 48), ((8, 8, 8), 128)])
def test_receptive_field_of_the_network_holds_for_every_residue_and_is_attained(widths, size):
    network = random_unet(widths)
    stride = network.architecture.stride
    field = nodes(network, 1, size)[-1].field
    assert field.jump == 1
    torch.manual_seed(1)
    image = torch.randn(1, 1, size, size, dtype=torch.float64)
    lows, highs = set(), set()
    # Rows and columns are independent of each other, so one walk along a broken diagonal meets every residue of both.
    for step in range(stride):
        y, x = size // 2 + step, size // 2 + (3 * step + 1) % stride
        for place, pixels in zip((y, x), seen(network, image, y, x), strict=True):
            assert pixels[0] - place >= field.low and pixels[-1] - place <= field.high
            lows.add(pixels[0] - place)
            highs.add(pixels[-1] - place)
    assert min(lows) == field.low and max(highs) == field.high
    assert field.size == max(highs) - min(lows) + 1


def test_halo_covers_the_field_and_is_the_least_multiple_of_the_stride():
    for widths in [(8,), (8, 8), (8, 8, 8)]:
        network = random_unet(widths)
        stride = network.architecture.stride
        field = nodes(network, 1, 8 * stride)[-1].field
        reach = halo(network, 1, stride)
        assert reach % stride == 0
        assert reach >= max(-field.low, field.high) > reach - stride


def chains():
    """Convolutions as (kernel, stride, padding, dilation)."""
    one = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))
    return st.lists(one, min_size=1, max_size=4)


def positive_chain(layers):
    """Convolutions with positive weights: where a path exists, the gradient is above zero."""
    made = nn.Sequential(*(nn.Conv2d(1, 1, k, stride=s, padding=p, dilation=d) for k, s, p, d in layers)).double()
    for parameter in made.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    return made


@settings(deadline=None, max_examples=60)
@given(layers=chains(), data=st.data())
def test_receptive_field_of_chains(layers, data):
    size = 72
    network = positive_chain(layers)
    image = torch.ones(1, 1, size, size, dtype=torch.float64)
    try:
        found = nodes(network.float(), 1, size)
    except RuntimeError:
        assume(False)  # the kernel is larger than what is left of the image
    network.double()
    field, (_, height, width) = found[-1].field, found[-1].shape
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bounds = [(field.jump * place + field.low, field.jump * place + field.high) for place in (y, x)]
    inside = all(low >= 0 and high < size for low, high in bounds)
    for (low, high), pixels in zip(bounds, seen(network, image, y, x), strict=True):
        assert all(low <= pixel <= high for pixel in pixels)
        # In the padding of one axis there is nothing to see along the other either.
        assert not inside or (pixels[0], pixels[-1]) == (low, high)


@settings(deadline=None, max_examples=40)
@given(factor=st.integers(2, 3), layers=chains(), rearrange=st.booleans())
def test_receptive_field_after_enlargement(factor, layers, rearrange):
    class Enlarging(nn.Module):
        def __init__(self):
            super().__init__()
            self.chain = positive_chain(layers)
            self.spread = nn.Conv2d(1, factor**2, 1).double()
            nn.init.uniform_(self.spread.weight, 0.5, 1.0)

        def forward(self, x):
            x = self.chain(x)
            if rearrange:
                return F.pixel_shuffle(self.spread(x), factor)
            return F.interpolate(x, scale_factor=float(factor), mode="nearest")

    size = 60
    network = Enlarging()
    try:
        found = nodes(network.float(), 1, size)
    except RuntimeError:
        assume(False)
    network.double()
    field, (_, side, _) = found[-1].field, found[-1].shape
    middle = side // 2 // factor * factor
    image = torch.ones(1, 1, size, size, dtype=torch.float64)
    rows = {y: seen(network, image, y, middle)[0] for y in range(middle, middle + factor)}
    bounds = {y: (field.jump * y + field.low, field.jump * y + field.high) for y in rows}
    assert all(low <= row <= high for y, (low, high) in bounds.items() for row in rows[y])
    if all(low >= 0 and high < size for low, high in bounds.values()):
        assert min(rows[y][0] - field.jump * y for y in rows) == field.low
        assert max(rows[y][-1] - field.jump * y for y in rows) == field.high


def test_fields_of_different_resolution_are_not_united():
    with pytest.raises(ValueError, match="1 and 2 pixels"):
        Field(Fraction(1), Fraction(0), Fraction(0)).united(Field(Fraction(2), Fraction(0), Fraction(1)))


@pytest.mark.parametrize("widths", [(8,), (8, 8), (8, 16, 8), (8, 8, 16, 16)])
def test_links_parameters_and_shapes(widths):
    network = UNet(Architecture(channels=3, classes=4, widths=widths))
    size = 2 * network.architecture.stride
    found = nodes(network, 3, size)
    by_name = {node.name: node for node in found}
    assert len(by_name) == len(found)
    place = {node.name: index for index, node in enumerate(found)}
    for node in found:
        assert all(node.name in by_name[source].outputs for source in node.inputs)
        assert all(node.name in by_name[user].inputs for user in node.outputs)
        assert all(place[source] < place[node.name] for source in node.inputs)
    assert [node.name for node in found if not node.inputs] == [found[0].name]
    assert [node.name for node in found if not node.outputs] == [found[-1].name]
    assert found[0].shape == (3, size, size) and found[-1].shape == (8, size, size)
    assert sum(node.parameters for node in found) == sum(parameter.numel() for parameter in network.parameters())


@settings(deadline=None, max_examples=40)
@given(
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    groups=st.integers(1, 2),
    layer=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)),
    size=st.integers(8, 20),
)
def test_multiply_adds_of_a_convolution(inputs, outputs, groups, layer, size):
    kernel, stride, padding, dilation = layer
    convolution = nn.Conv2d(
        groups * inputs, groups * outputs, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    _, node = nodes(nn.Sequential(convolution), groups * inputs, size)
    side = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    assert node.shape == (groups * outputs, side, side)
    # Each output value is a sum over kernel^2 pixels of the input channels of its group.
    assert node.multiply_adds == groups * outputs * side**2 * inputs * kernel**2
    assert node.parameters == groups * outputs * (inputs * kernel**2 + 1)


def test_only_convolutions_multiply_and_cost_grows_with_the_area():
    network = UNet(Architecture(widths=(8, 8)))
    small, large = nodes(network, 1, 16), nodes(network, 1, 32)
    for a, b in zip(small, large, strict=True):
        assert (a.name, a.inputs, a.parameters, a.field) == (b.name, b.inputs, b.parameters, b.field)
        assert b.multiply_adds == 4 * a.multiply_adds
        assert (a.multiply_adds > 0) == (a.parameters > 0)


class Calling(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "network",
    [
        Calling(lambda x: F.adaptive_avg_pool2d(x, 8)),
        Calling(lambda x: x - x.mean((2, 3), keepdim=True)),
        Calling(lambda x: torch.flip(x, (2,))),
        Calling(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear")),
        Calling(lambda x: F.interpolate(x, size=(16, 16))),
        nn.Sequential(nn.ConvTranspose2d(1, 1, 2, stride=2)),
        nn.Sequential(nn.InstanceNorm2d(1)),
        nn.Sequential(nn.Conv2d(1, 1, (3, 5))),
        nn.Sequential(nn.Conv2d(1, 1, 3, stride=(1, 2))),
        nn.Sequential(nn.Conv2d(1, 1, 3, padding="same")),
        nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")),
    ],
    ids=lambda network: str(network).replace("\n", "")[:60],
)
def test_an_operation_of_unknown_field_is_refused(network):
    with pytest.raises(ValueError, match="is not known"):
        nodes(network, 1, 8)


def test_tracing_leaves_what_other_threads_compute_alone():
    network, image = UNet(Architecture(widths=(8, 16))).eval(), torch.rand(1, 1, 16, 16)
    call = torch.nn.Module.__call__
    with torch.inference_mode():
        expected = network(image)
    graphs, results = [], []

    def work():
        with torch.inference_mode():
            results.extend(network(image) for _ in range(30))

    def look():
        graphs.extend(len(trace(UNet(Architecture(widths=(8, 16)))).nodes) for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(one) for one in (work, look, work, look)]:
            future.result()
    assert len(set(graphs)) == 1 and torch.nn.Module.__call__ is call
    assert all(torch.equal(one, expected) for one in results)
