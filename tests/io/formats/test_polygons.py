"""Polygons of masks: valid, and filled again they give exactly the mask."""

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from nucleate.io.formats.painting import fill
from nucleate.io.formats.polygons import area, trace

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
DENSE = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=9), fill=st.just(True))
CHESS = np.indices((6, 7)).sum(axis=0) % 2 == 0


def mask(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def shape_of(polygons):
    return shapely.MultiPolygon([(outer, holes) for outer, *holes in polygons])


@settings(deadline=None, max_examples=300)
@given(MASKS | DENSE)
@example(CHESS)
@example(~CHESS)
@example(mask("###", "#.#", "##."))
@example(mask(".##.", "#..#", "#..#", ".##."))
@example(mask("#####", "#.#.#", "##.##", "#.#.#", "#####"))
@example(mask("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"))
def test_filled_again_they_are_the_mask_and_each_piece_is_one_valid_polygon(inside):
    polygons = trace(inside)
    drawn = shape_of(polygons)
    assert drawn.is_valid, shapely.is_valid_reason(drawn)
    y, x = np.indices(inside.shape) + 0.5
    np.testing.assert_array_equal(shapely.contains_xy(drawn, x, y), inside)
    assert drawn.area == np.count_nonzero(inside)
    assert len(polygons) == ndimage.label(inside)[1]


@settings(deadline=None, max_examples=200)
@given(MASKS | DENSE)
def test_rings_hold_the_corners_only_and_turn_one_way(inside):
    for outer, *holes in trace(inside):
        assert area(outer) > 0 and all(area(hole) < 0 for hole in holes)
        for ring in (outer, *holes):
            steps = np.diff([*ring, *ring[:2]], axis=0)
            assert ((steps == 0).sum(axis=1) == 1).all()  # along rows or columns
            assert ((steps[1:] == 0) != (steps[:-1] == 0)).all()  # each corner turns
            assert len(set(ring)) == len(ring)


@settings(deadline=None, max_examples=60)
@given(MASKS, st.integers(0, 3), st.integers(0, 3))
def test_background_around_moves_the_polygons_and_no_more(inside, above, before):
    moved = [[[(x + before, y + above) for x, y in ring] for ring in polygon] for polygon in trace(inside)]
    assert trace(np.pad(inside, ((above, 1), (before, 2)))) == moved


@pytest.mark.parametrize(
    ("inside", "polygons"),
    [
        (mask("."), []),
        (mask("#"), [[[(0, 0), (1, 0), (1, 1), (0, 1)]]]),
        (mask("#.", ".#"), [[[(0, 0), (1, 0), (1, 1), (0, 1)]], [[(1, 1), (2, 1), (2, 2), (1, 2)]]]),
        (mask("###", "#.#", "###"), [[[(0, 0), (3, 0), (3, 3), (0, 3)], [(1, 1), (1, 2), (2, 2), (2, 1)]]]),
    ],
)
def test_examples(inside, polygons):
    assert trace(inside) == polygons


@settings(deadline=None, max_examples=200)
@given(MASKS | DENSE)
def test_filled_a_traced_mask_is_the_mask(inside):
    rings = [np.array(ring, float) for polygon in trace(inside) for ring in polygon]
    np.testing.assert_array_equal(fill([rings], inside.shape), inside)


RINGS = st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 12)), min_size=1, max_size=7).map(np.array)


@settings(deadline=None, max_examples=200)
@given(outlines=st.lists(st.lists(RINGS, max_size=2), max_size=3))
def test_filled_are_the_pixels_whose_middle_is_inside_an_odd_number_of_times(outlines):
    """Counted by the definition, edge by edge and pixel by pixel, on the way from the left to the pixel."""
    expected = np.zeros((9, 10), np.int32)
    for number, rings in enumerate(outlines, start=1):
        for row, column in np.ndindex(expected.shape):
            y, crossed = row + 0.5, 0
            for ring in rings:
                for (a, b), (c, d) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                    (a, b), (c, d) = sorted(((a, b), (c, d)), key=lambda corner: corner[1])
                    crossed += b <= y < d and a + (y - b) * ((c - a) / (d - b)) <= column + 0.5
            if crossed % 2:
                expected[row, column] = number
    np.testing.assert_array_equal(fill(outlines, expected.shape), expected)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0)])
def test_nothing_is_filled_where_there_is_nothing(shape):
    assert fill([[np.zeros((0, 2))], []], (3, 3)).max() == 0
    assert fill([[np.array([(0, 0), (3, 0), (3, 3)], float)]], shape).shape == shape
