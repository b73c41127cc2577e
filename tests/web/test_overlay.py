"""Tiles of labels: each is its part of the labels and of their surroundings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.errors import InputError
from nucleate.io.reader import MemoryReader
from nucleate.types import Image
from nucleate.web import overlay
from nucleate.web.overlay import Overlay


def of(labels):
    return Overlay(MemoryReader(Image("labels", labels[..., None], ("grey",))))


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 70), width=st.integers(1, 70), level=st.integers(0, 3))
def test_tiles_and_their_margins_are_the_labels(height, width, level):
    labels = np.random.default_rng(0).integers(0, 2**16, (height, width), dtype=np.uint16)
    thin = labels[:: 2**level, :: 2**level]
    around = np.pad(thin, ((1, 9), (1, 9)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay, "TILE", 8)
        tiles = of(labels)
        for row in range(-(-thin.shape[0] // 8)):
            for column in range(-(-thin.shape[1] // 8)):
                tile = tiles.tile(level, row, column)
                expected = around[8 * row : 8 * row + 10, 8 * column : 8 * column + 10]
                np.testing.assert_array_equal(tile, np.pad(expected, [(0, 10 - side) for side in expected.shape]))
                assert tile.dtype == np.uint32


@pytest.mark.parametrize(
    ("level", "row", "column"), [(4, 0, 0), (-1, 0, 0), (0, 2, 0), (0, 0, 1), (0, -1, 0), (1, 1, 0)]
)
def test_there_are_no_other_tiles(level, row, column):
    with pytest.raises(InputError, match="no tile in row"):
        of(np.zeros((300, 200), np.uint8)).tile(level, row, column)
