"""Files and folders that appear whole or not at all; texts and JSON."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from nucleate.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows, where what a killed process left stays
    fcntl = None  # type: ignore[assignment]  # a module elsewhere


@contextmanager
def atomic(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends, and vanishes when the block raises.

    It is written under a passing name in the same folder, forced to the disk and renamed, so that at any moment, a
    power cut included, `path` holds either all of what it held before or all of what is new. Without `durable` it is
    not forced to the disk, and a power cut may damage it. Folders are made. What a killed process left in the folder is
    removed.

    Raises `OutputError` naming `path` where the system refuses: no space, no permission, a folder in the way.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic(Path(folder) / "a" / "note.txt") as file:
    ...         _ = file.write(b"whole")
    ...     (Path(folder) / "a" / "note.txt").read_bytes()
    b'whole'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _passing(path.parent, partial(Path.touch, exist_ok=False)) as passing:
            with passing.open("wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            passing.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


@contextmanager
def atomic_folder(path: Path, *, holds: str) -> Iterator[Path]:
    """A folder that becomes `path` when the block ends, and vanishes with all in it when the block raises.

    A folder that is there already is replaced if it is empty or has a file named `holds`, and so is of the same kind.

    Raises `OutputError` naming `path` as `atomic` does, and where something of another kind is in the way.
    """
    try:
        _refuse_others(path, holds)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _passing(path.parent, Path.mkdir) as passing:
            yield passing
            for folder, _, names in os.walk(passing, topdown=False):
                for name in names:
                    _sync(Path(folder, name))
                sync_folder(Path(folder))
            old = passing.with_suffix(".old")
            if path.exists():
                path.rename(old)
            try:
                passing.rename(path)
            except BaseException:
                if old.exists():
                    old.rename(path)
                raise
        _remove(old)
        sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


_PASSING = re.compile(r"\.[0-9a-f]{16}\.nucleate\.(part|old)")
"""The name of what is not whole yet, and of a folder that is being replaced."""


@contextmanager
def _passing(folder: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A new file or folder under a passing name, locked as long as this process needs it; removed if it is still there
    at the end."""
    _remove_leftovers(folder.absolute())
    while True:
        path = folder / f".{secrets.token_hex(8)}.nucleate.part"
        make(path)
        lock = _lock(path, wait=True)
        if path.exists():
            break
        _unlock(lock)  # before it was locked, another process took it for a leftover
    try:
        yield path
    finally:
        _remove(path)
        _unlock(lock)


@cache
def _remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed has left: what has a passing name and is locked by none."""
    with suppress(OSError):
        for path in [one for one in folder.iterdir() if _PASSING.fullmatch(one.name)]:
            lock = _lock(path, wait=False)
            if lock is not None:
                _remove(path)
                _unlock(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _lock(path: Path, *, wait: bool) -> int | None:
    """A lock on a file or folder, which ends with the process at the latest; None where there is none to be had."""
    if fcntl is None:
        return None
    try:
        # Some network drives lock only what is open for writing, which folders cannot be.
        access = os.O_RDONLY if path.is_dir() else os.O_RDWR
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def write_json(path: Path, value: Any) -> None:
    """A value as JSON, indented, in UTF-8; NaN and infinity, which JSON does not know, raise `OutputError`."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OutputError(
            f"{path} cannot be written as JSON ({error}): give numbers, texts, lists and dicts."
        ) from error
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """A text in UTF-8, its line ends as they are."""
    with atomic(path) as file:
        # A file name that is not UTF-8 reaches Python as lone surrogates; their escapes are also what JSON reads back.
        file.write(text.encode("utf-8", "backslashreplace"))


def _refuse_others(path: Path, holds: str) -> None:
    """Raise where `path` is anything but a folder that may be replaced."""
    if path.is_symlink() or path.exists():
        ours = path.is_dir() and not path.is_symlink() and ((path / holds).is_file() or not any(path.iterdir()))
        if not ours:
            raise OutputError(f"{path} is there already and is something else: move it or choose another place.")


def _refused(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"{path} cannot be written ({reason}): free some space or choose another place.")


def sync_folder(folder: Path) -> None:
    """Force new names to the disk, where the system lets a folder be opened."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    """Force what is written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
