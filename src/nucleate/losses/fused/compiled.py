"""How functions become machine code: small steps, and the kernels that are made of them and kept on disk."""

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
    return cast(Function, njit(inline="always", fastmath=RELAXED)(function))


def step(function: Function) -> Function:
    """A loop over a block of pixels; compiled as part of the kernels that call it."""
    return cast(Function, njit(fastmath=RELAXED, nogil=True)(function))


def kernel(signature: str, fastmath: set[str] | bool = RELAXED) -> Callable[[Function], Function]:
    """A function of that signature, compiled at once or loaded from numba's cache; it runs without the lock.

    The cache only looks at the file that a kernel stands in, not at those of its steps; the digest of all of them in
    the name keeps a kernel from being loaded that was made of older ones.
    """

    def compile_now(function: Function) -> Function:
        function.__qualname__ = f"{function.__name__}_{_SOURCES}"
        return cast(Function, njit(signature, fastmath=fastmath, nogil=True, cache=True)(function))

    return compile_now
