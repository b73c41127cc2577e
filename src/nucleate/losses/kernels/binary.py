"""Losses of yes and no on one score, with their gradient, in one pass over scores and targets.

With s the sigmoid, a score x costs a t s(-x)^g log(1 + exp(-x)) + b (1 - t) s(x)^g log(1 + exp(x)): binary cross
entropy for g = 0, the focal loss above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.autograd import total
from nucleate.losses.kernels.compiler import inline, kernel, step
from nucleate.losses.kernels.intrinsics import borrowed, choose, fence, keep_alive, part
from nucleate.losses.kernels.memory import empty_like, flat_mask, flat_weights, in_order, reciprocal, words_in_order
from nucleate.losses.kernels.scalars import LOG2_E, exp2, f32, log_of_one_plus
from nucleate.losses.kernels.target_values import numbers, numbers_of
from nucleate.losses.kernels.threads import over_blocks
from nucleate.losses.kernels.tiles import fill, read, row, write

_BLOCK = 1024
_LEAST = 16  # blocks that are worth a call


@step
def _weights(mask: Any, each: Any, first: int, pixel: Any) -> None:
    """The weight of each number, 0 where it is not selected."""
    n = pixel.size
    fill(pixel, f32(1.0))
    if each.size:
        _copy_selected(part(each, first, n), pixel)
    if mask.size:
        _select(part(mask, first, n), pixel)


@step
def _copy_selected(each: Any, pixel: Any) -> None:
    for j in range(pixel.size):
        pixel[j] = each[j]


@step
def _select(mask: Any, pixel: Any) -> None:
    for j in range(pixel.size):
        pixel[j] = choose(mask[j], pixel[j], f32(0.0))


@step
def _along_classes(of_class: Any, plane: int, first: int, out: Any) -> None:
    """Of each number what its class has; classes follow each other in planes."""
    j = 0
    while j < out.size:
        at = first + j
        n = min(plane - at % plane, out.size - j)
        fill(part(out, j, n), of_class[at // plane % of_class.size])
        j += n


@inline
def _outside(t: Any, pixel: Any) -> Any:
    """1 for a selected target that is not in 0..1, as NaN is not."""
    return choose((not ((t >= 0) & (t <= 1))) & (pixel != 0), f32(1.0), f32(0.0))


@step
def _entropy(x: Any, t: Any, pixel: Any, yes: Any, no: Any, keep: Any, spread: Any, scale: Any, out: Any) -> Any:
    """The value of a block, its targets in error, and `scale` times its gradient; a share of 0 silences any x.

    Of the two answers one is likelier; the other one costs |x| more.
    """
    total, wrong = f32(0.0), f32(0.0)
    for j in range(x.size):
        wrong += _outside(t[j], pixel[j])
        smooth = keep * t[j] + spread
        a, b = yes[j] * smooth, no * (f32(1.0) - smooth)
        positive, size = x[j] > 0, abs(x[j])
        far, near = choose(positive, b, a), choose(positive, a, b)
        e = exp2(-size * LOG2_E)
        value = choose(far == 0, f32(0.0), far * size) + (a + b) * log_of_one_plus(e)
        total += choose(pixel[j] == 0, f32(0.0), pixel[j] * value)
        slope = (far - near * e) / (f32(1.0) + e)
        slope = choose(positive, slope, -slope)
        out[j] = choose(pixel[j] == 0, f32(0.0), scale * pixel[j] * slope)
    return float(total), float(wrong)


@step
def _focal(
    x: Any, t: Any, pixel: Any, yes: Any, no: Any, keep: Any, spread: Any, gamma: Any, scale: Any, out: Any
) -> Any:
    """The same where each answer counts by what the other one has of probability, to the power of gamma."""
    total, wrong = f32(0.0), f32(0.0)
    power = -gamma * LOG2_E
    for j in range(x.size):
        wrong += _outside(t[j], pixel[j])
        smooth = keep * t[j] + spread
        a, b = yes[j] * smooth, no * (f32(1.0) - smooth)
        positive, size = x[j] > 0, abs(x[j])
        far, near = choose(positive, b, a), choose(positive, a, b)
        e = exp2(-size * LOG2_E)
        less = log_of_one_plus(e)
        more, one = size + less, f32(1.0) / (f32(1.0) + e)
        far *= exp2(power * less)
        near *= exp2(power * more)
        value = choose(far == 0, f32(0.0), far * more) + near * less
        total += choose(pixel[j] == 0, f32(0.0), pixel[j] * value)
        slope = far * (gamma * choose(e == 0, f32(0.0), e * one * more) + one) - near * (gamma * one * less + e * one)
        slope = choose(positive, slope, -slope)
        out[j] = choose(pixel[j] == 0, f32(0.0), scale * pixel[j] * slope)
    return float(total), float(wrong)


@kernel(
    "void(int16[::1], int16[::1], boolean, uint8[::1], int64, boolean[::1], float32[::1], float32[::1], int64, "
    "float32, float32, float32, float32, int64, int64, int64, float32, boolean, float64[::1])"
)
def binary_tiles(
    x: Any, gradient: Any, bfloat16: bool, target: Any, kind: int, mask: Any, each: Any, yes: Any, plane: int,
    no: float, gamma: float, keep: float, spread: float, size: int, begin: int, end: int, scale: float, wanted: bool,
    out: Any,
) -> None:  # fmt: skip
    """Blocks `begin` to `end` of `size` numbers: adds (total, targets outside of 0..1) to `out`, writes the gradient.

    `yes` holds what a yes costs in each class, or in all; `plane` numbers of a class lie together.
    """
    x, gradient, target, mask, each = borrowed(x), borrowed(gradient), borrowed(target), borrowed(mask), borrowed(each)
    yes = borrowed(yes)
    floats = np.empty(5 * _BLOCK, f32)
    fill(row(floats, 3, _BLOCK, _BLOCK), yes[0])
    for b in range(begin, end):
        first = b * _BLOCK
        n = min(_BLOCK, size - first)
        score, t, pixel = row(floats, 0, _BLOCK, n), row(floats, 1, _BLOCK, n), row(floats, 2, _BLOCK, n)
        cost, slope = row(floats, 3, _BLOCK, n), row(floats, 4, _BLOCK, n)
        read(x, bfloat16, first, score)
        numbers(target, kind, first, t)
        _weights(mask, each, first, pixel)
        if yes.size > 1:
            _along_classes(yes, plane, first, cost)
        if gamma == 0:
            value, wrong = _entropy(score, t, pixel, cost, no, keep, spread, scale, slope)
        else:
            value, wrong = _focal(score, t, pixel, cost, no, keep, spread, gamma, scale, slope)
        out[0] += value
        out[1] += wrong
        if wanted:
            write(gradient, bfloat16, first, slope)
    fence()
    keep_alive(floats)


def _inside(order: tuple[int, ...], of_class: Tensor) -> tuple[int, ...]:
    """The axes that lie inside that of the classes."""
    return order[order.index(next(d for d in order if of_class.shape[d] > 1)) + 1 :]


def binary_total(
    order: tuple[int, ...],
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    yes: float | Tensor,
    no: float,
    gamma: float,
    smoothing: float,
    amount: float,
    mean: bool,
    read: bool,
    twin: Callable[[Tensor], Tensor],
) -> Tensor | None:
    """The total, or None for a target outside of 0..1 that is to be refused: the plain version says what is wrong.

    `yes` holds one weight, or one for each class along its one axis that is longer than 1; `amount` is what the total
    will be divided by if `mean`.
    """
    narrow = logits.dtype == torch.bfloat16
    source = words_in_order(logits, order)
    numbers, kind = numbers_of(in_order(target, order))
    chosen = flat_mask(None if mask is None else in_order(mask, order))
    each = flat_weights(None if weight is None else in_order(weight, order))
    of_class = yes if isinstance(yes, Tensor) else None
    costs = np.full(1, yes, np.float32) if of_class is None else of_class.detach().float().reshape(-1).numpy()
    size = logits.numel()
    inside = () if of_class is None or costs.size == 1 else _inside(order, of_class)
    plane = math.prod(logits.shape[d] for d in inside)

    def run(factor: float, write: bool) -> tuple[NDArray[np.float64], Tensor | None]:
        gradient = empty_like(logits.detach()) if write else None
        into = source if gradient is None else words_in_order(gradient, order)

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            binary_tiles(
                source, into, narrow, numbers, kind, chosen, each, costs, plane, np.float32(no), np.float32(gamma),
                np.float32(1 - smoothing), np.float32(smoothing / 2), size, begin, end, np.float32(factor), write,
                sums,
            )  # fmt: skip

        return over_blocks(-(-size // _BLOCK), 2, work, _LEAST), gradient

    wanted = logits.requires_grad and torch.is_grad_enabled()
    scale = reciprocal(amount) if mean else 1.0
    (value, wrong), gradient = run(scale, wanted)
    if wrong and read:
        return None
    scalar = torch.tensor(value, dtype=torch.float32)
    if not wanted:
        return scalar

    def again(factor: float) -> list[Tensor | None]:
        return [run(factor, True)[1]]

    return total(scalar, [gradient], scale, again, twin, [logits], [target, mask, weight, of_class])
