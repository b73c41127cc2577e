"""The metadata of a Zarr array, formats 2 and 3, checked before any chunk is read: sizes, types and codecs.

The library that reads the chunks runs every codec that is named and takes the memory that a chunk asks for.

Formats: https://zarr-specs.readthedocs.io, versions 2 and 3.0 with the sharding codec 1.0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nucleate.errors import ImageError
from nucleate.io.cache import LARGEST_PIECE
from nucleate.io.files import exists, read_bytes

NAMES = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
"""The files of a folder that are not chunks."""

BROKEN = (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
"""What reading metadata raises where a part of them is absent or of another kind."""

COMPRESSORS = frozenset({"blosc", "gzip", "lz4", "zlib", "zstd"})
"""The only codecs that are run, besides the checksum; others may take any memory, or run code of the file's."""

_CHECKSUM = "crc32c"
_LARGEST_JSON = 2**24  # bytes
_MOST_VALUES = 2**40  # of an image; no microscope makes more, and chunks that are left out cost nothing to promise
_TYPES = {
    "bool": "b1",
    **{f"{kind}{bits}": f"{kind[0]}{bits // 8}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"f{bits // 8}" for bits in (16, 32, 64)},
}

Lengths = tuple[int, ...]


def version_of(folder: Path) -> Literal[2, 3]:
    """The Zarr format of the array in a folder, whose metadata are sound.

    Raises:
        ImageError: there is no array, or its metadata are broken, out of all bounds, or name a codec, a filter or a
            type that is not read; no codec and no chunk has been touched then.
    """
    newer = read_json(folder / "zarr.json")
    older = read_json(folder / ".zarray") if newer is None else None
    try:
        if newer is not None:
            _check_format3(newer, folder)
            return 3
        if older is not None:
            _check_format2(older, folder)
            return 2
    except BROKEN as error:
        raise broken(folder, error) from error
    raise ImageError(f"{folder} holds no Zarr array, which its image names: copy or export it again.")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file.

    Raises `ImageError` for a file that cannot be read or is none.
    """
    if not exists(path):
        return None
    text = read_bytes(path, _LARGEST_JSON)
    try:
        found = json.loads(text)
    except BROKEN as error:
        raise ImageError(f"{path} is no valid JSON ({error}): copy or export the image again.") from error
    if not isinstance(found, dict):
        raise ImageError(f"{path} is no JSON object: export the image again.")
    return found


def broken(folder: Path, why: object) -> ImageError:
    """The error for metadata that make no sense."""
    return ImageError(f"{folder} has broken Zarr metadata ({why!r:.200}): copy or export it again.")


def _check_format2(found: dict[str, Any], folder: Path) -> None:
    if not isinstance(found["dtype"], str) or found["dtype"][1:] not in _TYPES.values():
        raise _unreadable(folder, "values of type", found["dtype"])
    for one in found.get("filters") or ():
        raise _unreadable(folder, "the filter", one["id"])
    compressor = found["compressor"]
    _check_compressors([] if compressor is None else [str(compressor["id"])], folder)
    chunk = _lengths(found["chunks"])
    _check_sizes(_lengths(found["shape"]), chunk, chunk, np.dtype(found["dtype"]).itemsize, folder)


def _check_format3(found: dict[str, Any], folder: Path) -> None:
    if found["node_type"] != "array":
        raise ValueError(found["node_type"])
    if not isinstance(found["data_type"], str) or found["data_type"] not in _TYPES:
        raise _unreadable(folder, "values of type", found["data_type"])
    for one in found.get("storage_transformers") or ():
        raise _unreadable(folder, "the transformer", _named(one)[0])
    grid, blocks = _named(found["chunk_grid"])
    if grid != "regular":
        raise _unreadable(folder, "the arrangement", grid)
    stored = chunk = _lengths(blocks["chunk_shape"])
    codecs = [_named(one) for one in found["codecs"]]
    if codecs[0][0] == "sharding_indexed":
        if len(codecs) > 1:
            raise _unreadable(folder, "shards and the codec", codecs[1][0])
        given = codecs[0][1]
        for name, _ in map(_named, given["index_codecs"]):
            if name not in ("bytes", _CHECKSUM):
                raise _unreadable(folder, "a list of chunks in the codec", name)
        chunk, codecs = _lengths(given["chunk_shape"]), [_named(one) for one in given["codecs"]]
    names = [name for name, _ in codecs]
    if names[0] == "transpose":
        del names[0]
    if names[0] != "bytes":
        raise _unreadable(folder, "the codec", names[0])
    _check_compressors(names[1:], folder)
    itemsize = np.dtype(_TYPES[found["data_type"]]).itemsize
    _check_sizes(_lengths(found["shape"]), stored, chunk, itemsize, folder)


def _named(one: Any) -> tuple[str, dict[str, Any]]:
    """Name and configuration of an extension, which may be its name alone; those of numcodecs go by their own names."""
    name, given = (one, None) if isinstance(one, str) else (one["name"], one.get("configuration"))
    return str(name).removeprefix("numcodecs."), given or {}


def _check_compressors(names: Sequence[str], folder: Path) -> None:
    for name in names:
        if name not in COMPRESSORS and name != _CHECKSUM:
            raise _unreadable(folder, "the codec", name)
    if sum(name in COMPRESSORS for name in names) > 1:
        raise _unreadable(folder, "two codecs one after the other,", " and ".join(names))


def _unreadable(folder: Path, what: str, name: object) -> ImageError:
    return ImageError(
        f"{folder} is stored with {what} {name!s:.80}, which is not read: save it with Zstandard or Blosc."
    )


def _lengths(found: Any) -> Lengths:
    lengths = tuple(found)
    if any(type(length) is not int or length < 1 for length in lengths):
        raise ValueError(f"lengths {lengths}")
    return lengths


def _check_sizes(shape: Lengths, stored: Lengths, chunk: Lengths, itemsize: int, folder: Path) -> None:
    """What must fit together, and into memory, before anything is decoded. A file holds a block of `stored` values;
    chunks of `chunk` values are decoded as one."""
    if not 2 <= len(shape) <= 5 or not len(shape) == len(stored) == len(chunk):
        raise ValueError(f"shapes {shape}, {stored} and {chunk}")
    if math.prod(shape) > _MOST_VALUES:
        raise ImageError(f"{folder} promises {math.prod(shape)} values, above the limit of {_MOST_VALUES}.")
    if any(side % part for side, part in zip(stored, chunk, strict=True)):
        raise ValueError(f"chunks {chunk} in {stored}")
    listed = 16 * math.prod(stored) // math.prod(chunk)  # bytes of the list of chunks in a shard
    if max(math.prod(chunk) * itemsize, listed) > LARGEST_PIECE:
        raise ImageError(
            f"{folder} is stored in chunks of {' x '.join(map(str, chunk))} values, each of which takes more"
            f" than {LARGEST_PIECE} bytes: save it in smaller ones."
        )
