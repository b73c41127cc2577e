"""KL and Jensen-Shannon divergence of two tensors of logits, with both gradients, in one pass over them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.fused import softmax, tiles
from nucleate.losses.fused.compiled import kernel, step
from nucleate.losses.fused.scalars import LOG2_E, exp2, f32, log


@step
def _less(x: Any, shift: Any) -> None:
    for j in range(x.size):
        x[j] -= shift[j]


@step
def _log_softmax(tile: Any, n: int, top: Any, total: Any) -> None:
    softmax.largest(tile, 0, n, tile.size // n, top)
    total[:] = f32(0.0)
    for k in range(tile.size // n):
        softmax.add_exponential(tile[k * n : (k + 1) * n], top, total)
    softmax.logarithm(total, total)
    for k in range(tile.size // n):
        _less(tile[k * n : (k + 1) * n], top)
        _less(tile[k * n : (k + 1) * n], total)


@step
def _add_kl(log_p: Any, log_q: Any, value: Any) -> None:
    for j in range(log_p.size):
        p = exp2(log_p[j] * LOG2_E)
        gap = p * (log_p[j] - log_q[j])
        value[j] += f32(0.0) if p == 0 else gap


@step
def _kl_gradients(log_p: Any, log_q: Any, value: Any, pixel: Any) -> None:
    """log p and log q become the gradients of the divergence by their logits."""
    for j in range(log_p.size):
        p, q = exp2(log_p[j] * LOG2_E), exp2(log_q[j] * LOG2_E)
        v = pixel[j]
        by_p = v * p * ((log_p[j] - log_q[j]) - value[j])
        log_p[j] = f32(0.0) if (p == 0) | (v == 0) else by_p
        log_q[j] = f32(0.0) if v == 0 else v * (q - p)


@step
def _add_js(log_p: Any, log_q: Any, of_p: Any, of_q: Any) -> None:
    for j in range(log_p.size):
        p, q = exp2(log_p[j] * LOG2_E), exp2(log_q[j] * LOG2_E)
        log_m = log(f32(0.5) * (p + q))
        of_p[j] += f32(0.0) if p == 0 else p * (log_p[j] - log_m)
        of_q[j] += f32(0.0) if q == 0 else q * (log_q[j] - log_m)


@step
def _js_gradients(log_p: Any, log_q: Any, of_p: Any, of_q: Any, pixel: Any) -> None:
    for j in range(log_p.size):
        p, q = exp2(log_p[j] * LOG2_E), exp2(log_q[j] * LOG2_E)
        log_m = log(f32(0.5) * (p + q))
        v = f32(0.5) * pixel[j]
        by_p, by_q = v * p * ((log_p[j] - log_m) - of_p[j]), v * q * ((log_q[j] - log_m) - of_q[j])
        log_p[j] = f32(0.0) if (p == 0) | (v == 0) else by_p
        log_q[j] = f32(0.0) if (q == 0) | (v == 0) else by_q


@step
def _weigh(mask: Any, each: Any, first: int, pixel: Any) -> None:
    pixel[:] = f32(1.0)
    if each.size:
        for j in range(pixel.size):
            pixel[j] = each[first + j]
    if mask.size:
        for j in range(pixel.size):
            pixel[j] = pixel[j] if mask[first + j] else f32(0.0)


@step
def _total(value: Any, pixel: Any) -> float:
    total = f32(0.0)
    for j in range(value.size):
        total += f32(0.0) if pixel[j] == 0 else pixel[j] * value[j]
    return float(total)


@kernel(
    "void(int16[::1], int16[::1], int16[::1], int16[::1], boolean, boolean, boolean, int64[::1], int64, int64, int64, "
    "boolean[::1], float32[::1], boolean, int64, int64, float32, boolean, boolean, float64[::1])"
)
def divergence_tiles(
    x: Any, y: Any, by_x: Any, by_y: Any, narrow_x: bool, narrow_y: bool, rows: bool, parts: Any, classes: int,
    plane: int, block: int, mask: Any, each: Any, symmetric: bool, begin: int, end: int, scale: float,
    wants_x: bool, wants_y: bool, out: Any,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`: adds KL(p||q), or JS where `symmetric`, to out[0]; gradients times `scale`.

    p is the softmax of x, q that of y.
    """
    size = classes * block
    tile_x, tile_y, spare_of = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    work = np.empty((5, block), np.float32)
    blocks = (plane + block - 1) // block
    for b in range(begin, end):
        image, inside = b // blocks, (b % blocks) * block
        n = min(block, plane - inside)
        pixel0 = image * plane + inside
        first = pixel0 * classes if rows else image * plane * classes + inside
        p, q, spare = tile_x[: classes * n], tile_y[: classes * n], spare_of[: classes * n]
        top, total, of_p, of_q, pixel = work[0, :n], work[1, :n], work[2, :n], work[3, :n], work[4, :n]
        tiles.load(x, narrow_x, rows, parts, first, plane, p, spare, n)
        tiles.load(y, narrow_y, rows, parts, first, plane, q, spare, n)
        _log_softmax(p, n, top, total)
        _log_softmax(q, n, top, total)
        _weigh(mask, each, pixel0, pixel)
        of_p[:] = f32(0.0)
        of_q[:] = f32(0.0)
        for k in range(classes):
            row_p, row_q = p[k * n : (k + 1) * n], q[k * n : (k + 1) * n]
            if symmetric:
                _add_js(row_p, row_q, of_p, of_q)
            else:
                _add_kl(row_p, row_q, of_p)
        share = 0.5 if symmetric else 1.0
        out[0] += share * (_total(of_p, pixel) + _total(of_q, pixel))
        if wants_x or wants_y:
            for j in range(n):
                pixel[j] *= f32(scale)
            for k in range(classes):
                row_p, row_q = p[k * n : (k + 1) * n], q[k * n : (k + 1) * n]
                if symmetric:
                    _js_gradients(row_p, row_q, of_p, of_q, pixel)
                else:
                    _kl_gradients(row_p, row_q, of_p, pixel)
            if wants_x:
                tiles.store(by_x, narrow_x, rows, parts, first, plane, p, spare, n)
            if wants_y:
                tiles.store(by_y, narrow_y, rows, parts, first, plane, q, spare, n)
