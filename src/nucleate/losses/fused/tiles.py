"""Blocks of pixels between memory and the cache, as one row of float32 for each class, whatever the layout.

"Planes" is (N, C, H, W): a class is already contiguous. "Rows" is channels-last, (N, H, W, C): a tile is taken apart
by small factors (a number of classes of 12 by 4 and 3), since strided copies by a constant 2, 3 or 4 are vector code
and by any other stride are not. Classes come out in digit-reversed order; `order` says which row is which class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from nucleate.losses.fused.scalars import RELAXED, bfloat16_of_float, float_of_bfloat16


def factors(classes: int) -> tuple[list[int], list[int]]:
    """How rows of `classes` are taken apart, and the class of each row that comes out."""
    parts, left = [], classes
    for f in (4, 3, 2):
        while left % f == 0:
            parts.append(f)
            left //= f
    if left > 1:
        parts.append(left)
    order = [list(range(classes))]
    for f in parts:
        order = [chunk[r::f] for chunk in order for r in range(f)]
    return parts or [1], [c for chunk in order for c in chunk]


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def copy_in(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = source[j]


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def widen(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = float_of_bfloat16(source[j])


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def narrow(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = bfloat16_of_float(source[j])


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def take_apart(source: Any, out: Any, factor: int) -> None:
    """out[r, i] = source[i * factor + r], both flat."""
    n = source.size // factor
    if factor == 2:
        a, b = out[:n], out[n : 2 * n]
        for i in range(n):
            a[i] = source[2 * i]
            b[i] = source[2 * i + 1]
    elif factor == 3:
        a, b, c = out[:n], out[n : 2 * n], out[2 * n : 3 * n]
        for i in range(n):
            a[i] = source[3 * i]
            b[i] = source[3 * i + 1]
            c[i] = source[3 * i + 2]
    elif factor == 4:
        # In two halves: five arrays at once are more than the compiler compares before it gives up.
        a, b, c, d = out[:n], out[n : 2 * n], out[2 * n : 3 * n], out[3 * n : 4 * n]
        for i in range(n):
            a[i] = source[4 * i]
            b[i] = source[4 * i + 1]
        for i in range(n):
            c[i] = source[4 * i + 2]
            d[i] = source[4 * i + 3]
    else:
        for i in range(n):
            for r in range(factor):
                out[r * n + i] = source[i * factor + r]


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def put_together(source: Any, out: Any, factor: int) -> None:
    """out[i * factor + r] = source[r, i], both flat."""
    n = out.size // factor
    if factor == 2:
        a, b = source[:n], source[n : 2 * n]
        for i in range(n):
            out[2 * i] = a[i]
            out[2 * i + 1] = b[i]
    elif factor == 3:
        a, b, c = source[:n], source[n : 2 * n], source[2 * n : 3 * n]
        for i in range(n):
            out[3 * i] = a[i]
            out[3 * i + 1] = b[i]
            out[3 * i + 2] = c[i]
    elif factor == 4:
        a, b, c, d = source[:n], source[n : 2 * n], source[2 * n : 3 * n], source[3 * n : 4 * n]
        for i in range(n):
            out[4 * i] = a[i]
            out[4 * i + 1] = b[i]
            out[4 * i + 2] = c[i]
            out[4 * i + 3] = d[i]
    else:
        for i in range(n):
            for r in range(factor):
                out[i * factor + r] = source[r * n + i]
