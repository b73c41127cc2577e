"""The metadata of a Zarr array, formats 2 and 3, to how its chunks are stored, with nothing in them believed.

Formats: https://zarr-specs.readthedocs.io, versions 2 and 3.0 with the sharding codec 1.0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.errors import ImageError
from nucleate.io.cache import LARGEST_PIECE

NAMES = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
"""The files of a folder that are not chunks."""

BROKEN = (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
"""What reading metadata raises where a part of them is absent or of another kind."""

COMPRESSORS = frozenset({"blosc", "gzip", "lz4", "zlib", "zstd"})
"""The only codecs that are run, besides the checksum; others may take any memory, or run code of the file's."""

CHECKSUM = "crc32c"

_LARGEST_JSON = 2**24  # bytes
_MOST_VALUES = 2**40  # of an image; no microscope makes more, and chunks that are left out cost nothing to promise
_TYPES = {
    "bool": "?",
    **{f"{kind}{bits}": f"{kind[0]}{bits // 8}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"f{bits // 8}" for bits in (16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array is stored. A file holds a block of `stored` values; chunks of `chunk` values are decoded as one.

    `dtype` has the byte order of the file. The axes of a chunk lie in the `order` given, the last without gaps.
    `codecs` are those from bytes to bytes, as they were applied. Where files are shards, `shard` tells how the list
    of their chunks is stored. The file of the block (2, 0) is named `prefix` 2 `separator` 0.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fill: Any
    stored: tuple[int, ...]
    chunk: tuple[int, ...]
    order: tuple[int, ...]
    codecs: tuple[str, ...]
    shard: Shard | None
    prefix: str
    separator: str

    @property
    def nbytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunk) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Shard:
    """Where in a file the list of its chunks is, with the offset and length of each, and whether it has a checksum."""

    at_end: bool
    checked: bool
    dtype: np.dtype[np.generic]


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file.

    Raises `ImageError` for a file that cannot be read or is none.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_JSON + 1)
        found = json.loads(text) if len(text) <= _LARGEST_JSON else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}): check who may read it.") from error
    except BROKEN as error:
        raise ImageError(f"{path} is no valid JSON ({error}): copy or export the image again.") from error
    if not isinstance(found, dict):
        raise ImageError(f"{path} is no JSON object of at most {_LARGEST_JSON} bytes: export the image again.")
    return found


def read_layout(folder: Path) -> Layout:
    """The layout of the array in a folder.

    Raises `ImageError` where there is none, or where it is broken, out of all bounds, or stored in a way that is not
    read here; no codec and no chunk has been touched then.
    """
    newer = read_json(folder / "zarr.json")
    older = read_json(folder / ".zarray") if newer is None else None
    try:
        if newer is not None:
            layout = _format3(newer, folder)
        elif older is not None:
            layout = _format2(older, folder)
        else:
            raise ImageError(f"{folder} holds no Zarr array, which its image names: copy or export it again.")
        _check(layout, folder)
    except BROKEN as error:
        raise _broken(folder, error) from error
    return layout


def _broken(folder: Path, why: object) -> ImageError:
    return ImageError(f"{folder} has broken Zarr metadata ({why!r}): copy or export it again.")


def _format2(found: dict[str, Any], folder: Path) -> Layout:
    shape, chunk = _lengths(found["shape"]), _lengths(found["chunks"])
    if not isinstance(found["dtype"], str) or found["dtype"][1:] not in (*_TYPES.values(), "b1"):
        raise _unreadable(folder, "values of type", found["dtype"])
    for one in found.get("filters") or ():
        raise _unreadable(folder, "the filter", one["id"])
    compressor = found["compressor"]
    codecs = () if compressor is None else (str(compressor["id"]),)
    _check_codecs(codecs, folder)
    dtype: np.dtype[np.generic] = np.dtype(found["dtype"])
    axes = tuple(range(len(chunk)))
    order = {"C": axes, "F": axes[::-1]}[found["order"]]
    separator = found.get("dimension_separator", ".")
    return Layout(shape, dtype, _fill(found["fill_value"], dtype), chunk, chunk, order, codecs, None, "", separator)


