"""The folder in which compiled code is kept. It is found without numba, which takes a second to load."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

NAME = "nucleate-compiled"
"""The folder in which compiled code is kept, inside one of `places`."""


def places() -> Iterator[Path]:
    """Where the cache may lie, the first choice first: where numba is told to, beside the package, the user's cache."""
    if told := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(told)
    yield Path(__file__).parent / "__pycache__"
    with suppress(RuntimeError):  # no home
        yield _user_cache() / "nucleate"


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@cache
def folder() -> Path | None:
    """The folder of the cache, which is made; None where there is none that is safe to use."""
    for place in places():
        path = (place / NAME).absolute()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_private(path):
                _remove_leftovers(path)
                return path
        except OSError:
            continue
    return None


def _remove_leftovers(path: Path) -> None:
    """Remove what a process that was killed an hour ago or longer was just writing."""
    for one in path.glob("*.tmp.*"):
        if time.time() - one.stat().st_mtime > 3600:
            one.unlink()


def _is_private(path: Path) -> bool:
    """Whether it is a folder of this user, in which nobody else may write.

    Whoever may write a folder above could put another one in its place, but none that belongs to this user.
    """
    found = path.lstat()
    own = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    return stat.S_ISDIR(found.st_mode) and own and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
