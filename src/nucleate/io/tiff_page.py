"""The pixels of one page of a TIFF file, of which any box can be read."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io import tiff_codec
from nucleate.io.cache import LARGEST_PIECE, Cache, Piece
from nucleate.types import Box


class File:
    """An open file of `size` bytes, from which several threads read."""

    def __init__(self, path: Path, handle: Any) -> None:
        self.path, self._handle, self._lock = path, handle, threading.Lock()
        self.size = int(handle.size)

    def read(self, offset: int, count: int) -> bytes:
        try:
            with self._lock:
                self._handle.seek(offset)
                data: bytes = self._handle.read(count)
        except (OSError, ValueError) as error:
            raise ImageError(f"{self.path} cannot be read any more ({error}): is its disk still there?") from error
        if len(data) < count:
            raise ImageError(f"{self.path} ended while it was read: copy or export it again.")
        return data


class Plane:
    """One page: `page` describes it, `offsets` and `counts` say where its tiles or strips lie.

    Uncompressed strips are read by rows. Of all else, the tiles or strips that a box touches are decoded whole, one
    after the other. `piece` is the (height, width) of what is read as one.

    Raises `ImageError` where the file cannot hold what the page promises, or a tile is too large to decode.
    """

    def __init__(
        self, page: Any, offsets: Sequence[int], counts: Sequence[int], tables: bytes | None, file: File, cache: Cache
    ) -> None:
        if page.dtype is None or 0 in page.shaped or page.imagedepth != 1:
            raise ImageError(f"{file.path} has pixels of a kind that is not read: export it again.")
        self._page, self._offsets, self._counts, self._tables = page, offsets, counts, tables
        self._file, self._cache = file, cache
        self.samples = int(page.samplesperpixel)
        # Samples lie together in a tile, or each in tiles of its own.
        self._layers = self.samples if page.planarconfig == 2 else 1
        self._together = self.samples // self._layers
        self._shape = int(page.imagelength), int(page.imagewidth)
        strip = min(int(page.rowsperstrip), self._shape[0]), self._shape[1]
        self._stored = (int(page.tilelength), int(page.tilewidth)) if page.is_tiled else strip
        self._grid = tuple(-(-length // side) for length, side in zip(self._shape, self._stored, strict=True))
        self._by_rows = (
            (page.compression, page.predictor, page.fillorder) == (tiff_codec.NONE, 1, 1)
            and not page.is_tiled
            and page.bitspersample == 8 * page.dtype.itemsize
        )
        self.piece = (1, self._shape[1]) if self._by_rows else self._stored
        self._check()

    def _check(self) -> None:
        path = self._file.path
        if self._page.compression not in tiff_codec.READ:
            name = getattr(self._page.compression, "name", self._page.compression)
            raise ImageError(f"{path} is compressed with {name}, which is not read: save it with Deflate or JPEG.")
        expected = self._grid[0] * self._grid[1] * self._layers
        if len(self._offsets) != expected or len(self._counts) != expected:
            raise ImageError(
                f"{path} promises {expected} tiles or strips and names {len(self._offsets)}: copy or export it again."
            )
        offsets, counts = (np.asarray(values, dtype=np.int64) for values in (self._offsets, self._counts))
        if self._by_rows:  # what a strip itself says wraps round at 4 GiB
            rows = np.minimum(self._stored[0], self._shape[0] - self._stored[0] * np.arange(self._grid[0]))
            counts = np.where(counts == 0, 0, np.tile(rows, self._layers) * self._line)
        outside = (offsets < 0) | (counts < 0) | (counts > self._file.size) | (offsets > self._file.size - counts)
        if (outside & (counts != 0)).any():
            raise ImageError(f"{path} is cut off, or promises more than it can hold: copy or export it again.")
        if not self._by_rows and max(self._bytes, int(counts.max())) > LARGEST_PIECE:
            raise ImageError(
                f"{path} is stored in pieces of {self._stored[1]} x {self._stored[0]} pixels, each of which takes more"
                f" than {LARGEST_PIECE} bytes: save it in tiles."
            )

    @property
    def _line(self) -> int:
        """Bytes of a row of an uncompressed strip."""
        return self._shape[1] * self._together * int(self._page.dtype.itemsize)

    @property
    def _bytes(self) -> int:
        """Bytes that a tile or strip takes while it is decoded."""
        return self._stored[0] * self._stored[1] * self._together * tiff_codec.width(self._page)

    def read(self, box: Box) -> NDArray[np.generic]:
        """The pixels (height, width, samples) of a box inside the page, 0 where the file leaves a tile out."""
        out = np.zeros((box.height, box.width, self.samples), dtype=self._page.dtype)
        for layer in range(self._layers):
            part = out[..., layer * self._together : (layer + 1) * self._together]
            (self._read_rows if self._by_rows else self._read_pieces)(layer, box, part)
        return out

    def _read_rows(self, layer: int, box: Box, out: NDArray[np.generic]) -> None:
        page = self._page
        dtype = page.dtype.newbyteorder(page.parent.byteorder)
        pixel = self._together * dtype.itemsize
        for y in range(box.y, box.bottom):
            strip, row = divmod(y, self._stored[0])
            index = layer * self._grid[0] + strip
            if self._counts[index] != 0:
                offset = self._offsets[index] + row * self._line + box.x * pixel
                data = self._file.read(offset, box.width * pixel)
                out[y - box.y] = np.frombuffer(data, dtype).reshape(box.width, self._together)

    def _read_pieces(self, layer: int, box: Box, out: NDArray[np.generic]) -> None:
        high, wide = self._stored
        for row in range(box.y // high, (box.bottom - 1) // high + 1):
            for column in range(box.x // wide, (box.right - 1) // wide + 1):
                index = (layer * self._grid[0] + row) * self._grid[1] + column
                if self._counts[index] == 0:
                    continue
                piece = self._cache.get((self, index), self._bytes, partial(self._piece, index, row, column))
                here = Box(row * high, column * wide, *piece.shape[:2])
                common = here.common(box)
                if common is not None:
                    out[common.within(box)] = piece[common.within(here)]

    def _piece(self, index: int, row: int, column: int) -> Piece:
        """The decoded tile or strip (height, width, samples)."""
        data = self._file.read(self._offsets[index], self._counts[index])
        try:
            return tiff_codec.decode(self._page, data, index, self._tables, (*self._stored, self._together))
        except Exception as error:  # each codec has errors of its own
            raise ImageError(
                f"{self._file.path} has a tile or strip that cannot be decoded, in row {row} and column {column} of"
                f" them ({error}): copy or export it again."
            ) from error
