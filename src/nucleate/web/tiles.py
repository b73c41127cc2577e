"""What the page draws: square tiles of an image, of its labels and of the entropy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from nucleate.data.normalization import percentiles, stretch
from nucleate.errors import InputError
from nucleate.io.axes import RGB
from nucleate.io.cache import Cache
from nucleate.io.reader import Level, Reader
from nucleate.types import Box, Pixels

TILE = 256
"""Pixels; the side of a tile."""

CACHED = 2**28
"""Bytes of tiles that are kept, of all images together."""

Colours = NDArray[np.uint8]
"""What the screen shows: (height, width, 3), red, green and blue."""

_STOPS = ((120, 40, 220, 0), (230, 60, 120, 140), (255, 170, 60, 220))
_HEAT: Colours = np.stack(
    [np.interp(np.linspace(0, 2, 256), (0, 1, 2), part) for part in zip(*_STOPS, strict=True)], axis=1
).astype(np.uint8)
"""The colour of each entropy, 0 to 1 bit: clear where the model is sure, then violet, red and orange."""

OUTLINE_DEPTH = 3
"""The coarsest level of labels: every 8th pixel. Coarser ones would show no nucleus, and read it all at once."""

MARGIN = 1
"""Labels around each tile, as an outline lies where a neighbour differs; 0 where the image ends."""

_SPOTS = 4  # squares along each axis of a large level, from which its contrast is taken


@dataclass(frozen=True, slots=True)
class Contrast:
    """What becomes black and what becomes white in each channel, from the 0.5th to the 99.8th percentile. Colour
    images of 8 bits are shown as they are. Of several channels the first three are red, green and blue."""

    ends: tuple[tuple[float, float], ...] | None

    @classmethod
    def of(cls, reader: Reader) -> Contrast:
        """From the pixels of one level, which stand for the slide."""
        if reader.channels == RGB and reader.dtype == np.uint8:
            return cls(None)
        sample = _sample(reader)
        ends = [percentiles(sample[..., channel], (0.5, 99.8)) for channel in range(min(3, sample.shape[2]))]
        return cls(tuple((float(low), float(high)) for low, high in ends))

    def __call__(self, pixels: Pixels) -> Colours:
        if self.ends is None:
            return np.ascontiguousarray(pixels[..., :3]).astype(np.uint8, copy=False)
        planes = [
            np.rint(255 * stretch(pixels[..., channel], low, high, 0.0, 1.0)).astype(np.uint8)
            for channel, (low, high) in enumerate(self.ends)
        ]
        if len(planes) == 2:
            planes.append(np.zeros_like(planes[0]))
        return np.stack(planes if len(planes) == 3 else planes * 3, axis=2)


class ImageTiles:
    """The tiles of one slide. Level k has one pixel for 2**k x 2**k of the whole slide, and `depth` fits in one tile.

    `open_level` opens one level of the file; `contrast` is taken from the pixels unless it is given. A level that the
    file has is read from it; any other is the mean of 2 x 2 pixels of the level below, made tile by tile. May be used
    from several threads at once.
    """

    def __init__(
        self,
        open_level: Callable[[int], Reader],
        cache: Cache[Colours] | None = None,
        tile: int = TILE,
        contrast: Contrast | None = None,
    ) -> None:
        self._open_level, self._tile, self._lock = open_level, tile, threading.Lock()
        self._key = object()  # in the cache, which so does not keep a closed image in memory
        self._cache = cache or Cache[Colours](CACHED)
        self._readers = {0: open_level(0)}
        base = self._readers[0]
        self.stored, self.shape = base.levels, base.shape
        self.depth = max(0, (max(self.shape) - 1) // self._tile).bit_length()
        self._contrast = contrast

    def tile(self, level: int, row: int, column: int) -> Colours:
        """One tile; those at the right and lower border are smaller.

        Raises `InputError` where there is no such tile, and `ImageError` where the file cannot be read any more.
        """
        box = self._box(level, row, column)
        size = 3 * box.height * box.width
        return self._cache.get((self._key, level, row, column), size, lambda: self._make(level, row, column, box))

    def close(self) -> None:
        with self._lock:
            for reader in self._readers.values():
                reader.close()

    def _box(self, level: int, row: int, column: int) -> Box:
        """What the tile covers, in pixels of its level."""
        if 0 <= level <= self.depth and row >= 0 and column >= 0:
            height, width = (-(-side >> level) for side in self.shape)
            box = Box(0, 0, height, width).common(Box(row * self._tile, column * self._tile, self._tile, self._tile))
            if box is not None:
                return box
        raise _no_tile(level, row, column)

    def _make(self, level: int, row: int, column: int, box: Box) -> Colours:
        stored = self._stored_near(level)
        if stored is not None:
            ratio = 2**level / self.stored[stored].downsample
            return self.contrast(_sampled(self._reader(stored), box, ratio))
        rows, columns = (
            range(2 * first, 2 * first + (2 if length > self._tile // 2 else 1))
            for first, length in zip((row, column), box.shape, strict=True)
        )
        parts = [[self.tile(level - 1, down, across) for across in columns] for down in rows]
        below = np.concatenate([np.concatenate(part, axis=1) for part in parts], axis=0)
        # Where the level below ends with an odd pixel, that one counts twice.
        below = np.pad(below, ((0, below.shape[0] % 2), (0, below.shape[1] % 2), (0, 0)), mode="edge")
        sums = below.reshape(box.height, 2, box.width, 2, 3).sum(axis=(1, 3), dtype=np.uint16)
        means: Colours = ((sums + 2) // 4).astype(np.uint8)
        return means

    @property
    def contrast(self) -> Contrast:
        with self._lock:
            known = self._contrast
        if known is None:
            known = Contrast.of(self._reader(_small(self.stored)))
            with self._lock:
                self._contrast = known
        return known

    def _stored_near(self, level: int) -> int | None:
        """The level of the file whose size is nearest to this one's, if within a factor of the root of 2."""
        away, stored = min((abs(log2(one.downsample) - level), number) for number, one in enumerate(self.stored))
        return stored if away <= 0.5 else None

    def _reader(self, stored: int) -> Reader:
        with self._lock:
            if stored not in self._readers:
                self._readers[stored] = self._open_level(stored)
            return self._readers[stored]