def _format3(found: dict[str, Any], folder: Path) -> Layout:
    if found["node_type"] != "array":
        raise _broken(folder, found["node_type"])
    if not isinstance(found["data_type"], str) or found["data_type"] not in _TYPES:
        raise _unreadable(folder, "values of type", found["data_type"])
    for one in found.get("storage_transformers") or ():
        raise _unreadable(folder, "the transformer", _named(one)[0])
    (grid, blocks), (keys, naming) = _named(found["chunk_grid"]), _named(found["chunk_key_encoding"])
    if grid != "regular" or keys not in ("default", "v2"):
        raise _unreadable(folder, "the arrangement", grid if grid != "regular" else keys)
    stored = chunk = _lengths(blocks["chunk_shape"])
    codecs, shard = [_named(one) for one in found["codecs"]], None
    if codecs[0][0] == "sharding_indexed":
        shard, chunk = _shard(codecs[0][1], folder), _lengths(codecs[0][1]["chunk_shape"])
        if len(codecs) > 1:
            raise _unreadable(folder, "shards and the codec", codecs[1][0])
        codecs = [_named(one) for one in codecs[0][1]["codecs"]]
    order, endian, packing = _chain(codecs, len(chunk), folder)
    dtype = np.dtype(_TYPES[found["data_type"]]).newbyteorder(endian)
    separator = naming.get("separator", "/" if keys == "default" else ".")
    prefix = f"c{separator}" if keys == "default" else ""
    fill = _fill(found["fill_value"], dtype)
    return Layout(_lengths(found["shape"]), dtype, fill, stored, chunk, order, packing, shard, prefix, separator)


def _shard(found: dict[str, Any], folder: Path) -> Shard:
    _, endian, packing = _chain([_named(one) for one in found["index_codecs"]], 1, folder)
    if packing not in ((), (CHECKSUM,)):
        raise _unreadable(folder, "a list of chunks in the codec", packing[0])
    at_end = {"start": False, "end": True}[found.get("index_location", "end")]
    return Shard(at_end, bool(packing), np.dtype(np.uint64).newbyteorder(endian))


def _chain(
    codecs: Sequence[tuple[str, dict[str, Any]]], dimensions: int, folder: Path
) -> tuple[tuple[int, ...], Any, tuple[str, ...]]:
    """The order of the axes, the byte order, and the codecs from bytes to bytes."""
    order = tuple(range(dimensions))
    rest = list(codecs)
    if rest and rest[0][0] == "transpose":
        moved = tuple(rest.pop(0)[1]["order"])
        if sorted(moved) != list(order):
            raise _broken(folder, moved)
        order = moved
    name, given = rest.pop(0)
    if name != "bytes":
        raise _unreadable(folder, "the codec", name)
    packing = tuple(name for name, _ in rest)
    _check_codecs(packing, folder)
    return order, {"little": "<", "big": ">"}[given.get("endian", "little")], packing


def _named(one: Any) -> tuple[str, dict[str, Any]]:
    """Name and configuration of an extension, which may be its name alone; those of numcodecs go by their own names."""
    name, given = (one, None) if isinstance(one, str) else (one["name"], one.get("configuration"))
    return str(name).removeprefix("numcodecs."), given or {}


def _check_codecs(names: Sequence[str], folder: Path) -> None:
    for name in names:
        if name not in COMPRESSORS and name != CHECKSUM:
            raise _unreadable(folder, "the codec", name)
    if sum(name in COMPRESSORS for name in names) > 1:
        raise _unreadable(folder, "two codecs one after the other,", " and ".join(names))


def _unreadable(folder: Path, what: str, name: object) -> ImageError:
    return ImageError(
        f"{folder} is stored with {what} {name!s:.80}, which is not read: save it with Zstandard or Blosc."
    )


def _lengths(found: Any) -> tuple[int, ...]:
    lengths = tuple(found)
    if any(type(length) is not int or length < 1 for length in lengths):
        raise ValueError(f"lengths {lengths}")
    return lengths


def _fill(found: Any, dtype: np.dtype[np.generic]) -> Any:
    """The value of chunks that are left out."""
    return np.full(1, 0 if found is None else found, dtype.newbyteorder("="))[0]


def _check(layout: Layout, folder: Path) -> None:
    """What must fit together, and into memory, before anything is decoded."""
    if not 2 <= len(layout.shape) <= 5 or not len(layout.shape) == len(layout.stored) == len(layout.chunk):
        raise _broken(folder, (layout.shape, layout.stored, layout.chunk))
    if layout.separator not in (".", "/"):
        raise _broken(folder, layout.separator)
    if math.prod(layout.shape) > _MOST_VALUES:
        raise ImageError(f"{folder} promises {math.prod(layout.shape)} values, above the limit of {_MOST_VALUES}.")
    per_file = [side // part for side, part in zip(layout.stored, layout.chunk, strict=True)]
    if any(side % part for side, part in zip(layout.stored, layout.chunk, strict=True)):
        raise _broken(folder, (layout.stored, layout.chunk))
    if max(layout.nbytes, 16 * math.prod(per_file) * (layout.shard is not None)) > LARGEST_PIECE:
        raise ImageError(
            f"{folder} is stored in chunks of {' x '.join(map(str, layout.chunk))} values, each of which takes more"
            f" than {LARGEST_PIECE} bytes: save it in smaller ones."
        )
