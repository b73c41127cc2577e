"""The steps of a softmax over a tile, each a loop over one class of a block of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.fused.compiled import step
from nucleate.losses.fused.scalars import LOG2_E, exp2, f32, larger, log
from nucleate.losses.fused.views import part


@step
def fill(out: Any, value: Any) -> None:
    for j in range(out.size):
        out[j] = value


@step
def copy(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = source[j]


@step
def row(array: Any, k: int, size: int, n: int) -> Any:
    """The first n numbers of row k, each row of `size`; lent."""
    return part(array, k * size, n)


@step
def maximum(x: Any, top: Any) -> None:
    for j in range(top.size):
        top[j] = larger(top[j], x[j])


@step
def largest(tile: Any, top: Any) -> None:
    """The largest logit of each pixel."""
    fill(top, f32(-np.inf))
    for k in range(tile.size // top.size):
        maximum(row(tile, k, top.size, top.size), top)


@step
def exponential(x: Any, top: Any, total: Any, out: Any) -> None:
    """exp(x - top) into `out`, which may not be x, and added to `total`."""
    for j in range(out.size):
        e = exp2((x[j] - top[j]) * LOG2_E)
        out[j] = e
        total[j] += e


@step
def exponentials(tile: Any, top: Any, total: Any, out: Any) -> None:
    """`largest`, then exp(x - top) of every class into `out`, and the sum over classes."""
    n = top.size
    largest(tile, top)
    fill(total, f32(0.0))
    for k in range(tile.size // n):
        exponential(row(tile, k, n, n), top, total, row(out, k, n, n))


@step
def logarithm(x: Any, out: Any) -> None:
    for j in range(x.size):
        out[j] = log(x[j])


@step
def dot(a: Any, b: Any) -> float:
    total = f32(0.0)
    for j in range(a.size):
        total += a[j] * b[j]
    return float(total)


@step
def add_up(a: Any) -> float:
    total = f32(0.0)
    for j in range(a.size):
        total += a[j]
    return float(total)
