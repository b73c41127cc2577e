"""A file of lines that only grows, one line at a time, each of them on the disk when it was written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from nucleate.errors import OutputError
from nucleate.io.atomic import sync_folder


def append(path: Path, line: str) -> None:
    """Add a line and force it to the disk; a line that a killed process began and did not end is cut off first.

    One process at a time. A power cut leaves the lines before, and of this one all or nothing that `read` would see.

    Raises:
        OutputError: the system refuses.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "journal.jsonl"
    ...     append(path, "one")
    ...     _ = path.write_text(path.read_text() + "tw")
    ...     append(path, "three")
    ...     read(path)
    ['one', 'three']
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("ab+") as file:
            file.truncate(_end_of_last(file))
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): free some space.") from error


def read(path: Path) -> list[str]:
    """The whole lines of a file; none where there is no file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1].decode().splitlines()


def _end_of_last(file: BinaryIO) -> int:
    """Bytes up to the end of the last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - _BLOCK)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


_BLOCK = 4096
