"""Files and folders that appear whole or not at all; texts and JSON."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from nucleate.errors import OutputError


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends, and vanishes when the block raises.

    It is written under a passing name in the same folder, forced to the disk and renamed, so that at any moment, a
    power cut included, `path` holds either all of what it held before or all of what is new. Folders are made.

    Raises `OutputError` naming `path` where the system refuses: no space, no permission, a folder in the way.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic(Path(folder) / "a" / "note.txt") as file:
    ...         _ = file.write(b"whole")
    ...     (Path(folder) / "a" / "note.txt").read_bytes()
    b'whole'
    """
    passing = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with passing.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            passing.replace(path)
        except BaseException:
            with suppress(OSError):
                passing.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


@contextmanager
def atomic_folder(path: Path, *, holds: str) -> Iterator[Path]:
    """A folder that becomes `path` when the block ends, and vanishes with all in it when the block raises.

    A folder that is there already is replaced if it is empty or has a file named `holds`, and so is of the same kind.

    Raises `OutputError` naming `path` as `atomic` does, and where something of another kind is in the way.
    """
    passing, old = (path.parent / f".{secrets.token_hex(8)}.{kind}" for kind in ("part", "old"))
    try:
        _refuse_others(path, holds)
        passing.mkdir(parents=True)
        try:
            yield passing
            for folder, _, names in os.walk(passing, topdown=False):
                for name in names:
                    _sync(Path(folder, name))
                _sync_folder(Path(folder))
            if path.exists():
                path.rename(old)
            try:
                passing.rename(path)
            except BaseException:
                if old.exists():
                    old.rename(path)
                raise
        except BaseException:
            shutil.rmtree(passing, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


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


def _sync_folder(folder: Path) -> None:
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