def _sampled(reader: Reader, box: Box, ratio: float) -> Pixels:
    """The pixels nearest to the middles of those in `box`, of a level whose pixels are `ratio` times larger."""
    rows, columns = (
        np.clip(((np.arange(begin, begin + length) + 0.5) * ratio).astype(np.int64), 0, limit - 1)
        for begin, length, limit in zip((box.y, box.x), box.shape, reader.shape, strict=True)
    )
    y, x = int(rows[0]), int(columns[0])
    pixels = reader.read(Box(y, x, int(rows[-1]) - y + 1, int(columns[-1]) - x + 1))
    return pixels[np.ix_(rows - y, columns - x)]


def _small(levels: Sequence[Level]) -> int:
    """The smallest level that still stands for the slide; the last ones of a long pyramid are a few pixels."""
    return max((n for n, one in enumerate(levels) if max(one.shape) >= TILE), default=0)


def _sample(reader: Reader, whole: int = 2**22, spot: int = 512) -> Pixels:
    """Pixels (1, n, channels) that stand for a level: all, or of more than `whole` pixels squares of side `spot`."""
    height, width = reader.shape
    if height * width <= whole:
        boxes = [reader.box]
    else:
        boxes = [
            Box(round(y), round(x), min(spot, height), min(spot, width))
            for y in np.linspace(0, max(0, height - spot), _SPOTS)
            for x in np.linspace(0, max(0, width - spot), _SPOTS)
        ]
    pixels = [reader.read(box) for box in boxes]
    return np.concatenate([part.reshape(1, -1, part.shape[2]) for part in pixels], axis=1)


class LabelTiles:
    """The tiles of one label image. Level k holds every 2**k-th pixel of every 2**k-th row."""

    def __init__(self, labels: Reader, tile: int = TILE) -> None:
        self.labels, self._tile = labels, tile

    def tile(self, level: int, row: int, column: int) -> NDArray[np.uint32]:
        """The labels of one tile and of a margin around it, always (TILE + 2) x (TILE + 2).

        Raises `InputError` where there is no such tile, and `ImageError` where the file cannot be read any more.
        """
        if not 0 <= level <= OUTLINE_DEPTH:
            raise _no_tile(level, row, column)
        step = 2**level
        begin = (row * self._tile * step, column * self._tile * step)
        height, width = self.labels.shape
        if not (0 <= begin[0] < height and 0 <= begin[1] < width):
            raise _no_tile(level, row, column)
        side = (self._tile + 2 * MARGIN) * step
        wanted = Box(begin[0] - MARGIN * step, begin[1] - MARGIN * step, side, side)
        there = wanted.common(self.labels.box)
        assert there is not None  # as its first pixel is inside
        found = self.labels.read(there)[::step, ::step, 0]
        tile = np.zeros((self._tile + 2 * MARGIN,) * 2, dtype=np.uint32)
        top, left = (there.y - wanted.y) // step, (there.x - wanted.x) // step
        tile[top : top + found.shape[0], left : left + found.shape[1]] = found
        return tile

    def close(self) -> None:
        self.labels.close()


class EntropyTiles:
    """The tiles of a map of entropy in the colours of the page: (height, width, 4), the last one how much they hide."""

    def __init__(self, entropy: Reader, cache: Cache[Colours]) -> None:
        self._tiles = ImageTiles(lambda level: entropy, cache, contrast=Contrast(((0.0, 1.0),)))

    @property
    def shape(self) -> tuple[int, int]:
        return self._tiles.shape

    @property
    def depth(self) -> int:
        return self._tiles.depth

    def tile(self, level: int, row: int, column: int) -> Colours:
        """One tile; raises as `ImageTiles.tile` does."""
        return _HEAT[self._tiles.tile(level, row, column)[..., 0]]

    def close(self) -> None:
        self._tiles.close()


def heat(bits: NDArray[np.float32]) -> Colours:
    """The colours (height, width, 4) of an entropy in bits, 0 to 1."""
    return _HEAT[np.rint(255 * np.clip(bits, 0, 1)).astype(np.intp)]


def _no_tile(level: int, row: int, column: int) -> InputError:
    return InputError(f"There is no tile in row {row} and column {column} of level {level}.")
