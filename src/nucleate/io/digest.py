"""Digests (SHA-256) by which what is on the disk is known again: of all bytes of a file, of all files of a folder."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path


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
