"""The focal loss of classes and its gradient in one pass over the logits, on the way of cross entropy.

With q the probability of the label's class and r = 1 - q the sum of the others, a pixel costs -r^g log q. Its
gradient is a (q_c - [c is the label]) with a = r^g (1 - g q log(q) / r): for the label itself -a r, without the
cancellation of q - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from nucleate.losses.kernels import cross_entropy
from nucleate.losses.kernels.compiler import kernel, step
from nucleate.losses.kernels.cross_entropy import add_where, next_class, weights
from nucleate.losses.kernels.intrinsics import borrowed, choose, fence, keep_alive, part
from nucleate.losses.kernels.labels import read_labels
from nucleate.losses.kernels.scalars import LOG2_E, exp2, f32, i32, log
from nucleate.losses.kernels.tiles import block_at, fill, load, row, store


@step
def _others(x: Any, top: Any, label: Any, c: Any, other: Any, out: Any) -> None:
    """exp(x - top) into `out`, and added to `other` where the label is another one."""
    for j in range(out.size):
        e = exp2((x[j] - top[j]) * LOG2_E)
        out[j] = e
        other[j] += choose(label[j] == c, f32(0.0), e)


@step
def _times(of_class: Any, pixel: Any) -> None:
    for j in range(pixel.size):
        pixel[j] *= of_class[j]


@step
def _logarithms(own: Any, top: Any, other: Any, total: Any, out: Any) -> None:
    """The sum of all exponentials into `total`, its logarithm into `out`."""
    for j in range(out.size):
        total[j] = other[j] + exp2((own[j] - top[j]) * LOG2_E)
        out[j] = log(total[j])


@step
def _cost(
    own: Any, top: Any, other: Any, total: Any, logarithm: Any, gamma: Any, pixel: Any, scale: Any, hit: Any
) -> float:
    """The value of a block; into `hit` the gradient at the label, into `total` what the other exponentials take."""
    cost = f32(0.0)
    for j in range(pixel.size):
        rest, every = other[j], total[j]
        above = every - f32(1.0)
        # Of a label that is on top, log(1 + rest) without losing a small `rest`.
        near = choose(above == 0, rest, logarithm[j] * rest / above)
        nats = choose(own[j] == top[j], near, logarithm[j] - (own[j] - top[j]))
        r = rest / every
        power = choose(rest == 0, f32(0.0), exp2(gamma * (log(rest) - logarithm[j]) * LOG2_E))
        power = choose(gamma == 0, f32(1.0), power)
        cost += choose(pixel[j] == 0, f32(0.0), pixel[j] * power * nats)
        q = exp2((own[j] - top[j]) * LOG2_E) / every
        more = choose(rest == 0, f32(1.0), choose(q == 0, f32(0.0), q * nats / r))
        slope = choose(pixel[j] == 0, f32(0.0), scale * pixel[j] * power * (f32(1.0) + gamma * more))
        hit[j] = choose(slope == 0, f32(0.0), -slope * r)
        total[j] = choose(slope == 0, f32(0.0), slope / every)
    return float(cost)


@step
def _gradient(e: Any, slope: Any, label: Any, c: Any, hit: Any, out: Any) -> None:
    """A slope of 0 silences what stands where nothing is selected."""
    for j in range(out.size):
        out[j] = choose(slope[j] == 0, f32(0.0), choose(label[j] == c, hit[j], e[j] * slope[j]))


@kernel(
    "void(float32, int16[::1], int16[::1], boolean, boolean, int64, int64, int64, uint8[::1], int64, "
    "boolean[::1], float32[::1], float32[::1], float32[::1], float32[::1], float32, boolean, int64, boolean, "
    "int64, int64, float32, boolean, float64[::1])"
)
def focal_tiles(
    gamma: float, x: Any, gradient: Any, bfloat16: bool, rows: bool, classes: int, plane: int, block: int,
    target: Any, size: int, mask: Any, each: Any, hits: Any, misses: Any, extras: Any, rest: float, alike: bool,
    ignore: int, ignores: bool, begin: int, end: int, scale: float, wanted: bool, out: Any,
) -> None:  # fmt: skip
    """As `cross_entropy.index_tiles`, for shares without smoothing: `extras` are the weights of the classes."""
    x, gradient, target, mask, each = borrowed(x), borrowed(gradient), borrowed(target), borrowed(mask), borrowed(each)
    extras = borrowed(extras)
    size_of = classes * block
    floats, integers = np.empty(2 * size_of + 7 * block, f32), np.empty(block, i32)
    tile_of, e_of = part(floats, 0, size_of), part(floats, size_of, size_of)
    work, label_of = part(floats, 2 * size_of, 7 * block), borrowed(integers)
    # Planes of float32 are read where they are; all else goes through a tile.
    direct = not (rows or bfloat16)
    logits = x.view(f32) if direct else tile_of
    for b in range(begin, end):
        _, n, pixel0, first = block_at(b, plane, block, classes, rows)
        begins, apart = (first, plane) if direct else (0, n)
        tile, e, label = part(tile_of, 0, classes * n), part(e_of, 0, classes * n), part(label_of, 0, n)
        top, own, other = row(work, 0, block, n), row(work, 1, block, n), row(work, 2, block, n)
        total, logarithm = row(work, 3, block, n), row(work, 4, block, n)
        pixel, hit = row(work, 5, block, n), row(work, 6, block, n)
        out[2] += read_labels(target, size, mask, pixel0, classes, ignore, ignores, label)
        weights(each, pixel0, label, pixel)
        if not alike:
            fill(hit, f32(0.0))
            for c in range(classes):
                add_where(label, i32(c), extras[c], hit)
            _times(hit, pixel)
        if not direct:
            load(x, bfloat16, rows, first, plane, tile, e, n)
        fill(top, f32(-np.inf))
        fill(own, f32(0.0))
        for c in range(classes):
            next_class(part(logits, begins + c * apart, n), i32(c), label, top, own)
        fill(other, f32(0.0))
        for c in range(classes):
            _others(part(logits, begins + c * apart, n), top, label, i32(c), other, row(e, c, n, n))
        _logarithms(own, top, other, total, logarithm)
        out[0] += _cost(own, top, other, total, logarithm, gamma, pixel, scale, hit)
        if wanted:
            for c in range(classes):
                _gradient(row(e, c, n, n), total, label, i32(c), hit, row(tile, c, n, n))
            store(gradient, bfloat16, rows, first, plane, tile, e, n)
    fence()
    keep_alive(floats)
    keep_alive(integers)


def fused_total(gamma: float, *call: Any) -> tuple[Tensor, float] | None:
    """(total, weight) as the plain version gives it; the other arguments are those of cross entropy."""
    total: Callable[..., tuple[Tensor, float] | None] = cross_entropy.fused_total
    return total(*call, tiles=partial(focal_tiles, np.float32(gamma)))
