"""The nuclei of an image of any size, numbered and on disk, as the writers of every format read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nucleate.inference.block_store import BlockStore
from nucleate.inference.measurements import Measured, mask_bytes
from nucleate.io.cache import Cache
from nucleate.io.instances import Instance, Instances
from nucleate.parallel import Communicator, SingleProcess
from nucleate.postprocess import kernels
from nucleate.postprocess.instances_from_maps import MAX_DISTANCE
from nucleate.types import Box, Nucleus

FURTHEST = 2 * MAX_DISTANCE
"""Pixels along an axis: no pixel of a nucleus is further from its centre."""

_MEASURES = ("y", "x", "area", "mean", "score", "entropy")
_KEPT, _FEWEST = 2**26, 3  # bytes of rows of tiles that are kept decoded, and how many of them at least


def relabel_sequential(
    store: BlockStore, rows: Sequence[Sequence[str]], ranks: Communicator | None = None
) -> list[int]:
    """Put the nuclei of all tiles in the order of their centres, in which they are numbered 1..N.

    The centres of a row of tiles lie below those of the rows before, so that sorting row by row sorts them all.

    Args:
        store: holds the nuclei of each tile; it is given those of each row, as row-0, row-1 ...
        rows: the names of the tiles of each row.
        ranks: the processes that share the rows, and see one store.

    Returns:
        How many nuclei each row has.
    """
    ranks = ranks or SingleProcess()
    begin, end = (len(rows) * share // ranks.size for share in (ranks.rank, ranks.rank + 1))
    return [
        count for part in ranks.all(ranks.together(partial(_relabel, store, rows, range(begin, end)))) for count in part
    ]


def _relabel(store: BlockStore, rows: Sequence[Sequence[str]], wanted: Iterable[int]) -> list[int]:
    counts = []
    for index in wanted:
        tiles = rows[index]
        name = f"row-{index}"
        parts = [store[tile] for tile in tiles]
        ordered = _ordered(np.concatenate([p["rows"] for p in parts]), np.concatenate([p["masks"] for p in parts]))
        store.put(name, {"rows": ordered.rows, "masks": ordered.masks})
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


class StoredInstances(Instances):
    """The nuclei in a store that `relabel_sequential` has put in order; its `counts` are those of each row of tiles.

    `borders` are the first row of pixels of each row of tiles and one past the last; `channels` those that each nucleus
    was measured in; no pixel of a nucleus is further than `furthest` from its centre; all else as in `Instances`.
    """

    def __init__(
        self,
        name: str,
        store: BlockStore,
        counts: Sequence[int],
        borders: Sequence[int],
        region: Box,
        *,
        downsample: float = 1.0,
        pixel_size: float | None = None,
        channels: Sequence[str] = (),
        novelty: float | None = None,
        furthest: int = FURTHEST,
    ) -> None:
        self.name, self.shape, self.origin = name, region.shape, (region.y, region.x)
        self.downsample, self.pixel_size, self.channels = downsample, pixel_size, tuple(channels)
        self.novelty = novelty
        self.count = int(sum(counts))
        self._store, self._borders, self._furthest = store, borders, furthest
        self._first = [1, *(1 + np.cumsum(counts)).tolist()]
        self._decoded = Cache[_Row](_KEPT, at_least=_FEWEST)

    def rows(self, index: int) -> _Row:
        """The nuclei of one row of tiles."""

        def decode() -> _Row:
            found = self._store[f"row-{index}"]
            return _Row(found["rows"], found["masks"])

        return self._decoded.get(index, 0, decode)

    def read(self, box: Box) -> NDArray[np.uint32]:
        whole = Box(box.y + self.origin[0], box.x + self.origin[1], *box.shape)
        labels = np.zeros(box.shape, dtype=np.uint32)
        for index, first in enumerate(self._first[:-1]):
            begin, end = self._borders[index : index + 2]
            if (
                begin - self._furthest < whole.bottom
                and whole.y < end + self._furthest
                and self._first[index + 1] > first
            ):
                self.rows(index).paint(labels, whole, first)
        return labels

    def __iter__(self) -> Iterator[Instance]:
        nuclei = self.measurements()
        for index in range(len(self._first) - 1):
            row = self.rows(index)
            for step in range(len(row.nuclei)):
                box = row.box(step)
                here = Box(box.y - self.origin[0], box.x - self.origin[1], *box.shape)
                yield Instance(next(nuclei), here, row.mask(step))

    def measurements(self) -> Iterator[Nucleus]:
        measures = (*_MEASURES, *(f"channel {place}" for place in range(len(self.channels))))
        for index, first in enumerate(self._first[:-1]):
            columns = zip(*(self.rows(index).nuclei[name].tolist() for name in measures), strict=True)
            for number, values in enumerate(columns, start=first):
                yield self._nucleus(number, *values)

    def _nucleus(
        self, number: int, y: float, x: float, area: int, mean: float, score: float, entropy: float, *channels: float
    ) -> Nucleus:
        return Nucleus(
            id=number,
            y=round(round(y, 3) - self.origin[0], 3),
            x=round(round(x, 3) - self.origin[1], 3),
            area=area,
            diameter=round(2 * math.sqrt(area / math.pi), 3),
            mean_intensity=round(mean, 4),
            score=round(score, 4),
            entropy=None if math.isnan(entropy) else round(entropy, 4),
            channel_means=tuple(round(mean, 4) for mean in channels),
        )

    def bounded(self) -> int:
        """How many nuclei extend to the longest distance that is searched, and may be larger than what was found."""
        return sum(int(np.count_nonzero(self.rows(index).nuclei["bounded"])) for index in range(len(self._first) - 1))


class _Row:
    """The nuclei of a row of tiles, and what finds them quickly: their boxes, and where their masks begin and end."""

    def __init__(self, nuclei: NDArray[np.void], masks: NDArray[np.uint8]) -> None:
        self.nuclei, self.masks = nuclei, masks
        self.ends = np.cumsum(mask_bytes(nuclei))
        self.top, self.left = (np.ascontiguousarray(nuclei[name]) for name in ("top", "left"))
        self.bottom, self.right = self.top + nuclei["height"], self.left + nuclei["width"]

    @property
    def nbytes(self) -> int:
        return int(self.nuclei.nbytes + self.masks.nbytes + 3 * self.ends.nbytes)

    def box(self, index: int) -> Box:
        top, left = int(self.top[index]), int(self.left[index])
        return Box(top, left, int(self.bottom[index]) - top, int(self.right[index]) - left)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Which pixels of its box a nucleus has."""
        box, begin = self.box(index), int(self.ends[index - 1]) if index else 0
        packed = self.masks[begin : int(self.ends[index])]
        return np.unpackbits(packed, count=box.height * box.width).reshape(box.shape).view(np.bool_)

    def paint(self, labels: NDArray[np.uint32], box: Box, first: int) -> None:
        """Give the pixels of the nuclei, numbered from `first`, their number in an array that holds `box`."""
        meets = (self.top < box.bottom) & (self.bottom > box.y) & (self.left < box.right) & (self.right > box.x)
        which = np.flatnonzero(meets)
        corners = (one[which].astype(np.int64) for one in (self.top, self.left, self.bottom, self.right))
        edges = np.stack([*corners], axis=1) - (box.y, box.x, box.y, box.x)
        starts = self.ends[which] - mask_bytes(self.nuclei[which])
        kernels.paint_masks(labels, self.masks, starts, edges, first + which)
