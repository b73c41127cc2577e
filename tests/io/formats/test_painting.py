"""Outlines painted together are what each is alone, and what is odd about them is counted."""

import time

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from nucleate.errors import ImageError
from nucleate.io.formats import painting
from nucleate.io.formats.painting import Canvas
from nucleate.io.formats.polygons import ellipse, trace

MASKS = hnp.arrays(np.bool_, (9, 8))
RINGS = st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 12)), min_size=1, max_size=7).map(np.array)
NUCLEI = st.lists(st.lists(st.lists(RINGS, max_size=2), min_size=1, max_size=2), max_size=5)


def square(left, top, side=2.0):
    return np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * side + (left, top)


def painted(shape, *nuclei):
    canvas = Canvas(shape)
    for outlines in nuclei:
        canvas.add(*outlines)
    return canvas


@settings(max_examples=150)
@given(NUCLEI, st.sampled_from([1, 7, 40, 10**6]), st.sampled_from([1, 3, 10**6]))
def test_painted_together_or_in_parts_is_painted_one_after_the_other(nuclei, together, crossed):
    """Each outline alone on a canvas of its own, put on top of those before: what batches and bands must not change."""
    expected, covered = np.zeros((9, 8), np.int32), 0
    for number, outlines in enumerate(nuclei, start=1):
        inside = np.logical_or.reduce([painted((9, 8), [one]).labels > 0 for one in outlines])
        covered += np.count_nonzero(inside & (expected > 0))
        expected[inside] = number
    before = painting._TOGETHER, painting._CROSSED
    painting._TOGETHER, painting._CROSSED = together, crossed
    try:
        canvas = painted((9, 8), *nuclei)
        np.testing.assert_array_equal(canvas.labels, expected)
        assert any("overlap" in note for note in canvas.notes()) == (covered > 0)
        assert not covered or f"on {covered} pixel" in canvas.notes()[0]
    finally:
        painting._TOGETHER, painting._CROSSED = before


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(-2, 11), st.integers(-2, 11)), min_size=3, max_size=6))
def test_what_shapely_finds_inside_is_inside(corners):
    ring = np.add(corners, (0.2371, 0.4113))  # no edge runs through the middle of a pixel
    polygon, canvas = shapely.Polygon(ring), painted((9, 8), [[ring]])
    y, x = np.indices((9, 8)) + 0.5
    if polygon.is_valid:
        np.testing.assert_array_equal(canvas.labels > 0, shapely.contains_xy(polygon, x, y))
        assert not any("itself" in note for note in canvas.notes())


@given(MASKS.filter(np.any))
def test_what_is_traced_is_whole_and_nothing_is_odd_about_it(mask):
    rings = [np.array(ring, float) for polygon in trace(mask) for ring in polygon]
    canvas = painted(mask.shape, [rings])
    np.testing.assert_array_equal(canvas.labels > 0, mask)
    assert canvas.notes() == ()


@pytest.mark.parametrize(
    ("nuclei", "says"),
    [
        ([[[square(0, 0)]], [[square(1, 1)]]], "1 outline overlaps earlier ones, on 1 pixel: the later one is on top."),
        (
            [[[square(1, 1)]], [[square(0, 0, 4)]]],
            "1 outline overlaps earlier ones, on 4 pixels: the later one is on top. Of 1 n",
        ),
        ([[[np.array([(0, 0), (4, 4), (4, 0), (0, 4)])]]], "1 outline crosses itself: what is enclosed an odd number"),
        ([[[square(9, 0)]], [[square(-5, 0)]]], "2 outlines lie outside the image and are left out"),
        ([[[np.array([(1, 1), (4, 4)])]]], "1 outline covers the middle of no pixel and is left out"),
        ([[[square(1.1, 1.1, 0.2)]]], "1 outline covers the middle of no pixel and is left out"),
        ([[[np.zeros((0, 2))]]], "1 outline lies outside the image and is left out"),
    ],
)
def test_what_is_odd_is_counted(nuclei, says):
    (note,) = painted((6, 6), *nuclei).notes()
    assert note.startswith(says)


def test_a_hole_of_either_direction_is_no_crossing():
    for hole in (square(1, 1), square(1, 1)[::-1]):
        canvas = painted((6, 6), [[square(0, 0, 5), hole]])
        assert canvas.notes() == () and np.count_nonzero(canvas.labels) == 21


def test_pixels_are_painted_like_outlines():
    canvas = painted((3, 4), [[square(0, 0)]])
    canvas.add_pixels(np.array([1, 2]))
    assert canvas.labels.tolist() == [[1, 2, 2, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert "on 1 pixel" in canvas.notes()[0]


def test_an_ellipse_is_that_of_the_formula():
    labels = painted((40, 60), [[ellipse(3, 5, 55, 33)]]).labels
    y, x = np.indices(labels.shape) + 0.5
    distance = ((x - 29) / 26) ** 2 + ((y - 19) / 14) ** 2
    assert (labels[distance < 0.998] == 1).all() and (labels[distance > 1] == 0).all()


def test_a_million_corners_are_painted_in_seconds():
    angle = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1) * 9
    canvas, start = Canvas((3000, 3000)), time.process_time()
    for y, x in np.random.default_rng(0).uniform(0, 3000, (20_000, 2)):
        canvas.add([np.add(circle, (x, y))])
    assert canvas.labels.any() and time.process_time() - start < 20
    assert ndimage.label(canvas.labels > 0)[1] > 100


def test_outlines_that_would_take_for_ever_are_refused():
    corners = np.random.default_rng(0).uniform(0, 2000, (10**6, 2))
    with pytest.raises(ImageError, match="above the limit"):
        Canvas((2000, 2000)).add([corners])
