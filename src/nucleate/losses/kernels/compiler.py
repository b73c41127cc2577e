"""How functions become machine code: small steps, and the kernels that are made of them and kept on disk.

What keeps a loop from becoming vector code, found by measuring: a branch (write `choose`), a division that
has to raise (hence error_model="numpy"), a loop over 64-bit integers beside float32, output in place of an input that
is another argument, and more than eight pairs of arrays that might overlap. What makes compiling slow: assigning to
slices, arrays of two axes, and the wrappers that a function needs to be called from Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from llvmlite.binding import get_host_cpu_features
from numba import njit
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

from nucleate.compilation import compiled

Function = TypeVar("Function", bound=Callable[..., Any])

# Without "no NaN" and "no infinity", which both have to come through as they are.
RELAXED = {"contract", "reassoc", "nsz", "arcp"}

# LLVM holds back from vectors of 512 bits on every Intel processor, for the sake of the first ones that had them. Those
# since Sapphire Rapids, known by their half precision, keep their clock; the kernels were 11 to 16% faster there.
_WIDE = bool(get_host_cpu_features().get("avx512fp16"))

_SOURCES = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()[:12]


class _WideLower(Lower):
    """The step from numba's code to LLVM's, which asks for vectors of 512 bits."""

    def setup_function(self, description: Any) -> None:
        super().setup_function(description)
        # The set only takes names that it knows, and it knows none that come with a value.
        set.add(self.function.attributes, '"prefer-vector-width"="512"')


@register_pass(mutates_CFG=True, analysis_only=False)
class _WideLowering(NativeLowering):
    _name = "wide_lowering"

    @property
    def lowering_class(self) -> Any:
        return _WideLower


class _WideCompiler(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        made = DefaultPassBuilder.define_nopython_pipeline(self.state)
        made.passes = [(_WideLowering if kind is NativeLowering else kind, name) for kind, name in made.passes]
        made.finalize()
        return [made]


_OPTIONS: dict[str, Any] = {"fastmath": RELAXED, "error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
if _WIDE:
    _OPTIONS["pipeline_class"] = _WideCompiler


def inline(function: Function) -> Function:
    """A scalar function, expanded where it is called."""
    return cast(Function, njit(inline="always", fastmath=RELAXED, error_model="numpy")(function))


def step(function: Function) -> Function:
    """A loop over a block of pixels; only kernels can call it, not Python."""
    made = njit(no_cpython_wrapper=True, **_OPTIONS)
    return cast(Function, made(function))


def kernel(signature: str, fastmath: set[str] | bool = RELAXED) -> Callable[[Function], Callable[..., Any]]:
    """A function of that signature, compiled at once or loaded from the cache; it runs without the lock.

    The cache only looks at the file that a kernel stands in, not at those of its steps; the digest of all of them in
    the name keeps a kernel from being loaded that was made of older ones.
    """

    def compile_now(function: Function) -> Callable[..., Any]:
        function.__qualname__ = f"{function.__name__}_{_SOURCES}"
        made: Callable[..., Any] = compiled(function, signature, **{**_OPTIONS, "fastmath": fastmath})
        return made

    return compile_now
