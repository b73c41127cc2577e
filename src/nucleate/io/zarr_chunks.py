"""The chunks of a Zarr array, read by zarr-python once `zarr_metadata` has checked its codecs and sizes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from nucleate.errors import ImageError
from nucleate.io.cache import LARGEST_PIECE, Cache
from nucleate.io.files import exists, reading, refuse_irregular
from nucleate.io.zarr_metadata import COMPRESSORS, NAMES, broken, version_of
from nucleate.io.zarr_packed import unpacks_beyond

_CHECKSUM = 64  # bytes that checksums add to a chunk, at most

KEPT = 2**26
"""Bytes of decoded chunks that are kept."""


class CheckedStore(LocalStore):
    """The files of an array, none of which may be shorter than what is asked for, or than what it says of itself.

    Blosc believes the length in its header, and reads beyond the end of data that are cut off.
    """

    blosc = False
    """Whether each file is one chunk that Blosc has packed."""

    codec, most = "", 0
    """What has packed each file that is one chunk, and how many bytes such a chunk has."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        self._check_file(key, byte_range)
        return self._checked(await super().get(key, prototype, byte_range), key, byte_range)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        self._check_file(key, byte_range)
        return self._checked(super().get_sync(key, prototype=prototype, byte_range=byte_range), key, byte_range)

    def _check_file(self, key: str, byte_range: ByteRequest | None) -> None:
        """Raise for what is there and must not be read: a pipe or a device, or more bytes than any chunk may have."""
        path = self.root / key
        if not exists(path):
            return
        size = refuse_irregular(path)
        if isinstance(byte_range, RangeByteRequest):
            size = byte_range.end - byte_range.start
        elif isinstance(byte_range, OffsetByteRequest):
            size -= byte_range.offset
        elif isinstance(byte_range, SuffixByteRequest):
            size = byte_range.suffix
        if size > LARGEST_PIECE:
            raise ImageError(
                f"{path} has a chunk of {size} bytes, above the limit of {LARGEST_PIECE}: export it again."
            )

    def _checked(self, found: Buffer | None, key: str, byte_range: ByteRequest | None) -> Buffer | None:
        if found is None:
            # A chunk of nothing but the fill value need not be stored. Where all is gone, that is not why.
            if not any((self.root / name).exists() for name in NAMES):
                raise ImageError(f"{self.root} is not there any more: was it moved, or its disk removed?")
            return None
        if isinstance(byte_range, RangeByteRequest):
            expected = byte_range.end - byte_range.start
        elif self.blosc and byte_range is None and key not in NAMES and len(found) >= 16:
            expected = int.from_bytes(found[12:16].to_bytes(), "little")
        else:
            expected = 0
        if len(found) < expected:
            raise ImageError(f"{self.root / key} is cut off before its end: copy or export it again.")
        if self.codec and key not in NAMES and unpacks_beyond(found.to_bytes(), self.codec, self.most):
            raise ImageError(f"{self.root / key} has a chunk that becomes larger than it may be: export it again.")
        return found


def _codec(compressor: object) -> str:
    """The name of what packs chunks, whichever library's it is; empty for a checksum."""
    kind = type(compressor).__name__.lower()
    return next((name for name in COMPRESSORS if kind.startswith(name)), "")


class ChunkedArray:
    """The Zarr array in `folder`, of which any box can be read; chunks that neighbouring boxes share are decoded once,
    with those beside them along the axes that are read `together`, by default all but the last two.

    Raises:
        ImageError: there is none, or it cannot be read, as `zarr_metadata.version_of` says.
    """

    def __init__(self, folder: Path, kept: int = KEPT, *, together: Sequence[int] | None = None) -> None:
        version, store = version_of(folder), CheckedStore(folder, read_only=True)
        try:
            with warnings.catch_warnings():  # that some codecs are of no specification yet
                warnings.simplefilter("ignore")
                self._array = zarr.open_array(store, mode="r", zarr_format=version)
        except Exception as error:  # each part of the metadata has errors of its own
            raise broken(folder, error) from error
        whole = self._array.shards is None  # else what is at the beginning of a file need not be a chunk
        store.blosc = whole and any(type(one).__name__.startswith("Blosc") for one in self._array.compressors)
        self.folder, self._cache = folder, Cache[NDArray[np.generic]](kept)
        self.shape, self.chunk = self._array.shape, self._array.chunks
        self.dtype: np.dtype[np.generic] = np.dtype(self._array.dtype).newbyteorder("=")
        every = range(len(self.shape) - 2)
        self._block = self._blocks(kept, every if together is None else together)
        store.codec = next((_codec(one) for one in self._array.compressors if _codec(one)), "") if whole else ""
        store.most = math.prod(self.chunk) * self.dtype.itemsize + _CHECKSUM

    def _blocks(self, limit: int, together: Sequence[int]) -> tuple[int, ...]:
        """The shape of what is decoded in one go: a chunk, and those of the other channels as far as the limit goes."""
        block = list(self.chunk)
        for axis in reversed(together):
            more = max(1, limit // (math.prod(block) * self.dtype.itemsize))
            block[axis] = min(self.shape[axis], block[axis] * more)
        return tuple(block)

    def check_stored(self) -> None:
        """Raise `ImageError` where no chunk at all is there, as when only the metadata were copied."""
        with reading(self.folder):
            empty = all(entry.name in NAMES for entry in self.folder.iterdir())
        if empty:
            raise ImageError(f"{self.folder} promises an image and holds no chunk of it: copy or export it again.")

    def read(self, start: tuple[int, ...], stop: tuple[int, ...]) -> NDArray[np.generic]:
        """The values from `start` up to `stop`, one index for each axis, both inside the array."""
        out = np.empty([end - begin for begin, end in zip(start, stop, strict=True)], self.dtype)
        spans = zip(start, stop, self._block, strict=True)
        size = math.prod(self._block) * self.dtype.itemsize
        for index in product(*(range(begin // side, -(-end // side)) for begin, end, side in spans)):
            origin = [number * side for number, side in zip(index, self._block, strict=True)]
            piece = self._cache.get(index, size, partial(self._decoded, origin))
            first = [max(begin, o) for begin, o in zip(start, origin, strict=True)]
            last = [min(end, o + side) for end, o, side in zip(stop, origin, piece.shape, strict=True)]
            there = tuple(slice(f - begin, e - begin) for f, e, begin in zip(first, last, start, strict=True))
            here = tuple(slice(f - o, e - o) for f, e, o in zip(first, last, origin, strict=True))
            out[there] = piece[here]
        return out

    def _decoded(self, origin: list[int]) -> NDArray[np.generic]:
        """The block that begins there, as far as it lies inside the array."""
        part = tuple(slice(o, min(o + side, end)) for o, side, end in zip(origin, self._block, self.shape, strict=True))
        try:
            return np.asarray(self._array[part]).astype(self.dtype, copy=False)
        except ImageError:
            raise
        except Exception as error:  # each codec has errors of its own
            reason = (str(error) or repr(error)).splitlines()[0]
            raise ImageError(
                f"{self.folder} has a chunk that cannot be decoded, at {tuple(origin)} ({reason:.200}): copy or export"
                " it again."
            ) from error
