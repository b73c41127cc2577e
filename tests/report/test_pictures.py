"""Outlines as vectors: filling them gives the nuclei back; pictures as PNG inside the page."""

from __future__ import annotations

import re
from base64 import b64decode
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon

from nucleate.data.synthetic.microscopy import tissue
from nucleate.report.pictures import SIDE, drawing, image_element, middle, outlines, picture_data


def polygons(data: str) -> list[np.ndarray]:
    """Corners (x, y) in pixels of each outline."""
    made = []
    for start, steps in re.findall(r"M([\d ]+)([-hv\d]+)z", data):
        first = np.array(start.split(), float)
        moves = [
            (float(length), 0.0) if way == "h" else (0.0, float(length))
            for way, length in re.findall(r"([hv])(-?\d+)", steps)
        ]
        made.append(np.concatenate([[first], first + np.cumsum(moves, axis=0)]))
    return made


def filled(data: str, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre is inside an odd number of outlines."""
    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    inside = np.zeros(centres.shape[0], int)
    for polygon in polygons(data):
        inside += Polygon(polygon).contains_points(centres)
    return (inside % 2 == 1).reshape(shape)


@given(st.lists(st.integers(0, 3), min_size=42, max_size=42), st.sets(st.integers(1, 3)))
def test_filling_the_outlines_gives_the_nuclei_back(values: list[int], ids: set[int]) -> None:
    labels = np.array(values, np.int32).reshape(6, 7)
    wanted = np.array(sorted(ids), np.int64)
    assert np.array_equal(filled(outlines(labels, wanted), labels.shape), np.isin(labels, wanted))


def test_outlines_of_drawn_nuclei_are_one_a_nucleus_whatever_the_ids() -> None:
    _, labels = tissue(4, 96, 96)
    sparse = np.where(labels > 0, labels * 1_000_003, -1).astype(np.int32)
    ids = np.unique(labels[labels > 0])
    data = outlines(labels, ids)
    assert outlines(sparse, ids * 1_000_003) == data
    assert data.count("M") >= ids.size
    assert np.array_equal(filled(data, labels.shape), labels > 0)


def test_no_ids_no_outlines() -> None:
    assert outlines(np.ones((3, 3), np.int32), np.empty(0, np.int64)) == ""
    assert outlines(np.zeros((3, 3), np.int32), np.array([1])) == ""


def decoded(address: str) -> np.ndarray:
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    return imagecodecs.png_decode(b64decode(data))


def test_colour_is_shown_as_it_is() -> None:
    image, _ = tissue(0, 40, 50)
    assert np.array_equal(decoded(picture_data(image.pixels)), image.pixels)
    # A part of an image is not contiguous in memory.
    assert np.array_equal(decoded(picture_data(image.pixels[3:20, 5:9])), image.pixels[3:20, 5:9])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_anything_else_is_shown_in_grey_over_the_whole_range(dtype: type, channels: int) -> None:
    ramp = np.repeat(np.arange(200, dtype=dtype).reshape(10, 20, 1), channels, axis=2)
    shown = decoded(picture_data(ramp))
    assert shown.shape == (10, 20)
    assert (shown.min(), shown.max()) == (0, 255)
    assert np.all(np.diff(shown.ravel().astype(int)) >= 0)


def test_a_constant_image_can_be_shown() -> None:
    assert decoded(picture_data(np.full((4, 4, 1), 7, np.uint16))).shape == (4, 4)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_middle_is_the_middle(height: int, width: int) -> None:
    for side, part in zip((height, width), middle(height, width), strict=True):
        assert part.stop - part.start == min(side, SIDE)
        assert abs(part.start - (side - part.stop)) <= 1


def test_a_drawing_is_well_formed_and_says_what_it_shows() -> None:
    labels = np.pad(np.ones((2, 2), np.int32), 2)
    below = image_element(np.zeros((6, 6, 1), np.uint8), "image-1")
    layers = [("matched", outlines(labels, np.array([1]))), ("missed", "")]
    root = ElementTree.fromstring(drawing(below, (6, 6), 'nuclei of "<a>"', layers))
    assert root.attrib["aria-label"] == 'nuclei of "<a>"'
    assert [path.attrib["class"] for path in root.iter("path")] == ["under", "matched"]
