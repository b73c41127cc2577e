"""The nuclei of an image of any size, numbered and on disk, as the writers of every format read them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nucleate.images.nuclei import Found, Nuclei
from nucleate.objects.grouping import BOUND
from nucleate.prediction.measure import Measured, mask_bytes
from nucleate.prediction.spool import Spool
from nucleate.types import Box, Nucleus

FURTHEST = 2 * BOUND
"""Pixels along an axis: no pixel of a nucleus is further from its centre."""

_KEPT = 2**26  # bytes of rows that are kept decoded


def number(spool: Spool, rows: Iterable[Sequence[str]]) -> list[int]:
    """Put the nuclei of the tiles in order, row by row of tiles: `rows` names the tiles of each.

    The centres of a row of tiles lie below those of the rows before, so that sorting row by row sorts them all.
    Returns how many nuclei each row has; they are in the spool as row-0, row-1 ...
    """
    counts = []
    for index, tiles in enumerate(rows):
        name = f"row-{index}"
        parts = [spool[tile] for tile in tiles]
        ordered = _ordered(np.concatenate([p["rows"] for p in parts]), np.concatenate([p["masks"] for p in parts]))
        spool.put(name, {"rows": ordered.rows, "masks": ordered.masks})
        counts.append(len(ordered.rows))
    return counts


def _ordered(rows: NDArray[np.void], masks: NDArray[np.uint8]) -> Measured:
    order = np.argsort(rows["name"], kind="stable")
    length = mask_bytes(rows)
    begin = np.cumsum(length) - length
    length, begin = length[order], begin[order]
    # The bytes of each mask, mask after mask.
    step = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    return Measured(rows[order], masks[np.repeat(begin, length) + step])


class SpooledNuclei(Nuclei):
    """The nuclei in a spool that `number` has put in order: `counts` says how many each row of tiles has.

    `borders` are the first row of pixels of each row of tiles and one past the last; all else as in `Nuclei`.
    """

    def __init__(
        self,
        name: str,
        spool: Spool,
        counts: Sequence[int],
        borders: Sequence[int],
        region: Box,
        *,
        downsample: float = 1.0,
        pixel_size: float | None = None,
    ) -> None:
        self.name, self.shape, self.origin = name, region.shape, (region.y, region.x)
        self.downsample, self.pixel_size = downsample, pixel_size
        self.count = int(sum(counts))
        self._spool, self._borders = spool, borders
        self._first = [1, *(1 + np.cumsum(counts)).tolist()]
        self._kept: OrderedDict[int, Measured] = OrderedDict()

    def rows(self, index: int) -> Measured:
        """The nuclei of one row of tiles."""
        if index not in self._kept:
            held = sum(one.rows.nbytes + one.masks.nbytes for one in self._kept.values())
            while self._kept and held > _KEPT:
                gone = self._kept.popitem(last=False)[1]
                held -= gone.rows.nbytes + gone.masks.nbytes
            found = self._spool[f"row-{index}"]
            self._kept[index] = Measured(found["rows"], found["masks"])
        self._kept.move_to_end(index)
        return self._kept[index]

    def read(self, box: Box) -> NDArray[np.uint32]:
        whole = Box(box.y + self.origin[0], box.x + self.origin[1], *box.shape)
        labels = np.zeros(box.shape, dtype=np.uint32)
        for index, first in enumerate(self._first[:-1]):
            begin, end = self._borders[index : index + 2]
            if begin - FURTHEST < whole.bottom and whole.y < end + FURTHEST and self._first[index + 1] > first:
                _paint(labels, whole, self.rows(index), first)
        return labels

    def __iter__(self) -> Iterator[Found]:
        for index, first in enumerate(self._first[:-1]):
            measured = self.rows(index)
            length = mask_bytes(measured.rows)
            ends = np.cumsum(length)
            for step, (row, begin, end) in enumerate(zip(measured.rows, ends - length, ends, strict=True)):
                box = Box(int(row["top"]), int(row["left"]), int(row["height"]), int(row["width"]))
                mask = _mask(measured.masks[begin:end], box)
                here = Box(box.y - self.origin[0], box.x - self.origin[1], *box.shape)
                yield Found(self._nucleus(first + step, row), here, mask)

    def _nucleus(self, number: int, row: NDArray[np.void]) -> Nucleus:
        area, bits = int(row["area"]), float(row["entropy"])
        return Nucleus(
            id=number,
            y=round(round(float(row["y"]), 3) - self.origin[0], 3),
            x=round(round(float(row["x"]), 3) - self.origin[1], 3),
            area=area,
            diameter=round(float(2 * np.sqrt(area / np.pi)), 3),
            mean_intensity=round(float(row["mean"]), 4),
            score=round(float(row["score"]), 4),
            entropy=None if np.isnan(bits) else round(bits, 4),
        )

    def bounded(self) -> int:
        """How many nuclei reach as far as is looked at, and may be larger than what was found of them."""
        return sum(int(np.count_nonzero(self.rows(index).rows["bounded"])) for index in range(len(self._first) - 1))


def _paint(labels: NDArray[np.uint32], box: Box, measured: Measured, first: int) -> None:
    """Give the pixels of these nuclei, numbered from `first`, their number in an array that holds `box`."""
    rows = measured.rows
    meets = (rows["top"] < box.bottom) & (rows["top"] + rows["height"] > box.y)
    meets &= (rows["left"] < box.right) & (rows["left"] + rows["width"] > box.x)
    length = mask_bytes(rows)
    begin = np.cumsum(length) - length
    for index in np.flatnonzero(meets).tolist():
        row = rows[index]
        own = Box(int(row["top"]), int(row["left"]), int(row["height"]), int(row["width"]))
        mask = _mask(measured.masks[begin[index] : begin[index] + length[index]], own)
        common = own.common(box)
        assert common is not None  # as they meet
        labels[common.within(box)][mask[common.within(own)]] = first + index


def _mask(packed: NDArray[np.uint8], box: Box) -> NDArray[np.bool_]:
    return np.unpackbits(packed, count=box.height * box.width).reshape(box.shape).view(np.bool_)
