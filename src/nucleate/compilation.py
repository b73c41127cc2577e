"""numba's compiler, and its cache on disk as one that a program can rely on: whatever happens to it, code is compiled.

Compiling takes seconds, so what was compiled is kept. But it is machine code that is read back and run: only from a
folder that belongs to this user and that nobody else may write, and only where each file ends in the digest of its
content. What is cut, altered, empty or not there is compiled again. What cannot be kept (a full disk, say) lives in
memory, and a warning says once that every start will take longer.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numba
from numba.core import config
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    _CacheLocator,
    _SourceFileBackedLocatorMixin,
)
from numba.misc.appdirs import AppDirs

from nucleate.errors import CacheWarning

NAME = "nucleate-compiled"
"""The folder in which compiled code is kept, inside one of `places`."""

_DIGEST = hashlib.sha256().digest_size


def compiled(function: Callable[..., Any], signature: Any, **options: Any) -> Any:
    """A function as machine code for this signature, from the cache or compiled now.

    Args:
        function: what numba can compile.
        signature: the types of its arguments and result, as numba takes them.
        options: those of `numba.njit`.
    """
    made = numba.njit(**options)(function)
    made._cache = _Cache(function)
    made.compile(signature)
    made.disable_compile()
    return made


def places() -> list[Path]:
    """Where the cache may lie, the first choice first: where numba is told to, beside the package, the user's cache."""
    told = [Path(config.CACHE_DIR)] if config.CACHE_DIR else []
    own = Path(AppDirs("nucleate", appauthor=False).user_cache_dir)
    return [*told, Path(__file__).parent / "__pycache__", own]


@cache
def folder() -> Path | None:
    """The folder of the cache, which is made; None where there is none that is safe to use."""
    for place in places():
        path = place / NAME
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


class _Files(IndexDataCacheFile):
    """Files that end in the digest of what comes before it; what reads them does not look behind the content."""

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[BinaryIO]:
        with super()._open_for_write(filepath) as file:
            content = io.BytesIO()
            yield content
            file.write(content.getvalue() + hashlib.sha256(content.getvalue()).digest())

    def _load_index(self) -> Any:
        return super()._load_index() if _is_whole(Path(self._index_path)) else {}

    def _load_data(self, name: str) -> Any:
        path = Path(self._data_path(name))
        if not _is_whole(path):
            raise FileNotFoundError(path)
        return super()._load_data(name)


def _is_whole(path: Path) -> bool:
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError:
        return False
    return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]


class _Locator(_SourceFileBackedLocatorMixin, _CacheLocator):
    """Tells numba the folder, and whether the source of a function has changed."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file, self._lineno = file, function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(folder() or "")

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _Locator:
        return cls(function, file)

    def ensure_cache_path(self) -> None:
        """It was made when it was chosen."""


class _Compiled(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):
    """The cache of one function, whose failures end nothing."""

    _impl_class = _Compiled

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _Files(str(folder() or ""), self._impl.filename_base, stamp)
        if folder() is None:
            self.disable()
            _warn("there is no folder for it that belongs to this user alone")

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # of whatever reads it: numba, pickle, LLVM
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _warn(f"{folder()}: {error.strerror or error}")


@cache
def _warn(reason: str) -> None:
    warnings.warn(
        f"Compiled code cannot be kept ({reason}), so every start takes some 20 seconds longer: make room there, or"
        f" name another folder in the variable NUMBA_CACHE_DIR.",
        CacheWarning,
        stacklevel=2,
    )
