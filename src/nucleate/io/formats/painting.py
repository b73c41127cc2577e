"""Outlines and masks of nuclei painted into one label image, in their order; what is odd about them is counted.

The rule: a pixel belongs to an outline where its middle lies inside an odd number of the outline's rings (the even-odd
rule), so that a ring within another is a hole. A middle on a left or an upper edge is inside. Where two nuclei overlap,
the later one is on top. What lies beyond the image is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.formats.polygons import Outline
from nucleate.types import Box, Labels

MOST_WORK = 2**30
"""Pixels in the boxes of all outlines of a file, and eight times the rows that their edges cross: a minute of work."""

_TOGETHER = 2**22  # pixels in the boxes of outlines that are filled at once
_CROSSED = 2**20  # rows crossed by edges that are computed at once


class _Piece(NamedTuple):
    """One outline, or a band of a large one: the nucleus it is of, its rings, and the pixels that it may cover."""

    number: int
    rings: Outline
    box: Box


class Canvas:
    """A label image that nuclei are painted into, numbered from 1 in their order.

    Args:
        shape: (height, width) of the image in pixels.
        path: the file that the nuclei are from, which errors name.

    Raises:
        ImageError: painting would take more than `MOST_WORK`.

    >>> canvas = Canvas((2, 4))
    >>> canvas.add([np.array([(0, 0), (3, 0), (3, 2), (0, 2)])])
    >>> canvas.add([np.array([(2, 0), (4, 0), (4, 1), (2, 1)])])
    >>> canvas.labels.tolist(), canvas.notes()
    ([[1, 1, 2, 2], [1, 1, 1, 0]], ('1 outline overlaps earlier ones, on 1 pixel: the later one is on top.',))
    """

    def __init__(self, shape: tuple[int, int], path: Path | None = None) -> None:
        self.count = 0
        self._labels: Labels = np.zeros(shape, np.int32)
        self.shape, self._path, self._work = shape, path, 0
        self._pending, self._pending_size = list[_Piece](), 0
        self._covered = 0
        self._painted, self._overlapping = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        self._outside, self._crossing = set[int](), set[int]()

    @property
    def labels(self) -> Labels:
        """What is painted so far: int32 (height, width), 0 background."""
        self._flush()
        return self._labels

    def add(self, *outlines: Outline) -> None:
        """Paint the next nucleus: all that any of its outlines covers."""
        self.count += 1
        boxes = [(rings, _bounds(rings, self.shape)) for rings in outlines]
        if all(box is None for _, box in boxes):
            self._outside.add(self.count)
        for rings, box in boxes:
            if box is not None:
                self._put_off(rings, box)

    def add_pixels(self, pixels: NDArray[np.int64]) -> None:
        """Paint the next nucleus from its pixels: their places in the image, counted along the rows."""
        self._flush()
        self.count += 1
        self._do(pixels.size)
        self._place(pixels, np.full(pixels.size, self.count))

    def area(self, outlines: Iterable[Outline]) -> NDArray[np.bool_]:
        """The pixels that any of these outlines covers, which are no nuclei and are not painted."""
        other = Canvas(self.shape, self._path)
        other.add(*outlines)
        return np.asarray(other.labels > 0)

    def notes(self) -> tuple[str, ...]:
        """A sentence for each thing that is odd about the nuclei."""
        self._flush()
        painted, overlapping = (np.unique(np.concatenate(one)).size for one in (self._painted, self._overlapping))
        lost = painted - np.unique(self._labels[self._labels > 0]).size
        empty = self.count - painted - len(self._outside)
        notes = []
        if overlapping:
            gone = f" Of {lost} nothing is left." if lost else ""
            where = f"on {self._covered} pixel{'' if self._covered == 1 else 's'}"
            notes.append(
                f"{_count(overlapping, 'overlaps', 'overlap')} earlier ones, {where}: the later one is on top.{gone}"
            )
        if self._crossing:
            notes.append(
                f"{_count(len(self._crossing), 'crosses itself', 'cross themselves')}: what is enclosed an odd number"
                " of times is inside; draw anew what is wrong."
            )
        for number, one, many, mend in (
            (empty, "covers", "cover", "the middle of no pixel and {are} left out: draw anew what should be a nucleus"),
            (
                len(self._outside),
                "lies",
                "lie",
                "outside the image and {are} left out: check that this image is the one that was drawn on",
            ),
        ):
            if number:
                notes.append(f"{_count(number, one, many)} {mend.format(are='is' if number == 1 else 'are')}.")
        return tuple(notes)

    def _put_off(self, rings: Outline, box: Box) -> None:
        """Keep an outline until there are enough to be filled together; a large one in bands of rows."""
        self._do(box.height * box.width + 8 * sum(_rows_crossed(ring, box) for ring in rings))
        band = max(1, _TOGETHER // (box.width + 1))
        for top in range(box.y, box.bottom, band):
            part = Box(top, box.x, min(band, box.bottom - top), box.width)
            self._pending.append(_Piece(self.count, rings, part))
            self._pending_size += part.height * (part.width + 1)
            if self._pending_size >= _TOGETHER:
                self._flush()

    def _do(self, work: int) -> None:
        self._work += work
        if self._work > MOST_WORK:
            raise ImageError(
                f"{self._path or 'The file'} would take {self._work} steps or more to fill, above the limit of"
                f" {MOST_WORK}: simplify the outlines, or export fewer of them."
            )

    def _flush(self) -> None:
        """Fill what was put off."""
        pieces, self._pending, self._pending_size = self._pending, [], 0
        if not pieces:
            return
        turns, starts = _turns([(piece.rings, piece.box) for piece in pieces])
        for index in np.flatnonzero(_cross(turns, starts)):
            number, rings, box = pieces[index]
            if len(rings) == 1 or _cross(*_turns([([ring], box) for ring in rings])).any():
                self._crossing.add(number)
        flat = np.flatnonzero(turns & 1)
        piece = np.searchsorted(starts, flat, side="right") - 1
        top, left, width = np.array([(box.y, box.x, box.width + 1) for _, _, box in pieces]).T[:, piece]
        row, column = np.divmod(flat - starts[piece], width)
        self._place((top + row) * self.shape[1] + left + column, np.array([one.number for one in pieces])[piece])

    def _place(self, pixels: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Give pixels, counted along the rows, their numbers; of a pixel that comes twice the later one stays."""
        labels = self._labels.reshape(-1)
        under = labels[pixels]
        over = (under > 0) & (under != numbers)
        labels[pixels] = numbers
        self._painted.append(np.unique(numbers))
        if over.any() or (labels[pixels] != numbers).any():
            order = np.argsort(pixels, kind="stable")
            again = np.diff(pixels[order]) == 0
            over[order[1:][again]] = np.diff(numbers[order])[again] != 0
        self._covered += int(np.count_nonzero(over))
        self._overlapping.append(np.unique(numbers[over]))


