"""KL and Jensen-Shannon divergence of two tensors of logits, with both gradients, in one pass over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.autograd import Twin, total
from nucleate.losses.kernels.compiler import kernel, step
from nucleate.losses.kernels.intrinsics import borrowed, choose, fence, keep_alive, part
from nucleate.losses.kernels.memory import Layout, empty_like, flat_mask, flat_weights, words
from nucleate.losses.kernels.scalars import LOG2_E, exp2, f32, log
from nucleate.losses.kernels.threads import over_blocks
from nucleate.losses.kernels.tiles import block_at, fill, load, logarithm, maximum, row, scale_by, store


@step
def _below(x: Any, top: Any, total: Any, out: Any) -> None:
    """x becomes x - top, its exponential is `out` and added to `total`.

    In memory, because in one expression with what is taken off next the compiler may add that to `top` first, which
    loses every digit of small differences between large logits.
    """
    for j in range(out.size):
        below = x[j] - top[j]
        x[j] = below
        e = exp2(below * LOG2_E)
        out[j] = e
        total[j] += e


@step
def _less(x: Any, log_total: Any) -> None:
    for j in range(x.size):
        x[j] -= log_total[j]


@step
def _over(e: Any, total: Any) -> None:
    for j in range(e.size):
        e[j] *= total[j]


@step
def _inverse(x: Any) -> None:
    for j in range(x.size):
        x[j] = f32(1.0) / x[j]


@step
def _softmax(tile: Any, top: Any, total: Any, log_total: Any, p: Any) -> None:
    """Logits become their log-softmax, and `p` the softmax."""
    n = top.size
    fill(top, f32(-np.inf))
    for k in range(tile.size // n):
        maximum(row(tile, k, n, n), top)
    fill(total, f32(0.0))
    for k in range(tile.size // n):
        _below(row(tile, k, n, n), top, total, row(p, k, n, n))
    logarithm(total, log_total)
    _inverse(total)
    for k in range(tile.size // n):
        _less(row(tile, k, n, n), log_total)
        _over(row(p, k, n, n), total)


@step
def _add_gap(p: Any, log_p: Any, log_q: Any, value: Any) -> None:
    """Add p (log p - log q); a p of 0 silences any log."""
    for j in range(p.size):
        value[j] += choose(p[j] == 0, f32(0.0), p[j] * (log_p[j] - log_q[j]))


@step
def _log_mean(p: Any, q: Any, out: Any) -> None:
    for j in range(p.size):
        out[j] = log(f32(0.5) * (p[j] + q[j]))


@step
def _by_gap(p: Any, log_p: Any, log_q: Any, value: Any, pixel: Any) -> None:
    """p becomes v p (log p - log q - value)."""
    for j in range(p.size):
        g = pixel[j] * p[j] * ((log_p[j] - log_q[j]) - value[j])
        p[j] = choose((p[j] == 0) | (pixel[j] == 0), f32(0.0), g)


@step
def _by_difference(p: Any, pixel: Any, q: Any) -> None:
    """q becomes v (q - p)."""
    for j in range(p.size):
        q[j] = choose(pixel[j] == 0, f32(0.0), pixel[j] * (q[j] - p[j]))


@step
def _weigh_by(each: Any, pixel: Any) -> None:
    for j in range(pixel.size):
        pixel[j] = each[j]


@step
def _select(mask: Any, pixel: Any) -> None:
    for j in range(pixel.size):
        pixel[j] = choose(mask[j], pixel[j], f32(0.0))


@step
def _weigh(mask: Any, each: Any, first: int, pixel: Any) -> None:
    fill(pixel, f32(1.0))
    if each.size:
        _weigh_by(part(each, first, pixel.size), pixel)
    if mask.size:
        _select(part(mask, first, pixel.size), pixel)


@step
def _total(value: Any, pixel: Any) -> float:
    total = f32(0.0)
    for j in range(value.size):
        total += choose(pixel[j] == 0, f32(0.0), pixel[j] * value[j])
    return float(total)


@kernel(
    "void(int16[::1], int16[::1], int16[::1], int16[::1], boolean, boolean, boolean, int64, int64, int64, "
    "boolean[::1], float32[::1], boolean, int64, int64, float32, boolean, boolean, float64[::1])"
)
def divergence_tiles(
    x: Any, y: Any, by_x: Any, by_y: Any, narrow_x: bool, narrow_y: bool, rows: bool, classes: int,
    plane: int, block: int, mask: Any, each: Any, symmetric: bool, begin: int, end: int, scale: float,
    wants_x: bool, wants_y: bool, out: Any,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`: adds KL(p||q), or JS where `symmetric`, to out[0]; gradients times `scale`.

    p is the softmax of x, q that of y.
    """
    size = classes * block
    x, y, by_x, by_y, mask, each = (
        borrowed(x),
        borrowed(y),
        borrowed(by_x),
        borrowed(by_y),
        borrowed(mask),
        borrowed(each),
    )
    floats = np.empty(5 * size + 6 * block, f32)
    tile_x, tile_y, tile_p = row(floats, 0, size, size), row(floats, 1, size, size), row(floats, 2, size, size)
    tile_q, tile_m, work = row(floats, 3, size, size), row(floats, 4, size, size), part(floats, 5 * size, 6 * block)
    share = f32(0.5) if symmetric else f32(1.0)
    for b in range(begin, end):
        _, n, pixel0, first = block_at(b, plane, block, classes, rows)
        log_p, log_q, log_m = part(tile_x, 0, classes * n), part(tile_y, 0, classes * n), part(tile_m, 0, classes * n)
        p, q = part(tile_p, 0, classes * n), part(tile_q, 0, classes * n)
        top, total, of_p = row(work, 0, block, n), row(work, 1, block, n), row(work, 2, block, n)
        of_q, pixel, log_total = row(work, 3, block, n), row(work, 4, block, n), row(work, 5, block, n)
        load(x, narrow_x, rows, first, plane, log_p, p, n)
        load(y, narrow_y, rows, first, plane, log_q, q, n)
        _softmax(log_p, top, total, log_total, p)
        _softmax(log_q, top, total, log_total, q)
        _weigh(mask, each, pixel0, pixel)
        fill(of_p, f32(0.0))
        fill(of_q, f32(0.0))
        for k in range(classes):
            if symmetric:
                m = row(log_m, k, n, n)
                _log_mean(row(p, k, n, n), row(q, k, n, n), m)
                _add_gap(row(p, k, n, n), row(log_p, k, n, n), m, of_p)
                _add_gap(row(q, k, n, n), row(log_q, k, n, n), m, of_q)
            else:
                _add_gap(row(p, k, n, n), row(log_p, k, n, n), row(log_q, k, n, n), of_p)
        out[0] += share * (_total(of_p, pixel) + _total(of_q, pixel))
        if wants_x or wants_y:
            scale_by(scale * share, pixel)
            for k in range(classes):
                if symmetric:
                    m = row(log_m, k, n, n)
                    _by_gap(row(p, k, n, n), row(log_p, k, n, n), m, of_p, pixel)
                    _by_gap(row(q, k, n, n), row(log_q, k, n, n), m, of_q, pixel)
                else:
                    _by_difference(row(p, k, n, n), pixel, row(q, k, n, n))
                    _by_gap(row(p, k, n, n), row(log_p, k, n, n), row(log_q, k, n, n), of_p, pixel)
            if wants_x:
                store(by_x, narrow_x, rows, first, plane, p, log_p, n)
            if wants_y:
                store(by_y, narrow_y, rows, first, plane, q, log_q, n)
    fence()
    keep_alive(floats)


