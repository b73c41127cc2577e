"""The steps of a softmax over a tile, each a loop over one class of a block of pixels."""

from __future__ import annotations

from typing import Any

from nucleate.losses.fused.compiled import step
from nucleate.losses.fused.scalars import LOG2_E, exp2, f32, log


@step
def maximum(x: Any, top: Any) -> None:
    for j in range(top.size):
        top[j] = top[j] if top[j] > x[j] else x[j]


@step
def exponential(x: Any, top: Any, total: Any, out: Any) -> None:
    """exp(x - top) into `out`, which may be x, and added to `total`."""
    for j in range(out.size):
        e = exp2((x[j] - top[j]) * LOG2_E)
        out[j] = e
        total[j] += e


@step
def largest(x: Any, first: int, step: int, classes: int, top: Any) -> None:
    """The largest logit of each pixel, where class k begins at first + k * step."""
    n = top.size
    top[:] = x[first : first + n]
    for k in range(1, classes):
        begin = first + k * step
        maximum(x[begin : begin + n], top)


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


@step
def add_exponential(x: Any, top: Any, total: Any) -> None:
    for j in range(x.size):
        total[j] += exp2((x[j] - top[j]) * LOG2_E)