def fill(outlines: Iterable[Outline], shape: tuple[int, int]) -> Labels:
    """The label image in which outline number n (from 1) has the label n; where two overlap, that of the later one.

    Args:
        outlines: of each nucleus.
        shape: (height, width) of the image in pixels.

    Returns:
        int32 of that shape.

    >>> ring = np.array([(0, 0), (3, 0), (3, 2), (0, 2)])
    >>> fill([[ring, ring / 3 + (1, 0)]], (2, 4)).tolist()
    [[1, 0, 1, 0], [1, 1, 1, 0]]
    """
    canvas = Canvas(shape)
    for rings in outlines:
        canvas.add(rings)
    return canvas.labels


def _bounds(rings: Outline, shape: tuple[int, int]) -> Box | None:
    """The pixels of the image that an outline may cover, one at least where it has a corner there; else None."""
    corners = rings[0] if len(rings) == 1 else np.concatenate([np.zeros((0, 2)), *rings])
    if not len(corners):
        return None
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    y, x = max(0, math.floor(top)), max(0, math.floor(left))
    height, width = min(shape[0], max(math.ceil(bottom), y + 1)) - y, min(shape[1], max(math.ceil(right), x + 1)) - x
    inside = height > 0 and width > 0 and bottom >= 0 and right >= 0
    return Box(y, x, height, width) if inside else None


