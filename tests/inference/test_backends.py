"""Image to maps: any size, any number format, nothing but the network's own output."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nucleate.inference.backends import TorchBackend
from nucleate.inference.sliding_window import JUDGED
from nucleate.networks.decode import LARGEST_RADIUS, to_entropy, to_maps
from nucleate.networks.graph import reach
from nucleate.networks.unet import UNIT, Architecture, UNet, split
from nucleate.postprocess.rescale import zoom


def network(classes=2, channels=1):
    torch.manual_seed(0)
    made = UNet(Architecture(channels, classes, (8, 8)))
    nn.init.normal_(made.heads.maps.weight, std=0.3)
    return made


def constant(logit=5.0, offset=6.0, radius=30.0):
    """A network that gives the same numbers at each pixel of every image."""
    made = UNet(Architecture(widths=(8,))).folded()
    with torch.no_grad():
        made.heads.maps.weight.zero_()
        values = torch.tensor([-logit, logit, logit, offset / UNIT, -offset / UNIT, np.log(radius / UNIT)])
        made.heads.maps.bias.copy_(values.repeat_interleave(4))
    return made


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 40), width=st.integers(1, 40), channels=st.integers(1, 3), classes=st.integers(2, 3))
def test_any_size_gives_maps_of_that_size(height, width, channels, classes):
    image = np.random.default_rng(0).normal(size=(channels, height, width)).astype(np.float32)
    maps = TorchBackend(network(classes, channels))(image)
    assert maps.foreground.shape == maps.heat.shape == maps.radius.shape == (height, width)
    assert maps.offset.shape == (2, height, width)
    for part in (maps.foreground, maps.heat, maps.offset, maps.radius):
        assert part.dtype == np.float32 and np.isfinite(part).all()
    assert (maps.foreground >= 0).all() and (maps.foreground <= 1).all()
    assert (maps.heat >= 0).all() and (maps.heat <= 1).all()
    assert (maps.radius > 0).all() and (maps.radius <= LARGEST_RADIUS).all()


@pytest.mark.parametrize("size", [(16, 24), (13, 22), (1, 1)])
def test_raw_is_the_network_on_the_image_with_zeros_around(size):
    made = network()
    image = torch.randn(1, 1, *size)
    padded = F.pad(image, (0, -size[1] % 4, 0, -size[0] % 4))
    with torch.no_grad():
        expected = made(padded)[..., : size[0], : size[1]]
    found = TorchBackend(made, bfloat16=False).raw(image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_is_near_float32():
    made, image = network(), torch.randn(1, 1, 32, 32)
    one, other = (TorchBackend(made, bfloat16=choice).raw(image).cpu() for choice in (True, False))
    assert one.dtype == torch.float32
    difference = (one - other).abs().max()
    assert 0 < difference < 0.05 * other.abs().max()


def test_the_network_is_left_as_it_was():
    made = network()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    TorchBackend(made)(np.zeros((1, 8, 8), np.float32))
    assert made.training and all(parameter.requires_grad for parameter in made.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1.0, 100.0, 1e30]), classes=st.integers(2, 4))
def test_maps_are_probabilities_and_pixels(seed, scale, classes):
    raw = scale * torch.randn(1, classes + 4, 5, 6, generator=torch.Generator().manual_seed(seed))
    maps, out = to_maps(raw, classes), split(raw, classes)
    np.testing.assert_allclose(maps.foreground, 1 - out.logits[0].softmax(0)[0], atol=1e-6)
    np.testing.assert_allclose(maps.heat, torch.sigmoid(out.heat[0, 0]))
    np.testing.assert_array_equal(maps.offset, out.offset[0])
    np.testing.assert_allclose(maps.radius, out.log_radius[0, 0].exp().clamp(max=LARGEST_RADIUS))
    assert np.isfinite(maps.radius).all() and not np.isnan(maps.foreground).any()


@pytest.mark.parametrize("classes", [2, 4])
def test_entropy_is_in_bits(classes):
    raw = torch.zeros(1, classes + 4, 2, 3)
    raw[0, 1, 0, 0], raw[0, 0, 0, 1] = 50.0, -50.0
    bits = to_entropy(raw, classes)
    assert bits.shape == (2, 3) and bits.dtype == np.float32
    np.testing.assert_allclose(bits[1], np.log2(classes), rtol=1e-6)
    np.testing.assert_allclose(bits[0, :2], [0, np.log2(classes - 1)], atol=1e-6)


def test_nuclei_of_the_right_size_are_seen_as_they_are():
    engine, image = TorchBackend(constant(radius=14.0)), torch.randn(1, 1, 20, 30)
    torch.testing.assert_close(engine.zoomed(image), engine.raw(image))


@pytest.mark.parametrize("radius", [4.0, 25.0])
@pytest.mark.parametrize("size", [(20, 30), (1, 1), (7, JUDGED + 40)])
def test_others_are_seen_resized_and_measured_in_the_pixels_of_the_image(size, radius):
    offset = 6.0
    factor = zoom(2 * radius)
    assert (factor > 1) == (radius < 10) and factor != 1
    # The network says the same of the resized image, where a pixel is smaller or larger.
    maps = TorchBackend(constant(radius=radius, offset=offset), bfloat16=False)(np.zeros((1, *size), np.float32))
    assert maps.foreground.shape == size
    np.testing.assert_allclose(maps.radius, radius / factor, rtol=1e-4)
    np.testing.assert_allclose(maps.offset[0], offset / factor, rtol=1e-4)
    np.testing.assert_allclose(maps.offset[1], -offset / factor, rtol=1e-4)
    np.testing.assert_allclose(maps.heat, 1 / (1 + np.exp(-5)), rtol=1e-4)


def test_without_nuclei_nothing_is_resized():
    engine, image = TorchBackend(constant(logit=-5.0, radius=2.0)), torch.randn(1, 1, 20, 30)
    torch.testing.assert_close(engine.zoomed(image), engine.raw(image))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_reach_is_that_of_the_network(channels):
    made = network(channels=channels)
    torch.manual_seed(3)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert TorchBackend(made).reach == reach(made, channels, 4)
    # Training draws from the same generator, and must not notice.
    assert torch.equal(torch.rand(2), drawn)
