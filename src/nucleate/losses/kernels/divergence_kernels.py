"""KL and Jensen-Shannon divergence of two tensors of logits, with both gradients, in one pass over them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels import softmax, tiles
from nucleate.losses.kernels.compiled import kernel, step
from nucleate.losses.kernels.scalars import choose, f32, log
from nucleate.losses.kernels.softmax import row
from nucleate.losses.kernels.stream import settle
from nucleate.losses.kernels.views import hold, lent, part


@step
def _less(x: Any, top: Any, log_total: Any) -> None:
    for j in range(x.size):
        x[j] = (x[j] - top[j]) - log_total[j]


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
    softmax.exponentials(tile, 0, top.size, tile.size // top.size, top, total, p)
    softmax.logarithm(total, log_total)
    _inverse(total)
    for k in range(tile.size // n):
        _less(row(tile, k, n, n), top, log_total)
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
    softmax.fill(pixel, f32(1.0))
    if each.size:
        _weigh_by(part(each, first, pixel.size), pixel)
    if mask.size:
        _select(part(mask, first, pixel.size), pixel)


@step
def _scale_by(scale: Any, pixel: Any) -> None:
    for j in range(pixel.size):
        pixel[j] *= scale


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
    x, y, by_x, by_y, mask, each = lent(x), lent(y), lent(by_x), lent(by_y), lent(mask), lent(each)
    floats = np.empty(5 * size + 6 * block, f32)
    tile_x, tile_y, tile_p = row(floats, 0, size, size), row(floats, 1, size, size), row(floats, 2, size, size)
    tile_q, tile_m, work = row(floats, 3, size, size), row(floats, 4, size, size), part(floats, 5 * size, 6 * block)
    share = f32(0.5) if symmetric else f32(1.0)
    blocks = (plane + block - 1) // block
    for b in range(begin, end):
        image, inside = b // blocks, (b % blocks) * block
        n = min(block, plane - inside)
        pixel0 = image * plane + inside
        first = pixel0 * classes if rows else image * plane * classes + inside
        log_p, log_q, log_m = part(tile_x, 0, classes * n), part(tile_y, 0, classes * n), part(tile_m, 0, classes * n)
        p, q = part(tile_p, 0, classes * n), part(tile_q, 0, classes * n)
        top, total, of_p = row(work, 0, block, n), row(work, 1, block, n), row(work, 2, block, n)
        of_q, pixel, log_total = row(work, 3, block, n), row(work, 4, block, n), row(work, 5, block, n)
        tiles.load(x, narrow_x, rows, first, plane, log_p, p, n)
        tiles.load(y, narrow_y, rows, first, plane, log_q, q, n)
        _softmax(log_p, top, total, log_total, p)
        _softmax(log_q, top, total, log_total, q)
        _weigh(mask, each, pixel0, pixel)
        softmax.fill(of_p, f32(0.0))
        softmax.fill(of_q, f32(0.0))
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
            _scale_by(scale * share, pixel)
            for k in range(classes):
                if symmetric:
                    m = row(log_m, k, n, n)
                    _by_gap(row(p, k, n, n), row(log_p, k, n, n), m, of_p, pixel)
                    _by_gap(row(q, k, n, n), row(log_q, k, n, n), m, of_q, pixel)
                else:
                    _by_difference(row(p, k, n, n), pixel, row(q, k, n, n))
                    _by_gap(row(p, k, n, n), row(log_p, k, n, n), row(log_q, k, n, n), of_p, pixel)
            if wants_x:
                tiles.store(by_x, narrow_x, rows, first, plane, p, log_p, n)
            if wants_y:
                tiles.store(by_y, narrow_y, rows, first, plane, q, log_q, n)
    settle()
    hold(floats)
