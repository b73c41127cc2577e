"""How functions become machine code: small steps, and the kernels that are made of them and kept on disk.

What keeps a loop from becoming vector code, found by measuring: a branch (write `scalars.choose`), a division that
has to raise (hence error_model="numpy"), a loop over 64-bit integers beside float32, output in place of an input that
is another argument, and more than eight pairs of arrays that might overlap. What makes compiling slow: assigning to
slices, arrays of two axes, and the wrappers that a function needs to be called from Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# Without "no NaN" and "no infinity", which both have to come through as they are.
RELAXED = {"contract", "reassoc", "nsz", "arcp"}

_SOURCES = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()[:12]


def inline(function: Function) -> Function:
    """A scalar function, expanded where it is called."""
    return cast(Function, njit(inline="always", fastmath=RELAXED, error_model="numpy")(function))


def step(function: Function) -> Function:
    """A loop over a block of pixels; only kernels can call it, not Python."""
    made = njit(fastmath=RELAXED, error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    return cast(Function, made(function))


def kernel(signature: str, fastmath: set[str] | bool = RELAXED) -> Callable[[Function], Function]:
    """A function of that signature, compiled at once or loaded from numba's cache; it runs without the lock.

    The cache only looks at the file that a kernel stands in, not at those of its steps; the digest of all of them in
    the name keeps a kernel from being loaded that was made of older ones.
    """

    def compile_now(function: Function) -> Function:
        function.__qualname__ = f"{function.__name__}_{_SOURCES}"
        made = njit(signature, fastmath=fastmath, error_model="numpy", nogil=True, no_cfunc_wrapper=True, cache=True)
        return cast(Function, made(function))

    return compile_now
