"""numba's compiler, and its cache on disk as one that a program can rely on: whatever happens to it, code is compiled.

Compiling takes seconds, so what was compiled is kept. But it is machine code that is read back and run: only from a
folder that belongs to this user and that nobody else may write, and only where each file ends in the digest of its
content. What is cut, altered, empty or not there is compiled again. What cannot be kept (a full disk, say) lives in
memory, and a warning says once that every start will take longer.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numba
from llvmlite.binding import Linkage
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    _CacheLocator,
    _SourceFileBackedLocatorMixin,
)
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

from nucleate.code_folder import folder
from nucleate.errors import CacheWarning

_DIGEST = hashlib.sha256().digest_size


_may_compile: ContextVar[bool] = ContextVar("nucleate.compilation.may_compile", default=True)


class NotKept(ImportError):
    """The cache does not hold the code, and within `loading_only` it is not compiled."""


@contextmanager
def loading_only() -> Iterator[None]:
    """Within, code comes from the cache: what is not there raises `NotKept`."""
    before = _may_compile.set(False)
    try:
        yield
    finally:
        _may_compile.reset(before)


def pipeline(lowering: type[Lower]) -> type[CompilerBase]:
    """numba's compiler with another last step, from its code to LLVM's."""

    @register_pass(mutates_CFG=True, analysis_only=False)
    class Lowering(NativeLowering):
        _name = lowering.__name__
        lowering_class = lowering

    class Compiler(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            made = DefaultPassBuilder.define_nopython_pipeline(self.state)
            made.passes = [(Lowering if kind is NativeLowering else kind, name) for kind, name in made.passes]
            made.finalize()
            return [made]

    return Compiler


class Whole(Lower):
    """The last step of a kernel, which keeps the functions that it is made of to itself.

    They are optimised once more as parts of a kernel, so each kernel has versions of its own. Under one name for all,
    the version that came first into the process would be called by every kernel: the last bits would depend on what
    was compiled or loaded before.
    """

    def setup_function(self, description: Any) -> None:
        super().setup_function(description)
        library = self.library
        optimise = library._optimize_final_module

        def then_keep_to_itself() -> None:
            optimise()
            for function in library._final_module.functions:
                if not function.is_declaration and function.linkage == Linkage.linkonce_odr:
                    function.linkage = Linkage.internal

        library._optimize_final_module = then_keep_to_itself


_WHOLE = pipeline(Whole)


def compiled(function: Callable[..., Any], signature: Any, **options: Any) -> Any:
    """A function as machine code for this signature, from the cache or compiled now.

    Args:
        function: what numba can compile.
        signature: the types of its arguments and result, as numba takes them.
        options: those of `numba.njit`.
    """
    made = numba.njit(**{"pipeline_class": _WHOLE, **options})(function)
    made._cache = _Cache(function)
    made.compile(signature)
    made.disable_compile()
    return made


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
            found = super().load_overload(sig, target_context)
        except Exception:  # of whatever reads it: numba, pickle, LLVM
            found = None
        if found is None and not _may_compile.get():
            raise NotKept(f"{self._name} is not in {folder()}")
        return found

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
