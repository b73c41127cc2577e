"""A mask as polygons that run along the edges of its pixels; `painting` undoes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]
"""A corner of a pixel, (x, y): the pixel in row 0 and column 0 has the corners (0, 0), (1, 0), (1, 1) and (0, 1)."""

Ring = list[Point]
"""The corners of a closed line, each once, no three in a row on one straight line."""

Outline = Sequence[NDArray[np.float64]]
"""The rings of one nucleus from a file, each an array (corners, 2) of x and y in pixels, anywhere."""

Polygon = list[Ring]
"""One 4-connected piece: its outer ring, of positive `area`, and then its holes, of negative."""


def trace(mask: NDArray[np.bool_]) -> list[Polygon]:
    """The 4-connected pieces of a mask, each as one polygon that is valid by the Simple Features standard (OGC
    06-103r4): rings are simple, and meet each other in single corners only.

    >>> trace(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=bool))
    [[[(0, 0), (3, 0), (3, 2), (2, 2), (2, 3), (0, 3)], [(2, 2), (2, 1), (1, 1), (1, 2)]]]
    """
    rings = [(pixel, simple) for pixel, ring in _rings(mask) for simple in _split(ring)]
    if len(rings) == 1:
        return [[rings[0][1]]]
    from scipy import ndimage  # half a second, for the few masks of several rings

    piece_of, count = ndimage.label(mask)
    pieces: list[Polygon] = [[] for _ in range(count)]
    for pixel, ring in rings:
        piece = pieces[piece_of[pixel] - 1]
        piece.insert(0 if area(ring) > 0 else len(piece), ring)
    return pieces


def area(ring: Ring) -> float:
    """The area in a ring by the shoelace formula: positive where it turns from x to y, the inside on that hand.

    >>> area([(0, 0), (2, 0), (2, 1), (0, 1)]), area([(0, 0), (0, 1), (2, 1), (2, 0)])
    (2.0, -2.0)
    """
    return sum(x * v - u * y for (x, y), (u, v) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2


def _rings(mask: NDArray[np.bool_]) -> Iterator[tuple[tuple[int, int], Ring]]:
    """Each closed line between mask and background, with (row, column) of a pixel of the piece that it runs along.

    Of the four pixels around a corner of a line one or three are in the mask, or two in a diagonal. There two lines
    meet, and each stays with its own pixel, as the pixels are not connected. In each row of corners the first and
    the second are the ends of one straight edge, then the third and the fourth, and so in each column.
    """
    around = np.pad(mask, 1)
    west, east = around[:, :-1], around[:, 1:]
    diagonal = (west[:-1] == east[1:]) & (east[:-1] == west[1:]) & (west[:-1] != east[:-1])
    lines = (west[:-1] ^ east[:-1] ^ west[1:] ^ east[1:]) + 2 * diagonal
    y, x = (np.repeat(place, lines[lines > 0]) for place in np.nonzero(lines))
    count = y.size
    # Where two lines meet, the western pixel's comes first in the row; in the column the northern one's.
    second = np.zeros(count, dtype=np.bool_)
    second[1:] = (y[1:] == y[:-1]) & (x[1:] == x[:-1])
    down = np.lexsort((second ^ east[y, x], y, x))
    along_row, along_column = np.arange(count) ^ 1, np.empty(count, dtype=np.int64)
    along_column[down] = down[np.arange(count) ^ 1]
    corners, ways = list(zip(x.tolist(), y.tolist(), strict=True)), (along_row.tolist(), along_column.tolist())
    seen = [False] * count
    for first in range(count):
        if seen[first]:
            continue
        # The first corner of a line is its uppermost and there its leftmost: an edge begins to the right.
        column, row = corners[first]
        outer = bool(around[row + 1, column + 1])
        ring, at, way = [], first, 0 if outer else 1
        while not seen[at]:
            seen[at] = True
            ring.append(corners[at])
            at, way = ways[way][at], 1 - way
        yield (row if outer else row - 1, column), ring


def _split(ring: Ring) -> Iterator[Ring]:
    """A ring that comes back to a corner, as rings that do not."""
    path: Ring = []
    place: dict[Point, int] = {}
    for corner in ring:
        if corner in place:
            loop = path[place[corner] :]
            yield loop
            del path[place[corner] :]
            for passed in loop:
                del place[passed]
        place[corner] = len(path)
        path.append(corner)
    yield path


def ellipse(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    """The ellipse in a box as a ring, whose corners lie on it, and whose edges less than 1/100 pixel inside it.

    >>> ring = ellipse(0, 0, 8, 4)
    >>> ring.shape, bool(np.allclose(((ring - (4, 2)) / (4, 2)) ** 2 @ (1, 1), 1))
    ((48, 2), True)
    """
    radius = max(right - left, bottom - top) / 2
    count = 4 * math.ceil(max(8.0, math.pi * math.sqrt(radius / 0.02) / 4))
    angle = np.linspace(0, 2 * math.pi, count, endpoint=False)
    middle, radii = ((left + right) / 2, (top + bottom) / 2), ((right - left) / 2, (bottom - top) / 2)
    return np.column_stack([np.cos(angle), np.sin(angle)]) * radii + middle
