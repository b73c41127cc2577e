"""The points of images: alike for turned ones, of tiles that lie inside, the same in whatever form the network is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.networks import equivariant, store
from nucleate.networks.embedding import MOST, TILE, embed, embed_array, statistics, tiles
from nucleate.networks.unet import Architecture, UNet
from nucleate.types import Box


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return UNet(Architecture(widths=(8, 16)))


def image(height, width, channels=1, seed=0):
    return np.random.default_rng(seed).random((channels, height, width), dtype=np.float32)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_tiles_lie_inside_and_apart(height, width):
    found = tiles((height, width))
    assert 1 <= len(found) <= MOST**2 and len({box.shape for box in found}) == 1
    assert found[0].shape == (min(TILE, height), min(TILE, width))
    for number, box in enumerate(found):
        assert box.grown(0, within=(height, width)) == box
        assert all(box.common(other) is None for other in found[:number])
    middle = {(box.y + box.bottom, box.x + box.right) for box in found}
    mirrored = {(2 * height - y, 2 * width - x) for y, x in middle}
    assert all(min(abs(y - a) + abs(x - b) for a, b in mirrored) <= 4 for y, x in middle)  # rounding apart


@pytest.mark.parametrize("element", equivariant.ELEMENTS)
def test_a_turned_image_has_the_same_point(network, element):
    pixels = image(64, 64)
    turned = equivariant.transform(torch.from_numpy(pixels), element).contiguous().numpy()
    assert np.allclose(embed_array(network, turned), embed_array(network, pixels), rtol=1e-4, atol=1e-5)


def test_other_images_have_other_points(network):
    assert not np.allclose(embed_array(network, image(64, 64)), embed_array(network, image(64, 64) ** 3), atol=1e-2)


def test_a_folded_network_gives_the_same(network):
    pixels = image(50, 70)
    assert np.allclose(embed_array(network.folded(), pixels), embed_array(network, pixels), atol=1e-5)


@settings(max_examples=10)
@given(st.integers(1, 40), st.integers(1, 40))
def test_statistics_are_those_of_the_plain_formula(height, width):
    """The plain twin: loops over levels, channels and groups."""
    torch.manual_seed(1)
    network, pixels = UNet(Architecture(widths=(8, 16))), image(height, width, seed=height)
    if pixels.size == 1:
        assert embed_array(network, pixels).shape == (0, 12)  # a single pixel has one value throughout
        return
    padded = torch.zeros(1, 1, -(-height // 4) * 4, -(-width // 4) * 4)
    padded[..., :height, :width] = torch.from_numpy(pixels)
    expected = []
    with torch.no_grad():
        for level in network.encoder(padded):
            own = level.shape[1] // 8
            groups = [np.stack([level[0, g * own + o].double().numpy() for g in range(8)]) for o in range(own)]
            expected += [one.mean(0).mean() for one in groups]
            expected += [one.mean(0).std() for one in groups]
            expected += [one.std(0).mean() for one in groups]
            expected += [one.max(0).mean() for one in groups]
    assert np.allclose(embed_array(network, pixels), [expected], rtol=1e-4, atol=1e-5)


def test_tiles_of_one_value_are_left_out(network):
    pixels = image(300, 600)
    pixels[..., :300] = 0.5
    whole, half = embed_array(network, image(300, 600)), embed_array(network, pixels)
    assert whole.shape == (2, statistics((8, 16))) and np.array_equal(half, whole[1:])
    assert embed_array(network, np.zeros_like(pixels)).shape == (0, 12)


def test_only_the_tiles_are_read(network):
    read = []

    def reader(box):
        read.append(box)
        return torch.rand(1, 1, *box.shape)

    assert len(embed(network, (100_000, 200_000), reader)) == len(read) == 16
    assert all(box.shape == (TILE, TILE) for box in read)


@pytest.mark.parametrize("name", store.EMBEDDED)
def test_the_number_of_threads_is_no_matter(name):
    model = store.read(store.locate(name))
    pixels, threads = image(96, 80, model.network.architecture.channels), torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(embed_array(model.network, pixels))
    finally:
        torch.set_num_threads(threads)
    assert np.allclose(found[0], found[1], atol=1e-5) and np.allclose(found[0], found[2], atol=1e-5)
    novelty = {model.prototypes.novelty(one) for one in found}
    assert len(novelty) == 1 and novelty.pop() > 1  # noise is unlike nuclei


def test_a_box_is_read_where_it_lies(network):
    pixels = image(512, 512)
    boxes = tiles((512, 512))
    one_by_one = [
        embed_array(network, np.ascontiguousarray(pixels[:, *box.within(Box(0, 0, 512, 512))])) for box in boxes
    ]
    assert np.array_equal(np.concatenate(one_by_one), embed_array(network, pixels))
