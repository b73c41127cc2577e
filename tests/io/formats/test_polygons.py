"""Polygons of masks: valid, and filled again they give exactly the mask."""

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

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
