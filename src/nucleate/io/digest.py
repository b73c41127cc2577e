"""Digests (SHA-256) by which what was read is known again: a file, all files of a folder, arrays."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest_of(path: Path, *, without: str | None = None) -> str:
    """The digest of a file, or of a folder such as a Zarr: of the names and bytes of all files in it but those in
    folders of the name `without`. The same for a copy. What is neither file nor folder counts by its name alone.

    Raises `OSError` where something cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "a").write_bytes(b"1")
    ...     before = digest_of(Path(folder))
    ...     _ = (Path(folder) / "a").write_bytes(b"2")
    ...     before == digest_of(Path(folder)), digest_of(Path(folder) / "a")[:8]
    (False, 'd4735e3a')
    """
    if not path.is_dir():
        return _of_file(path)
    found = hashlib.sha256()
    for name, file in sorted(_files(path, without)):
        found.update(os.fsencode(name) + b"\0" + (_of_file(file) if file.is_file() else "").encode() + b"\0")
    return found.hexdigest()


def digest_of_arrays(arrays: Iterable[NDArray[Any]]) -> str:
    """The digest of arrays in this order: of their shapes, types and values.

    >>> one = np.arange(6)
    >>> [digest_of_arrays([one]) == digest_of_arrays([other]) for other in (one.copy(), one[::-1])]
    [True, False]
    """
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {array.dtype.str}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _files(folder: Path, without: str | None) -> list[tuple[str, Path]]:
    """Every file below a folder, by its place in it."""
    places: list[Path] = []
    linked: set[str] = set()
    for above, inner, names in os.walk(folder, onerror=_raise, followlinks=True):
        places += [Path(above, name) for name in names]
        links = {name: os.path.realpath(Path(above, name)) for name in inner if Path(above, name).is_symlink()}
        inner[:] = [
            name for name in inner if name != without and links.get(name) not in linked
        ]  # else a loop would have no end
        linked.update(links.values())
    return [(place.relative_to(folder).as_posix(), place) for place in places]


def _raise(error: OSError) -> None:
    raise error


def _of_file(path: Path) -> str:
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file")  # the bytes of a pipe or a device need not end
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
