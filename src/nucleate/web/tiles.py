"""What the page asks for: square tiles of an image and of its labels, and the measurements of one nucleus."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from pathlib import Path

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

OUTLINE_DEPTH = 3
"""The coarsest level of labels: every 8th pixel. Coarser ones would show no nucleus, and read it all at once."""

MARGIN = 1
"""Labels around each tile, as an outline lies where a neighbour differs; 0 where the image ends."""

_CHUNK = 2**24  # bytes of a table read at once
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

    `open_level` opens one level of the file. A level that the file has is read from it; any other is the mean of 2 x 2
    pixels of the level below, made tile by tile. May be used from several threads at once.
    """

    def __init__(
        self, open_level: Callable[[int], Reader], cache: Cache[Colours] | None = None, tile: int = TILE
    ) -> None:
        self._open_level, self._tile, self._lock = open_level, tile, threading.Lock()
        self._cache = cache or Cache[Colours](CACHED)
        self._readers = {0: open_level(0)}
        base = self._readers[0]
        self.stored, self.shape = base.levels, base.shape
        self.depth = max(0, (max(self.shape) - 1) // self._tile).bit_length()
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
            box = Box(0, 0, height, width).common(Box(row * self._tile, column * self._tile, self._tile, self._tile))
            if box is not None:
                return box
        raise InputError(f"There is no tile in row {row} and column {column} of level {level}.")

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
        step = 2**level
        begin = (row * self._tile * step, column * self._tile * step)
        height, width = self.labels.shape
        if not (0 <= level <= OUTLINE_DEPTH and 0 <= begin[0] < height and 0 <= begin[1] < width):
            raise InputError(f"There is no tile in row {row} and column {column} of level {level}.")
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


class Measurements:
    """The table in a CSV file whose row n is nucleus n. Only the places of the rows are in memory, found on first use.

    May be used from several threads at once.
    """

    def __init__(self, path: Path, chunk: int = _CHUNK) -> None:
        self.path, self._chunk = path, chunk
        self._starts: NDArray[np.int64] | None = None
        self._lock = threading.Lock()

    def row(self, number: int) -> dict[str, str]:
        """The measurements of a nucleus, by column.

        Raises `InputError` where the table has no such nucleus or cannot be read.
        """
        try:
            with self._lock:
                if self._starts is None:
                    self._starts = self._find_rows()
            if not 1 <= number < len(self._starts) - 1:
                raise InputError(f"There is no nucleus {number} in {self.path}.")
            columns, values = self._read(0), self._read(number)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error.strerror}): run nucleate predict again.") from error
        row = dict(zip(columns, values, strict=False))
        if len(columns) != len(values) or row.get("id") != str(number):
            raise InputError(f"{self.path} has something else than nucleus {number} in its row: predict again.")
        return row

    def _find_rows(self) -> NDArray[np.int64]:
        """Where each line begins, and where the last one ends."""
        found, at = [np.zeros(1, dtype=np.int64)], 0
        with self.path.open("rb") as file:
            while chunk := file.read(self._chunk):
                found.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + at + 1)
                at += len(chunk)
        return np.concatenate(found)

    def _read(self, line: int) -> list[str]:
        assert self._starts is not None  # found before
        begin, end = self._starts[line : line + 2]
        with self.path.open("rb") as file:
            file.seek(begin)
            text = file.read(end - begin).decode("utf-8", "replace")
        return next(csv.reader([text.rstrip("\n")]), [])
