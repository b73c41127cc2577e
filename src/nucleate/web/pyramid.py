"""A slide as square tiles of screen colours, at every halving of its size, whatever levels its file has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from nucleate.data.normalization import percentiles, stretch
from nucleate.errors import InputError
from nucleate.io.axes import RGB
from nucleate.io.cache import Cache
from nucleate.io.reader import Reader
from nucleate.types import Box, Pixels

TILE = 256
"""Pixels; the side of a tile."""

CACHED = 2**28
"""Bytes of tiles that are kept, of all images together."""

Colours = NDArray[np.uint8]
"""What the screen shows: (height, width, 3), red, green and blue."""

_SAMPLE = 2**22  # pixels from which the contrast is taken
_SPOTS, _SPOT = 4, 512  # of a large level: so many squares of this side along each axis


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


class Pyramid:
    """The tiles of one slide. Level k has one pixel for 2**k x 2**k of the whole slide, and `depth` fits in one tile.

    `open_level` opens one level of the file. A level that the file has is read from it; any other is the mean of 2 x 2
    pixels of the level below, made tile by tile. May be used from several threads at once.
    """

    def __init__(self, open_level: Callable[[int], Reader], cache: Cache[Colours] | None = None) -> None:
        self._open_level, self._lock = open_level, threading.Lock()
        self._cache = cache or Cache[Colours](CACHED)
        self._readers = {0: open_level(0)}
        base = self._readers[0]
        self.stored, self.shape = base.levels, base.shape
        self.depth = max(0, (max(self.shape) - 1) // TILE).bit_length()
        self._contrast: Contrast | None = None

    def tile(self, level: int, row: int, column: int) -> Colours:
        """One tile; those at the right and lower border are smaller.

        Raises `InputError` where there is no such tile, and `ImageError` where the file cannot be read any more.
        """
        box = self._box(level, row, column)
        size = 3 * box.height * box.width
        return self._cache.get((self, level, row, column), size, lambda: self._make(level, row, column, box))

    def close(self) -> None:
        with self._lock:
            for reader in self._readers.values():
                reader.close()

    def _box(self, level: int, row: int, column: int) -> Box:
        """What the tile covers, in pixels of its level."""
        if 0 <= level <= self.depth and row >= 0 and column >= 0:
            height, width = (-(-side >> level) for side in self.shape)
            box = Box(0, 0, height, width).common(Box(row * TILE, column * TILE, TILE, TILE))
            if box is not None:
                return box
        raise InputError(f"There is no tile in row {row} and column {column} of level {level}.")

    def _make(self, level: int, row: int, column: int, box: Box) -> Colours:
        stored = self._stored_near(level)
        if stored is not None:
            ratio = 2**level / self.stored[stored].downsample
            return self.contrast(_sampled(self._reader(stored), box, ratio))
        rows, columns = (
            range(2 * first, 2 * first + (2 if length > TILE // 2 else 1))
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
            known = Contrast.of(self._reader(len(self.stored) - 1))
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


def _sample(reader: Reader) -> Pixels:
    """Pixels (1, n, channels) that stand for a whole level: all of it, or of a large one some spots."""
    height, width = reader.shape
    if height * width <= _SAMPLE:
        boxes = [reader.box]
    else:
        boxes = [
            Box(round(y), round(x), min(_SPOT, height), min(_SPOT, width))
            for y in np.linspace(0, max(0, height - _SPOT), _SPOTS)
            for x in np.linspace(0, max(0, width - _SPOT), _SPOTS)
        ]
    pixels = [reader.read(box) for box in boxes]
    return np.concatenate([part.reshape(1, -1, part.shape[2]) for part in pixels], axis=1)
