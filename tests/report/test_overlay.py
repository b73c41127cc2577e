"""Images with outlines drawn in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleate.io.reader import read_image
from nucleate.report import overlay
from nucleate.report.overlay import boundary, write_overlay
from nucleate.types import Image

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)


@settings(deadline=None, max_examples=60)
@given(labels=hnp.arrays(np.int32, SHAPES, elements=st.integers(-1, 3)))
def test_boundary_is_its_definition(labels):
    expected = np.zeros(labels.shape, bool)
    for y, x in np.argwhere(labels > 0):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(v, u) for v, u in around if 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]]
        expected[y, x] = any(labels[spot] != labels[y, x] for spot in inside)
    np.testing.assert_array_equal(boundary(labels), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_overlay_is_the_stretched_image_with_outlines(tmp_path, channels, dtype):
    pixels = np.random.default_rng(0).integers(0, 200, (40, 50, channels)).astype(dtype)
    labels = np.zeros((40, 50), np.int32)
    labels[5:15, 5:15], labels[15:25, 5:15], labels[30:35, 30:40] = 1, 2, 3
    write_overlay(tmp_path / "x.png", Image("x", pixels, ("c",) * channels), labels)
    picture = read_image(tmp_path / "x.png").pixels
    assert picture.shape == (40, 50, 3) and picture.dtype == np.uint8
    edge = boundary(labels)
    outline = [np.unique(picture[edge & (labels == label)], axis=0) for label in (1, 2, 3)]
    assert [len(colour) for colour in outline] == [1, 1, 1]
    assert len(np.unique(np.concatenate(outline), axis=0)) == 3
    shown = pixels[..., :3].astype(float)
    low, high = np.percentile(shown, (0.5, 99.8))
    expected = np.clip((shown - low) / (high - low), 0, 1) * 255
    for channel in range(3):
        source = expected[..., 0 if channels == 1 else channel] if channels != 2 or channel < 2 else np.zeros((40, 50))
        assert np.abs(picture[..., channel] - source)[~edge].max() <= 0.51


def test_overlay_of_nothing_is_the_image(tmp_path):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    write_overlay(tmp_path / "x.png", Image("x", pixels, ("grey",)), np.zeros((16, 16), np.int32))
    picture = read_image(tmp_path / "x.png").pixels
    assert (picture == picture[..., :1]).all() and (np.diff(picture[..., 0].ravel().astype(int)) >= 0).all()


def test_colours_are_bright_and_neighbours_differ():
    colours = overlay._colours(2000).astype(int)
    assert (colours.max(axis=1) == 255).all()
    assert len(np.unique(colours, axis=0)) > 1000
    for step in (1, 2, 3, 4):
        assert np.abs(colours[step:] - colours[:-step]).sum(axis=1).min() > 80