def divergence_total(
    at: Layout, x: Tensor, y: Tensor, dim: int, mask: Tensor | None, each: Tensor | None, symmetric: bool, scale: float,
    twin: Twin,
) -> Tensor:  # fmt: skip
    """sum of KL(softmax x || softmax y), or of JS where `symmetric`.

    `scale` is what the backward pass will bring; twin(x, y) is the plain version.
    """
    chosen, weight = flat_mask(mask), flat_weights(each)
    sources = [words(t, at.rows, dim) for t in (x, y)]
    narrow = [t.dtype == torch.bfloat16 for t in (x, y)]
    needed = [t.requires_grad and torch.is_grad_enabled() for t in (x, y)]

    def run(factor: float, wanted: list[bool]) -> tuple[float, list[Tensor | None]]:
        made = [empty_like(t.detach()) if need else None for t, need in zip((x, y), wanted, strict=True)]
        into = [s if g is None else words(g, at.rows, dim) for s, g in zip(sources, made, strict=True)]

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            divergence_tiles(
                *sources, *into, *narrow, at.rows, at.classes, at.plane, at.block, chosen, weight, symmetric,
                begin, end, np.float32(factor), *wanted, sums,
            )  # fmt: skip

        return float(over_blocks(at.blocks, 1, work)[0]), made

    value, made = run(scale, needed)
    scalar = torch.tensor(value, dtype=torch.float32)
    if not any(needed):
        return scalar
    return total(scalar, made, scale, lambda factor: run(factor, needed)[1], twin, [x, y], [mask, each])