def _rows_crossed(ring: NDArray[np.float64], box: Box) -> int:
    """About how many rows the edges of a ring cross in all."""
    if len(ring) < 64:
        return len(ring) * box.height
    rows = np.clip(ring[:, 1], box.y, box.bottom)
    return int(np.abs(np.diff(rows)).sum() + abs(rows[0] - rows[-1]))


def _turns(pieces: Sequence[tuple[Outline, Box]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """How often the rings of each piece wind around the middle of each pixel of its box: positive where they turn from
    x to y.

    A ring that does not cross itself winds around what is inside once, always the same way. An edge counts at the pixel
    just before which it crosses the line through the middles of a row, and at all that follow. As a ring is closed,
    nothing is left of it behind the row, where each box has one more column: so one sum runs through all of them.

    Returns:
        The turns of all boxes one after the other, and where each begins.
    """
    height, wide = np.array([(box.height, box.width + 1) for _, box in pieces]).T
    starts = np.cumsum(height * wide) - height * wide
    rings = [(ring, index) for index, (outline, _) in enumerate(pieces) for ring in outline if len(ring)]
    of = np.repeat([index for _, index in rings], [len(ring) for ring, _ in rings]).astype(np.int64)
    corners = np.concatenate([np.zeros((0, 2)), *(ring for ring, _ in rings)])
    follows = np.arange(1, len(corners) + 1)
    lengths = np.array([len(ring) for ring, _ in rings], np.int64)
    follows[lengths.cumsum() - 1] -= lengths
    begins = corners - np.array([(box.x, box.y) for _, box in pieces])[of]
    ends = begins[follows]
    downward = begins[:, 1] <= ends[:, 1]
    (x, y), (u, v) = np.where(downward, begins.T, ends.T), np.where(downward, ends.T, begins.T)
    first, last = (np.clip(np.ceil(edge - 0.5), 0, height[of]).astype(np.int64) for edge in (y, v))
    lines = last - first
    crossing = np.flatnonzero(lines)
    behind = lines[crossing].cumsum()
    total = np.zeros(int((height * wide).sum()), np.int32)
    begin = done = 0
    while begin < crossing.size:
        end = max(begin + 1, int(np.searchsorted(behind, done + _CROSSED, side="right")))
        count = lines[crossing[begin:end]]
        edge = np.repeat(crossing[begin:end], count)
        rows = np.arange(edge.size) - np.repeat(behind[begin:end] - count - done, count) + first[edge]
        places = x[edge] + (rows + 0.5 - y[edge]) * ((u - x)[edge] / (v - y)[edge])
        columns = np.clip(np.ceil(places - 0.5), 0, wide[of[edge]] - 1).astype(np.int64)
        index = starts[of[edge]] + rows * wide[of[edge]] + columns
        np.add.at(total, index, np.where(downward[edge], np.int32(-1), np.int32(1)))
        begin, done = end, int(behind[end - 1])
    return total.cumsum(dtype=np.int32), starts


def _cross(turns: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether rings wind around some pixel more than once, or around pixels in both ways, in each box."""
    high, low = np.maximum.reduceat(turns, starts), np.minimum.reduceat(turns, starts)
    return np.asarray((high > 1) | (low < -1) | ((high > 0) & (low < 0)))


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {'outline ' + one if number == 1 else 'outlines ' + many}"
