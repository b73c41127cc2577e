"""What is computed of an image, kept by name: in memory, or in a folder from which an interrupted run is resumed."""

from __future__ import annotations

import json
import secrets
import struct
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nucleate.errors import OutputError

_MAGIC = b"nucleat1"
_LEVEL = 1  # of Zstandard: the fastest, which halves what the others would take two or three times as long for


class Arrays(dict[str, NDArray[Any]]):
    """Arrays by name, kept together."""

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(one.nbytes for one in self.values())


class BlockStore(ABC):
    """Arrays under names. May be used from several threads at once."""

    @abstractmethod
    def put(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays. Raises `OutputError` where the disk is full."""

    @abstractmethod
    def get(self, name: str) -> Arrays | None:
        """What was kept under a name, None where there is nothing whole."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Forget a name."""

    def __getitem__(self, name: str) -> Arrays:
        found = self.get(name)
        if found is None:
            raise OutputError(f"{name} of the work folder was lost: run the same command with --resume.")
        return found


class MemoryBlockStore(BlockStore):
    """Arrays in memory, for images that are done before an interruption matters.

    >>> store = MemoryBlockStore()
    >>> store.put("a", {"x": np.arange(3)})
    >>> store["a"]["x"].tolist(), store.get("b")
    ([0, 1, 2], None)
    """

    def __init__(self) -> None:
        self._kept: dict[str, Arrays] = {}

    def put(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._kept[name] = Arrays(arrays)

    def get(self, name: str) -> Arrays | None:
        return self._kept.get(name)

    def drop(self, name: str) -> None:
        self._kept.pop(name, None)


class FolderBlockStore(BlockStore):
    """Arrays in the files of a folder, compressed, one file a name; a file is there whole or not at all.

    Files are renamed into place but not forced to the disk: after a power cut one may be damaged. Its checksum tells,
    and it counts as not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._written: set[str] = set()  # by this process, and so known to be whole

    def put(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        path, passing = self.folder / name, self.folder / f".{secrets.token_hex(8)}.part"
        packed = [imagecodecs.zstd_encode(np.ascontiguousarray(one).tobytes(), level=_LEVEL) for one in arrays.values()]
        about = [
            {"name": key, "type": _dtype_to_json(one.dtype), "shape": one.shape, "bytes": len(data)}
            for (key, one), data in zip(arrays.items(), packed, strict=True)
        ]
        body = b"".join(packed)
        head = json.dumps({"arrays": about, "crc": zlib.crc32(body)}).encode()
        try:
            try:
                with passing.open("xb") as file:
                    file.write(_MAGIC + struct.pack("<I", len(head)) + head + body)
                passing.replace(path)
            except BaseException:
                with suppress(OSError):
                    passing.unlink()
                raise
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written ({error.strerror or error}): free some space there, and run the same command"
                " with --resume."
            ) from error
        with self._lock:
            self._written.add(name)

    def get(self, name: str) -> Arrays | None:
        try:
            data = memoryview((self.folder / name).read_bytes())
        except OSError:
            return None
        with self._lock:
            known = name in self._written
        try:
            return _unpacked(data, check=not known)
        except (ValueError, KeyError, TypeError, struct.error, imagecodecs.ZstdError):
            return None

    def drop(self, name: str) -> None:
        with suppress(OSError):
            (self.folder / name).unlink()


def _unpacked(data: memoryview, *, check: bool) -> Arrays:
    if bytes(data[: len(_MAGIC)]) != _MAGIC:
        raise ValueError("of another kind")
    begin = len(_MAGIC) + 4
    (length,) = struct.unpack("<I", data[len(_MAGIC) : begin])
    head, body = json.loads(bytes(data[begin : begin + length])), data[begin + length :]
    if len(body) != sum(one["bytes"] for one in head["arrays"]) or (check and zlib.crc32(body) != head["crc"]):
        raise ValueError("damaged")
    found = Arrays()
    at = 0
    for one in head["arrays"]:
        values = imagecodecs.zstd_decode(bytes(body[at : at + one["bytes"]]))
        found[one["name"]] = np.frombuffer(values, _dtype_from_json(one["type"])).reshape(one["shape"])
        at += one["bytes"]
    return found


def _dtype_to_json(dtype: np.dtype[Any]) -> Any:
    """A type as JSON holds it: its code, or those of its fields."""
    return dtype.str if dtype.names is None else [[name, dtype[name].str] for name in dtype.names]


def _dtype_from_json(described: Any) -> np.dtype[Any]:
    return np.dtype(described if isinstance(described, str) else [(name, code) for name, code in described])
