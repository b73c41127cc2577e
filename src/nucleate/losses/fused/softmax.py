"""The steps of a softmax over a tile, each a loop over one class of a block of pixels."""

from __future__ import annotations

from typing import Any

from numba import njit

from nucleate.losses.fused.scalars import LOG2_E, RELAXED, exp2, f32, log


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def maximum(x: Any, top: Any) -> None:
    for j in range(top.size):
        top[j] = top[j] if top[j] > x[j] else x[j]


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def exponential(x: Any, top: Any, total: Any) -> None:
    """x becomes exp(x - top), and is added to `total`."""
    for j in range(x.size):
        e = exp2((x[j] - top[j]) * LOG2_E)
        x[j] = e
        total[j] += e


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def largest(tile: Any, n: int, top: Any) -> None:
    """The largest logit of each pixel of a tile."""
    top[:] = tile[:n]
    for k in range(1, tile.size // n):
        maximum(tile[k * n : (k + 1) * n], top)


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def logarithm(x: Any, out: Any) -> None:
    for j in range(x.size):
        out[j] = log(x[j])


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def dot(a: Any, b: Any) -> float:
    total = f32(0.0)
    for j in range(a.size):
        total += a[j] * b[j]
    return float(total)


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def add_up(a: Any) -> float:
    total = f32(0.0)
    for j in range(a.size):
        total += a[j]
    return float(total)


@njit(fastmath=RELAXED, nogil=True)  # type: ignore[untyped-decorator]
def add_exponential(x: Any, top: Any, total: Any) -> None:
    for j in range(x.size):
        total[j] += exp2((x[j] - top[j]) * LOG2_E)
