"""The steps of a softmax over a tile, each a loop over one class of a block of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels.compiled import step
from nucleate.losses.kernels.scalars import LOG2_E, exp2, f32, larger, log
from nucleate.losses.kernels.views import part


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
def exponential(x: Any, top: Any, total: Any, out: Any) -> None:
    """exp(x - top) into `out`, which may not be x, and added to `total`."""
    for j in range(out.size):
        e = exp2((x[j] - top[j]) * LOG2_E)
        out[j] = e
        total[j] += e


@step
def exponentials(x: Any, begin: int, apart: int, classes: int, top: Any, total: Any, out: Any) -> None:
    """The largest logit of each pixel, then exp(x - top) of every class into `out`, and the sum over classes.

    Class c lies at begin + c * apart.
    """
    n = top.size
    fill(top, f32(-np.inf))
    for c in range(classes):
        maximum(part(x, begin + c * apart, n), top)
    fill(total, f32(0.0))
    for c in range(classes):
        exponential(part(x, begin + c * apart, n), top, total, row(out, c, n, n))


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
