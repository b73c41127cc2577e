"""The pixels of one page of a TIFF file, of which any box can be read.

A tile or strip may claim to hold more than it does. JPEG and JPEG 2000 carry a size of their own, for which their
decoders take memory: it is compared with the tile's before they see it. All other decoders are told how much may come
out.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.bitmap import jpeg_size
from nucleate.io.cache import LARGEST_PIECE, Cache
from nucleate.types import Box

Piece = NDArray[np.generic]
"""A decoded tile or strip, (height, width, samples)."""

PieceCache = Cache[Piece]

_NONE, _JPEG, _JPEG2000_YCBCR = 1, 7, 33003
_JPEG2000 = (_JPEG2000_YCBCR, 33004, 33005, 34712)
READ = frozenset({_NONE, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, *_JPEG2000, 34925, 34926, 50000})
"""The compressions that are read: CCITT, LZW, JPEG, Deflate, PackBits, JPEG 2000, LZMA and Zstandard."""

_AT_ONCE = 2**24  # bytes of uncompressed rows that are read in one go
_BELIEVED, _SHARED = 2**28, 64  # pixels; of more than these, one place may hold no more than so many tiles or strips
_BLOCK = 16  # pixels; JPEG fills its image up to a multiple of at most this side


class SharedFile:
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


class TiffPage:
    """One page: `page` describes it, `offsets` and `counts` say where its tiles or strips lie.

    Uncompressed strips are read by rows. Of all else, the tiles or strips that a box touches are decoded whole, one
    after the other. `piece` is the (height, width) of what is read as one.

    Raises `ImageError` where the file cannot hold what the page promises, or a tile is too large to decode.
    """

    def __init__(
        self,
        page: Any,
        offsets: Sequence[int],
        counts: Sequence[int],
        tables: bytes | None,
        file: SharedFile,
        cache: PieceCache,
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
            (page.compression, page.predictor, page.fillorder) == (_NONE, 1, 1)
            and not page.is_tiled
            and page.bitspersample == 8 * page.dtype.itemsize
        )
        row = max(1, _AT_ONCE // (self._together * page.dtype.itemsize))
        self.piece = (1, min(self._shape[1], row)) if self._by_rows else self._stored
        self._check()

    def _check(self) -> None:
        path = self._file.path
        if self._page.compression not in READ:
            name = getattr(self._page.compression, "name", self._page.compression)
            raise ImageError(f"{path} is compressed with {name}, which is not read: save it with Deflate or JPEG.")
        expected = self._grid[0] * self._grid[1] * self._layers
        if len(self._offsets) != expected or len(self._counts) != expected:
            raise ImageError(
                f"{path} promises {expected} tiles or strips and names {len(self._offsets)}: copy or export it again."
            )
        offsets, counts = (np.asarray(values, dtype=np.int64) for values in (self._offsets, self._counts))
        if self._by_rows and self._line * self._stored[0] > self._file.size:
            raise ImageError(f"{path} is cut off, or promises more than it can hold: copy or export it again.")
        if self._by_rows:  # what a strip itself says wraps round at 4 GiB
            rows = np.minimum(self._stored[0], self._shape[0] - self._stored[0] * np.arange(self._grid[0]))
            counts = np.tile(rows, self._layers) * self._line
        if missing := int(((offsets == 0) | (counts == 0)).sum()):
            raise ImageError(
                f"{path} leaves out {missing} of its {expected} tiles or strips, whose pixels nobody knows: export it"
                " again."
            )
        if ((offsets < 0) | (counts < 0) | (counts > self._file.size) | (offsets > self._file.size - counts)).any():
            raise ImageError(f"{path} is cut off, or promises more than it can hold: copy or export it again.")
        pixels = expected * self._stored[0] * self._stored[1]
        if pixels > _BELIEVED and expected > _SHARED * np.unique(offsets).size:
            raise ImageError(f"{path} promises {pixels} pixels and repeats the same few: copy or export it again.")
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
        return self._stored[0] * self._stored[1] * self._together * _width(self._page)

    def read(self, box: Box) -> NDArray[np.generic]:
        """The pixels (height, width, samples) of a box inside the page."""
        out = np.empty((box.height, box.width, self.samples), dtype=self._page.dtype)
        for layer in range(self._layers):
            part = out[..., layer * self._together : (layer + 1) * self._together]
            (self._read_rows if self._by_rows else self._read_pieces)(layer, box, part)
        return out

    def _read_rows(self, layer: int, box: Box, out: NDArray[np.generic]) -> None:
        page = self._page
        dtype = page.dtype.newbyteorder(page.parent.byteorder)
        pixel = self._together * dtype.itemsize
        y, whole = box.y, box.width == self._shape[1]
        while y < box.bottom:
            strip, row = divmod(y, self._stored[0])
            # Whole rows of a strip lie one behind the other.
            rows = min(self._stored[0] - row, box.bottom - y, max(1, _AT_ONCE // self._line)) if whole else 1
            offset = self._offsets[layer * self._grid[0] + strip] + row * self._line + box.x * pixel
            data = self._file.read(offset, rows * box.width * pixel)
            out[y - box.y : y - box.y + rows] = np.frombuffer(data, dtype).reshape(rows, box.width, self._together)
            y += rows

    def _read_pieces(self, layer: int, box: Box, out: NDArray[np.generic]) -> None:
        high, wide = self._stored
        for row in range(box.y // high, (box.bottom - 1) // high + 1):
            for column in range(box.x // wide, (box.right - 1) // wide + 1):
                index = (layer * self._grid[0] + row) * self._grid[1] + column
                piece = self._cache.get((self, index), self._bytes, partial(self._piece, index, row, column))
                here = Box(row * high, column * wide, *piece.shape[:2])
                common = here.common(box)
                if common is not None:
                    out[common.within(box)] = piece[common.within(here)]

    def _piece(self, index: int, row: int, column: int) -> Piece:
        """The decoded tile or strip (height, width, samples)."""
        data = self._file.read(self._offsets[index], self._counts[index])
        inside = [
            min(side, end - at * side) for side, end, at in zip(self._stored, self._shape, (row, column), strict=True)
        ]
        try:
            piece = _decode(self._page, data, index, self._tables, (*self._stored, self._together))
            if piece.shape[0] < inside[0] or piece.shape[1] < inside[1]:
                raise ValueError(f"it holds {piece.shape[1]} x {piece.shape[0]} pixels")
            return piece
        except Exception as error:  # each codec has errors of its own
            raise ImageError(
                f"{self._file.path} has a tile or strip that cannot be decoded, in row {row} and column {column} of"
                f" them ({error}): copy or export it again."
            ) from error


def _width(page: Any) -> int:
    """Bytes that a value takes while it is decoded; JPEG 2000 works in 32 bits."""
    return int(page.dtype.itemsize) + 4 * (page.compression in _JPEG2000)


def _decode(
    page: Any, data: bytes, index: int, tables: bytes | None, shape: tuple[int, int, int]
) -> NDArray[np.generic]:
    """The pixels (height, width, samples) of the tile or strip of this index, at most of `shape`.

    Raises `ValueError`, or what the codec raises, for data that are broken, cut off or of another size.
    """
    if page.compression in _JPEG2000:
        return _decode_jpeg2000(page, data, shape)
    if page.compression == _JPEG and page.jpegheader is None:
        _refuse_larger((*jpeg_size(data), shape[2]), shape)
    decoded: NDArray[np.generic] = page.decode(data, index, jpegtables=tables, jpegheader=page.jpegheader)[0][0]
    return decoded


def _decode_jpeg2000(page: Any, data: bytes, shape: tuple[int, int, int]) -> NDArray[np.generic]:
    *size, subsampled = _jpeg2000_header(data)
    _refuse_larger((size[0], size[1], size[2]), shape)
    decoded = np.asarray(imagecodecs.jpeg2k_decode(data)).reshape(size)
    if decoded.dtype != page.dtype or decoded.shape[2] < shape[2]:
        raise ValueError(f"it holds {decoded.shape[2]} samples of {decoded.dtype}")
    # Where chroma is subsampled the decoder itself takes it for YCbCr, and gives colours.
    if page.compression == _JPEG2000_YCBCR and shape[2] == 3 and not subsampled:
        return _colours(decoded)
    return decoded[..., : shape[2]]


def _jpeg2000_header(data: bytes) -> tuple[int, int, int, bool]:
    """Height, width and samples that a codestream claims, and whether some samples are fewer than others."""
    at = 0
    while data[at + 4 : at + 8] in (b"jP  ", b"ftyp", b"jp2h"):  # a file of its own, and what comes before its stream
        at += max(8, int.from_bytes(data[at : at + 4], "big"))
    at += 8 * (data[at + 4 : at + 8] == b"jp2c")
    if data[at : at + 4] != b"\xff\x4f\xff\x51" or len(data) < at + 42:
        raise ValueError("it is no JPEG 2000 stream")
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    (samples,) = struct.unpack_from(">H", data, at + 40)
    steps = data[at + 42 : at + 42 + 3 * samples]
    return bottom - top, right - left, samples, any(step > 1 for step in steps[1::3] + steps[2::3])


def _refuse_larger(claimed: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
    limits = (-(-shape[0] // _BLOCK) * _BLOCK, -(-shape[1] // _BLOCK) * _BLOCK, max(4, shape[2]))
    if any(not 0 < claim <= limit for claim, limit in zip(claimed, limits, strict=True)):
        raise ValueError(f"it claims to be {claimed[1]} x {claimed[0]} pixels of {claimed[2]} samples")


def _colours(ycbcr: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Red, green and blue of 8-bit YCbCr as JFIF has it (ITU-T T.871, 2011)."""
    y, cb, cr = np.moveaxis(ycbcr.astype(np.float32), 2, 0)
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2)
    return np.asarray(np.rint(rgb).clip(0, 255), dtype=np.uint8)
