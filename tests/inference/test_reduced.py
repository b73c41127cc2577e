"""Nuclei too large for the network: images are reduced, labels enlarged, and nothing depends on boxes or tiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nucleate
from nucleate.inference.reduced import ReducedReader, coarse, enlarge, fine
from nucleate.io.base import MemoryReader
from nucleate.types import Box, Image


def image(height, width, channels=1, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)
    return Image("a", pixels, tuple(f"channel {c}" for c in range(channels)))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 7), st.integers(1, 2), st.data())
def test_a_reduced_pixel_is_the_mean_of_those_that_it_covers(height, width, factor, channels, data):
    whole = image(height, width, channels)
    reader = ReducedReader(MemoryReader(whole), factor)
    y, x = (data.draw(st.integers(0, side - 1)) for side in reader.shape)
    box = Box(y, x, *(data.draw(st.integers(1, side - at)) for side, at in zip(reader.shape, (y, x), strict=True)))
    np.testing.assert_array_equal(reader.read(box), reader.read(reader.box)[box.within(reader.box)])
    covered = fine(Box(y, x, 1, 1), factor, (height, width))
    expected = whole.pixels[covered.within(Box(0, 0, height, width))].mean(axis=(0, 1))
    np.testing.assert_allclose(reader.read(Box(y, x, 1, 1))[0, 0], expected, rtol=1e-5)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_the_reduced_box_covers_the_box(y, x, height, width, factor):
    box = Box(y, x, height, width)
    around = fine(coarse(box, factor), factor, (100, 100))
    assert around.common(box) == box
    assert around.height < height + 2 * factor and around.width < width + 2 * factor


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 9))
def test_enlarged_labels_depend_on_their_surrounding_alone(height, width, factor, seed):
    labels = np.random.default_rng(seed).integers(0, 3, (height + 2, width + 2)).astype(np.int32)
    whole = enlarge(labels, factor)
    assert whole.shape == (height * factor, width * factor)
    middle = whole[factor // 2 :: factor, factor // 2 :: factor]
    if factor % 2:
        np.testing.assert_array_equal(middle, labels[1:-1, 1:-1])
    part = enlarge(labels[:3, :3], factor)
    np.testing.assert_array_equal(part, whole[:factor, :factor])


def discs(size, diameter, count=1, seed=0):
    """Bright discs of this diameter on a dark ground, and their labels."""
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:size, :size]
    pixels, labels = np.full((size, size), 12.0), np.zeros((size, size), np.int32)
    side = int(np.ceil(np.sqrt(count)))
    for number in range(count):
        centre = ((np.array([number // side, number % side]) + 0.5) / side + rng.uniform(-0.02, 0.02, 2)) * size
        away = np.hypot(y - centre[0], x - centre[1])
        pixels += 150 / (1 + np.exp((away - diameter / 2) / 2))
        labels[away < diameter / 2] = number + 1
    return (pixels + rng.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def model():
    return nucleate.load("fluorescence", engine="torch", number_format="float32")


@pytest.mark.parametrize(
    ("size", "diameter", "count"), [(400, 150, 4), (560, 200, 4), (480, 300, 1), (560, 400, 1), (600, 400, 1)]
)
def test_large_nuclei_are_found_whole(model, size, diameter, count):
    pixels, truth = discs(size, diameter, count)
    found = model.segment(pixels)
    scores = nucleate.evaluate(found.labels, truth).scores
    assert len(found) == count and scores.at[0].tp == count and scores.segmentation_quality > 0.93
    assert found.table["diameter"] == pytest.approx(diameter, rel=0.05)
    assert "reduced" in " ".join(found.notes)


def test_no_result_on_reduced_images_depends_on_tile_or_region(model):
    pixels, _ = discs(560, 200, 4, seed=1)
    whole = model.segment(pixels, entropy=True)
    tiled = model.segment(pixels, tile=100, entropy=True)
    assert whole.table.tolist() == tiled.table.tolist()
    np.testing.assert_array_equal(whole.labels, tiled.labels)
    np.testing.assert_array_equal(whole.entropy, tiled.entropy)
    part = model.segment(pixels, region=(101, 57, 300, 403))
    here = whole.labels[101:401, 57:460]
    numbers = set(zip(here[here > 0].tolist(), part.labels[here > 0].tolist(), strict=True))
    assert len(numbers) == len(part) and ((part.labels > 0) == (here > 0)).all()


@pytest.mark.parametrize("side", [200, 600])
def test_noise_is_not_reduced(model, side):
    found = model.segment(np.random.default_rng(0).normal(100, 5, (side, side)).astype(np.uint8))
    assert len(found) == 0 and found._pipeline.reduction == 1


@pytest.mark.parametrize("seed", range(3))
def test_ordinary_images_are_not_reduced(model, seed):
    from nucleate.data.synthetic import fluorescence

    drawn, _ = fluorescence(seed=seed, height=256, width=256)
    assert model.segment(drawn.pixels)._pipeline.reduction == 1
