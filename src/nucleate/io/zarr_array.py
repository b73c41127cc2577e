"""One Zarr array in a folder, of which any box can be read.

Chunks are decoded here and not by the library that writes them: that one runs every codec that is named and takes the
memory that a chunk asks for. Here a decoder is told how much may come out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import google_crc32c
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.cache import LARGEST_PIECE, Cache, Piece
from nucleate.io.zarr_metadata import CHECKSUM, NAMES, Shard, read_layout


def _blosc_decode(data: bytes, out: int) -> bytes | bytearray:
    """Blosc believes the lengths in its header, and reads beyond the end of data that are cut off."""
    if len(data) < 16 or struct.unpack_from("<I", data, 12)[0] != len(data):
        raise ValueError("it is not of the length that it claims")
    return imagecodecs.blosc_decode(data, out=out)


_ABSENT = 2**64 - 1  # the offset and the length of a chunk that a shard leaves out
_DECODERS: dict[str, Callable[..., bytes | bytearray]] = {
    "blosc": _blosc_decode,
    "gzip": imagecodecs.gzip_decode,
    "lz4": partial(imagecodecs.lz4_decode, header=True),
    "zlib": imagecodecs.zlib_decode,
    "zstd": imagecodecs.zstd_decode,
}


class ZarrArray:
    """The array in `folder`; its `layout` tells shape, type and chunks.

    Raises `ImageError` where there is none or it cannot be read, as `read_layout` says.
    """

    def __init__(self, folder: Path, cache: Cache) -> None:
        self.folder, self.layout, self._cache = folder, read_layout(folder), cache
        layout = self.layout
        self._per_file = tuple(side // part for side, part in zip(layout.stored, layout.chunk, strict=True))

    def check_stored(self) -> None:
        """Raise `ImageError` where no chunk at all is there, as when only the metadata were copied."""
        if all(entry.name in NAMES for entry in self.folder.iterdir()):
            raise ImageError(f"{self.folder} promises an image and holds no chunk of it: copy or export it again.")

    def read(self, start: tuple[int, ...], stop: tuple[int, ...]) -> NDArray[np.generic]:
        """The values from `start` up to `stop`, one index for each axis, both inside the array."""
        layout = self.layout
        shape = [b - a for a, b in zip(start, stop, strict=True)]
        out = np.empty(shape, dtype=layout.dtype.newbyteorder("="))
        spans = zip(start, stop, layout.chunk, strict=True)
        for index in product(*(range(a // side, -(-b // side)) for a, b, side in spans)):
            where = self._place(index)
            piece = self._cache.get(index, layout.nbytes, partial(self._piece, *where))
            origin = [i * side for i, side in zip(index, layout.chunk, strict=True)]
            first = [max(a, o) for a, o in zip(start, origin, strict=True)]
            last = [min(b, o + side) for b, o, side in zip(stop, origin, layout.chunk, strict=True)]
            there = tuple(slice(f - a, e - a) for f, e, a in zip(first, last, start, strict=True))
            here = tuple(slice(f - o, e - o) for f, e, o in zip(first, last, origin, strict=True))
            out[there] = piece[here]
        return out

    def _piece(self, path: Path, span: tuple[int, int | None] | None) -> Piece:
        layout = self.layout
        data = None if span is None else self._bytes(path, *span)
        if data is None:
            return np.broadcast_to(layout.fill, layout.chunk)
        try:
            values = np.frombuffer(decode(data, layout.codecs, layout.nbytes), layout.dtype)
        except Exception as error:  # each codec has errors of its own
            raise ImageError(
                f"{path} has a chunk that cannot be decoded ({error}): copy or export it again."
            ) from error
        return values.reshape([layout.chunk[axis] for axis in layout.order]).transpose(np.argsort(layout.order))

    def _place(self, index: tuple[int, ...]) -> tuple[Path, tuple[int, int | None] | None]:
        """The file of a chunk, and where in it the chunk begins and how long it is; None where it is left out."""
        block = [i // n for i, n in zip(index, self._per_file, strict=True)]
        path = self.folder / (self.layout.prefix + self.layout.separator.join(map(str, block)))
        if self.layout.shard is None:
            return path, (0, None)
        size = 16 * int(np.prod(self._per_file))
        chunks = self._cache.get(("shard", *block), size, partial(self._chunks, path, self.layout.shard, size))
        within = [i % n for i, n in zip(index, self._per_file, strict=True)]
        offset, length = (int(value) for value in chunks[np.ravel_multi_index(within, self._per_file)])
        return path, None if (offset, length) == (_ABSENT, _ABSENT) else (offset, length)

    def _chunks(self, path: Path, shard: Shard, size: int) -> NDArray[np.generic]:
        """Offset and length of each chunk of a shard."""
        length = size + 4 * shard.checked
        data = self._bytes(path, -length if shard.at_end else 0, length)
        if data is None:
            return np.broadcast_to(np.uint64(_ABSENT), (size // 16, 2))
        try:
            return np.frombuffer(decode(data, (CHECKSUM,) * shard.checked, size), shard.dtype).reshape(-1, 2)
        except ValueError as error:
            raise ImageError(f"{path} has a list of chunks that is broken ({error}): copy it again.") from error

    def _bytes(self, path: Path, offset: int, length: int | None) -> bytes | None:
        """A part of a file, from its end where the offset is negative; None where there is no such file."""
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                begin = offset if offset >= 0 else size + offset
                length = size if length is None else length
                if begin < 0 or begin + length > size:
                    raise ImageError(f"{path} is cut off before its end: copy or export it again.")
                if length > LARGEST_PIECE:
                    raise ImageError(f"{path} has a chunk of {length} bytes, above the limit of {LARGEST_PIECE}.")
                file.seek(begin)
                data = file.read(length)
        except FileNotFoundError as error:
            # A chunk of nothing but the fill value need not be stored. Where all is gone, that is not why.
            if not any((self.folder / name).exists() for name in NAMES):
                raise ImageError(f"{self.folder} is not there any more: was it moved, or its disk removed?") from error
            return None
        except OSError as error:
            raise ImageError(f"{path} cannot be read any more ({error.strerror}): is its disk still there?") from error
        if len(data) < length:
            raise ImageError(f"{path} ended while it was read: copy or export it again.")
        return data


def decode(data: bytes | bytearray, codecs: tuple[str, ...], size: int) -> bytes | bytearray:
    """The `size` bytes that went through these codecs, in this order, one compressor at most among them.

    Raises `ValueError`, or what the codec raises, for data that are broken, cut off or of another size.

    >>> import zlib
    >>> decode(zlib.compress(b"nuclei"), ("zlib",), 6)
    b'nuclei'
    """
    most = size + 4 * codecs.count(CHECKSUM)
    for codec in reversed(codecs):
        if codec == CHECKSUM:
            data, checksum = data[:-4], data[-4:]
            if google_crc32c.value(data).to_bytes(4, "little") != checksum:
                raise ValueError("its checksum is another")
        else:
            data = _DECODERS[codec](data, out=most)
    if len(data) != size:
        raise ValueError(f"it holds {len(data)} bytes instead of {size}")
    return data
