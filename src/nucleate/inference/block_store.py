"""What is computed of an image, kept by name: in memory, or in a folder from which an interrupted run is resumed."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
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
from nucleate.io.atomic import atomic

_MAGIC = b"nucleat2"
_LEVEL = 1  # of Zstandard: the fastest, which halves what the others would take two or three times as long for


class Arrays(dict[str, NDArray[Any]]):
    """Arrays by name, kept together."""

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(one.nbytes for one in self.values())

    def __missing__(self, name: str) -> NDArray[Any]:
        raise OutputError(f"The work folder holds a block without {name}: delete the folder and run the command again.")


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

    Where other machines write into the folder, too, a file that must be there is waited for `patience` seconds: a
    network file system may show it late.
    """

    def __init__(self, folder: Path, patience: float = 0.0) -> None:
        self.folder, self.patience = folder, patience
        self._lock = threading.Lock()
        self._written: set[str] = set()  # by this process, and so known to be whole

    def put(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        packed = [imagecodecs.zstd_encode(np.ascontiguousarray(one).tobytes(), level=_LEVEL) for one in arrays.values()]
        about = [
            {"name": key, "type": _dtype_to_json(one.dtype), "shape": one.shape, "bytes": len(data)}
            for (key, one), data in zip(arrays.items(), packed, strict=True)
        ]
        head = json.dumps({"block": name, "arrays": about}).encode()
        content = struct.pack("<I", len(head)) + head + b"".join(packed)
        try:
            with atomic(self.folder / name, durable=False) as file:
                file.write(_MAGIC + struct.pack("<I", zlib.crc32(content)) + content)
        except OutputError as error:
            reason = getattr(error.__cause__, "strerror", None) or error.__cause__
            raise OutputError(
                f"{self.folder / name} cannot be written ({reason}): free some space there, and run the same command"
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
            return _unpacked(name, data, check=not known)
        except (ValueError, KeyError, TypeError, struct.error, RecursionError, imagecodecs.ZstdError):
            return None

    def __getitem__(self, name: str) -> Arrays:
        until = time.monotonic() + self.patience
        while (found := self.get(name)) is None and time.monotonic() < until:
            time.sleep(0.05)
            with suppress(OSError), os.scandir(self.folder):
                pass  # asks the server anew what the folder holds
        return super().__getitem__(name) if found is None else found

    def drop(self, name: str) -> None:
        with suppress(OSError):
            (self.folder / name).unlink()


def _unpacked(name: str, data: memoryview, *, check: bool) -> Arrays:
    begin = len(_MAGIC) + 8
    checksum, length = struct.unpack("<II", data[len(_MAGIC) : begin])
    if bytes(data[: len(_MAGIC)]) != _MAGIC or (check and zlib.crc32(data[len(_MAGIC) + 4 :]) != checksum):
        raise ValueError("damaged")
    head = json.loads(bytes(data[begin : begin + length]))
    if head["block"] != name:
        raise ValueError("another block")
    found = Arrays()
    at = begin + length
    for one in head["arrays"]:
        values = imagecodecs.zstd_decode(bytes(data[at : at + one["bytes"]]))
        found[one["name"]] = np.frombuffer(values, _dtype_from_json(one["type"])).reshape(one["shape"])
        at += one["bytes"]
    return found


def _dtype_to_json(dtype: np.dtype[Any]) -> Any:
    """A type as JSON holds it: its code, or those of its fields."""
    return dtype.str if dtype.names is None else [[name, dtype[name].str] for name in dtype.names]


def _dtype_from_json(described: Any) -> np.dtype[Any]:
    return np.dtype(described if isinstance(described, str) else [(name, code) for name, code in described])
