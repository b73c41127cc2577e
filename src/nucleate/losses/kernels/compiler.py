"""How functions become machine code: small steps, and the kernels that are made of them and kept on disk.

What keeps a loop from becoming vector code, found by measuring: a branch (write `choose`), a division that
has to raise (hence error_model="numpy"), a loop over 64-bit integers beside float32, output in place of an input that
is another argument, and more than eight pairs of arrays that might overlap. What makes compiling slow: assigning to
slices, arrays of two axes, and the wrappers that a function needs to be called from Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite.binding import get_host_cpu_features
from numba import njit
from numba.core import config
from numba.core.lowering import Lower

from nucleate.compilation import Whole, compiled, pipeline
from nucleate.losses.kernels.background import version

Function = TypeVar("Function", bound=Callable[..., Any])

# Without "no NaN" and "no infinity", which both have to come through as they are.
RELAXED = {"contract", "reassoc", "nsz", "arcp"}

# LLVM holds back from vectors of 512 bits on every Intel processor, for the sake of the first ones that had them. Those
# since Sapphire Rapids, known by their half precision, keep their clock; the kernels were 11 to 16% faster there.
_WIDE = bool(get_host_cpu_features().get("avx512fp16"))


class _Wide(Lower):
    """The step from numba's code to LLVM's, which asks for vectors of 512 bits."""

    def setup_function(self, description: Any) -> None:
        super().setup_function(description)
        # The set only takes names that it knows, and it knows none that come with a value.
        set.add(self.function.attributes, '"prefer-vector-width"="512"')


class _WideWhole(Whole, _Wide):
    """Both."""


_OPTIONS: dict[str, Any] = {"fastmath": RELAXED, "error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
_STEP, _KERNEL = ({"pipeline_class": pipeline(_Wide)}, {"pipeline_class": pipeline(_WideWhole)}) if _WIDE else ({}, {})


def inline(function: Function) -> Function:
    """A scalar function, expanded where it is called."""
    return cast(Function, njit(inline="always", fastmath=RELAXED, error_model="numpy")(function))


def step(function: Function) -> Function:
    """A loop over a block of pixels; only kernels can call it, not Python."""
    made = njit(no_cpython_wrapper=True, **_OPTIONS, **_STEP)
    return cast(Function, made(function))


def kernel(signature: str, fastmath: set[str] | bool = RELAXED) -> Callable[[Function], Callable[..., Any]]:
    """A function of that signature, compiled at once or loaded from the cache; it runs without the lock.

    The cache only looks at the file that a kernel stands in, not at those of its steps; the version in the name keeps a
    kernel from being loaded that was made of older ones.
    """
    if config.DISABLE_JIT:
        raise RuntimeError("NUMBA_DISABLE_JIT keeps the kernels from being compiled")

    def compile_now(function: Function) -> Callable[..., Any]:
        function.__qualname__ = f"{function.__name__}_{version()}"
        made: Callable[..., Any] = compiled(function, signature, **{**_OPTIONS, **_KERNEL, "fastmath": fastmath})
        return made

    return compile_now
