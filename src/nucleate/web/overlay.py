"""The labels of a slide as square tiles, for the page to draw outlines from and to find what was clicked on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import InputError
from nucleate.io.reader import Reader
from nucleate.types import Box
from nucleate.web.pyramid import TILE

DEPTH = 3
"""The coarsest level: every 8th pixel. Coarser ones show no nucleus, and would read the whole image at once."""

MARGIN = 1
"""Labels around each tile, as an outline lies where a neighbour differs; 0 where the image ends."""


class Overlay:
    """The tiles of one label image. Level k holds every 2**k-th pixel of every 2**k-th row."""

    def __init__(self, labels: Reader) -> None:
        self.labels = labels

    def tile(self, level: int, row: int, column: int) -> NDArray[np.uint32]:
        """The labels of one tile and of a margin around it, always (TILE + 2) x (TILE + 2).

        Raises `InputError` where there is no such tile, and `ImageError` where the file cannot be read any more.
        """
        step = 2**level
        begin = (row * TILE * step, column * TILE * step)
        height, width = self.labels.shape
        if not (0 <= level <= DEPTH and 0 <= begin[0] < height and 0 <= begin[1] < width):
            raise InputError(f"There is no tile in row {row} and column {column} of level {level}.")
        side = (TILE + 2 * MARGIN) * step
        wanted = Box(begin[0] - MARGIN * step, begin[1] - MARGIN * step, side, side)
        there = wanted.common(self.labels.box)
        assert there is not None  # as its first pixel is inside
        found = self.labels.read(there)[::step, ::step, 0]
        tile = np.zeros((TILE + 2 * MARGIN,) * 2, dtype=np.uint32)
        top, left = (there.y - wanted.y) // step, (there.x - wanted.x) // step
        tile[top : top + found.shape[0], left : left + found.shape[1]] = found
        return tile

    def close(self) -> None:
        self.labels.close()
