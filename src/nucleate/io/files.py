"""The one way in which a file is opened to be read: never what is no regular file, and every refusal of the system is
a sentence."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from nucleate.errors import ImageError

_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)

_LARGE, _PACKED = 2**28, 64  # bytes; no disk that packs its files makes those of an image 64 times smaller


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors of the system, and memory that does not suffice, as an `ImageError` that names `path`."""
    try:
        yield
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist: check the path.") from error
    except MemoryError as error:
        raise ImageError(f"{path} does not fit in memory ({str(error) or 'none is left'}): cut it up first.") from error
    except OSError as error:
        why = "its links lead in a circle" if error.errno == errno.ELOOP else error.strerror or error
        raise ImageError(f"{path} cannot be read ({why}): check what it is and who may read it.") from error


def exists(path: Path) -> bool:
    """Whether something is there; raises `ImageError` where that may not be known, as in a folder of somebody else."""
    with reading(path):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def refuse_irregular(path: Path) -> int:
    """The size of a regular file, in bytes.

    Raises `ImageError` for what is no such file, which might give bytes for ever, or never any, and for a large file
    that is next to nothing on its disk, as a copy that broke off leaves it: its pixels are none.
    """
    with reading(path):
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for fits, name in _KINDS if fits(found.st_mode)), "thing of another kind")
        raise ImageError(f"{path} is a {kind} and no file: give a file.")
    stored = 512 * getattr(found, "st_blocks", 0)  # 0 where the system does not say
    if found.st_size > _LARGE and 0 < stored * _PACKED < found.st_size:
        raise ImageError(f"{path} says that it has {found.st_size} bytes and stores {stored} of them: copy it again.")
    return found.st_size


def open_regular(path: Path) -> BufferedReader:
    """The file, open to be read in bytes.

    Raises:
        ImageError: it is missing, may not be read, or is no regular file (a pipe, a device, a socket, a folder).

    >>> open_regular(Path("/dev/null"))
    Traceback (most recent call last):
    nucleate.errors.ImageError: /dev/null is a device and no file: give a file.
    """
    refuse_irregular(path)  # before it is opened, as opening alone makes some devices act
    with reading(path):
        # What was put in its place meanwhile is refused, too, and opening it does not wait.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        file = os.fdopen(descriptor, "rb")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            file.close()
            raise ImageError(f"{path} was replaced while it was opened: give a file.")
    return file


def read_bytes(path: Path, most: int) -> bytes:
    """All of a regular file; raises `ImageError` where it has more than `most` bytes or cannot be read."""
    with open_regular(path) as file, reading(path):
        size = os.fstat(file.fileno()).st_size
        if size <= most and len(found := file.read(size + 1)) == size:
            return found
    if size > most:
        raise ImageError(f"{path} has {size} bytes, and no more than {most} are read of such a file: cut it up first.")
    raise ImageError(f"{path} changed while it was read: wait until it is written.")
