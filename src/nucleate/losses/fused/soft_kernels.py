"""Cross entropy with probabilities as targets, and its gradient, in one pass over logits and targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.fused import softmax, tiles
from nucleate.losses.fused.compiled import kernel, step
from nucleate.losses.fused.scalars import f32


@step
def _shares(t: Any, weight: Any, keep: Any, spread: Any, sums: Any, least: Any) -> None:
    """t becomes its share s = w (keep t + spread); the sum of t and its least value are kept for the check."""
    for j in range(t.size):
        sums[j] += t[j]
        least[j] = least[j] if least[j] < t[j] else t[j]
    for j in range(t.size):
        t[j] = weight * (keep * t[j] + spread)


@step
def _gather(s: Any, x: Any, top: Any, share: Any, shared: Any) -> None:
    """Add s to S and s (x - top) to `shared`; a share of 0 silences an infinite x."""
    for j in range(s.size):
        share[j] += s[j]
    for j in range(s.size):
        shared[j] += f32(0.0) if s[j] == 0 else s[j] * (x[j] - top[j])


@step
def _wrong(sums: Any, least: Any, chosen: Any, tolerance: Any) -> Any:
    """How many selected pixels have a target that is no distribution; NaN is none."""
    count = np.int32(0)
    for j in range(sums.size):
        gap = abs(sums[j] - f32(1.0))
        fine = (gap <= tolerance) & (least[j] >= 0)
        count += np.int32((not fine) & (chosen[j] != 0))
    return count


@step
def _chosen(mask: Any, each: Any, first: int, chosen: Any, pixel: Any) -> None:
    chosen[:] = f32(1.0)
    if mask.size:
        for j in range(chosen.size):
            chosen[j] = f32(1.0) if mask[first + j] else f32(0.0)
    pixel[:] = chosen
    if each.size:
        for j in range(pixel.size):
            pixel[j] = each[first + j] if chosen[j] != 0 else f32(0.0)


@step
def _value(log_total: Any, share: Any, shared: Any, pixel: Any) -> float:
    total = f32(0.0)
    for j in range(pixel.size):
        v = pixel[j] * (share[j] * log_total[j] - shared[j])
        total += f32(0.0) if pixel[j] == 0 else v
    return float(total)


@step
def _weight(share: Any, pixel: Any) -> float:
    total = f32(0.0)
    for j in range(pixel.size):
        total += f32(0.0) if pixel[j] == 0 else pixel[j] * share[j]
    return float(total)


@step
def _gradient(e: Any, s: Any, slope: Any, pixel: Any) -> None:
    for j in range(e.size):
        g = e[j] * slope[j] - pixel[j] * s[j]
        e[j] = f32(0.0) if pixel[j] == 0 else g


@kernel(
    "void(int16[::1], int16[::1], int16[::1], boolean, boolean, boolean, int64[::1], int64[::1], int64, int64, "
    "boolean[::1], float32[::1], float32[::1], float32, float32, boolean, float32, int64, int64, float32, boolean, "
    "float64[::1])"
)
def soft_tiles(
    x: Any, target: Any, gradient: Any, narrow_x: bool, narrow_t: bool, rows: bool, parts: Any, order: Any, plane: int,
    block: int, mask: Any, each: Any, weight: Any, keep: float, spread: float, by_weight: bool, tolerance: float,
    begin: int, end: int, scale: float, wanted: bool, out: Any,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`: adds (total, weight, targets in error) to `out`; `scale` times the gradient."""
    classes = order.size
    size = classes * block
    tile_of, soft_of, spare_of = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    work = np.empty((8, block), np.float32)
    blocks = (plane + block - 1) // block
    for b in range(begin, end):
        image, inside = b // blocks, (b % blocks) * block
        n = min(block, plane - inside)
        pixel0 = image * plane + inside
        first = pixel0 * classes if rows else image * plane * classes + inside
        tile, soft, spare = tile_of[: classes * n], soft_of[: classes * n], spare_of[: classes * n]
        top, total, shared, share = work[0, :n], work[1, :n], work[2, :n], work[3, :n]
        pixel, chosen, sums, least = work[4, :n], work[5, :n], work[6, :n], work[7, :n]
        tiles.load(x, narrow_x, rows, parts, first, plane, tile, spare, n)
        tiles.load(target, narrow_t, rows, parts, first, plane, soft, spare, n)
        _chosen(mask, each, pixel0, chosen, pixel)
        softmax.largest(tile, 0, n, tile.size // n, top)
        work[1:4, :n] = f32(0.0)
        sums[:] = f32(0.0)
        least[:] = f32(np.inf)
        for k in range(classes):
            row, s = tile[k * n : (k + 1) * n], soft[k * n : (k + 1) * n]
            _shares(s, weight[order[k]], f32(keep), f32(spread), sums, least)
            _gather(s, row, top, share, shared)
            softmax.exponential(row, top, total, row)
        softmax.logarithm(total, top)
        out[2] += _wrong(sums, least, chosen, f32(tolerance))
        out[0] += _value(top, share, shared, pixel)
        out[1] += _weight(share, pixel) if by_weight else softmax.add_up(chosen)
        if wanted:
            for j in range(n):
                pixel[j] *= f32(scale)
                top[j] = pixel[j] * share[j] / total[j]
            for k in range(classes):
                _gradient(tile[k * n : (k + 1) * n], soft[k * n : (k + 1) * n], top, pixel)
            tiles.store(gradient, narrow_x, rows, parts, first, plane, tile, spare, n)
