"""Cross entropy with probabilities as targets, and its gradient, in one pass over logits and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.autograd import total
from nucleate.losses.kernels.compiler import kernel, step
from nucleate.losses.kernels.intrinsics import borrowed, choose, fence, keep_alive, larger, part
from nucleate.losses.kernels.memory import Layout, class_shares, empty_like, flat_mask, flat_weights, reciprocal, words
from nucleate.losses.kernels.scalars import f32, i32
from nucleate.losses.kernels.target_values import laid_out, load_numbers
from nucleate.losses.kernels.threads import over_blocks
from nucleate.losses.kernels.tiles import (
    add_up,
    block_at,
    copy,
    exponentials,
    fill,
    load,
    logarithm,
    row,
    scale_by,
    store,
)


@step
def _check(t: Any, sums: Any, below: Any) -> None:
    """Keep the sum of the target and how far it goes below 0."""
    for j in range(t.size):
        sums[j] += t[j]
        below[j] = larger(below[j], -t[j])


@step
def _shares(weight: Any, keep: Any, spread: Any, t: Any) -> None:
    """The target becomes its share s = w (keep t + spread)."""
    for j in range(t.size):
        t[j] = weight * (keep * t[j] + spread)


@step
def _gather(s: Any, x: Any, top: Any, share: Any, shared: Any) -> None:
    """Add s to S and s (x - top) to `shared`; a share of 0 silences an infinite x."""
    for j in range(s.size):
        share[j] += s[j]
        shared[j] += choose(s[j] == 0, f32(0.0), s[j] * (x[j] - top[j]))


@step
def _wrong(sums: Any, below: Any, chosen: Any, tolerance: Any) -> int:
    """How many selected pixels have a target that is no distribution; NaN is none."""
    wrong = i32(0)
    for j in range(sums.size):
        fine = (abs(sums[j] - f32(1.0)) <= tolerance) & (below[j] <= 0)
        wrong += choose((not fine) & (chosen[j] != 0), i32(1), i32(0))
    return int(wrong)


@step
def _select(mask: Any, chosen: Any) -> None:
    for j in range(chosen.size):
        chosen[j] = choose(mask[j], f32(1.0), f32(0.0))


@step
def _weigh_by(each: Any, chosen: Any, pixel: Any) -> None:
    for j in range(chosen.size):
        pixel[j] = choose(chosen[j] == 0, f32(0.0), each[j])
        chosen[j] = choose(pixel[j] == 0, f32(0.0), chosen[j])


@step
def _silence(share: Any, chosen: Any, pixel: Any) -> None:
    """A pixel whose classes weigh 0 is not selected."""
    for j in range(chosen.size):
        pixel[j] = choose(share[j] == 0, f32(0.0), pixel[j])
        chosen[j] = choose(share[j] == 0, f32(0.0), chosen[j])


@step
def _chosen(mask: Any, each: Any, first: int, chosen: Any, pixel: Any) -> None:
    n = chosen.size
    fill(chosen, f32(1.0))
    if mask.size:
        _select(part(mask, first, n), chosen)
    copy(chosen, pixel)
    if each.size:
        _weigh_by(part(each, first, n), chosen, pixel)


@step
def _cost(log_total: Any, share: Any, shared: Any, pixel: Any) -> float:
    total = f32(0.0)
    for j in range(pixel.size):
        total += choose(pixel[j] == 0, f32(0.0), pixel[j] * (share[j] * log_total[j] - shared[j]))
    return float(total)


@step
def _weight(share: Any, pixel: Any) -> float:
    total = f32(0.0)
    for j in range(pixel.size):
        total += choose(pixel[j] == 0, f32(0.0), pixel[j] * share[j])
    return float(total)


@step
def _slope(share: Any, total: Any, pixel: Any, out: Any) -> None:
    for j in range(pixel.size):
        out[j] = pixel[j] * share[j] / total[j]


@step
def _gradient(e: Any, s: Any, slope: Any, pixel: Any, out: Any) -> None:
    for j in range(e.size):
        out[j] = choose(pixel[j] == 0, f32(0.0), e[j] * slope[j] - pixel[j] * s[j])


@kernel(
    "void(int16[::1], uint8[::1], int16[::1], boolean, int64, boolean, boolean, int64, int64, int64, "
    "boolean[::1], float32[::1], float32[::1], float32, float32, boolean, float32, int64, int64, float32, boolean, "
    "float64[::1])"
)
def soft_tiles(
    x: Any, target: Any, gradient: Any, narrow_x: bool, kind: int, rows_t: bool, rows: bool, classes: int, plane: int,
    block: int, mask: Any, each: Any, weight: Any, keep: float, spread: float, by_weight: bool, tolerance: float,
    begin: int, end: int, scale: float, wanted: bool, out: Any,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`: adds (total, weight, targets in error) to `out`; `scale` times the gradient."""
    size = classes * block
    x, target, gradient, mask, each = borrowed(x), borrowed(target), borrowed(gradient), borrowed(mask), borrowed(each)
    floats = np.empty(3 * size + 9 * block, f32)
    tile_of, soft_of, e_of = part(floats, 0, size), part(floats, size, size), part(floats, 2 * size, size)
    work = part(floats, 3 * size, 9 * block)
    # Planes of float32 are read where they are; all else goes through a tile.
    direct = not (rows or narrow_x)
    logits = x.view(f32) if direct else tile_of
    for b in range(begin, end):
        _, n, pixel0, first = block_at(b, plane, block, classes, rows)
        tile, soft, e = part(tile_of, 0, classes * n), part(soft_of, 0, classes * n), part(e_of, 0, classes * n)
        top, total, shared = row(work, 0, block, n), row(work, 1, block, n), row(work, 2, block, n)
        share, pixel, chosen = row(work, 3, block, n), row(work, 4, block, n), row(work, 5, block, n)
        sums, below, slope = row(work, 6, block, n), row(work, 7, block, n), row(work, 8, block, n)
        begins, apart = (first, plane) if direct else (0, n)
        if not direct:
            load(x, narrow_x, rows, first, plane, tile, e, n)
        load_numbers(target, kind, rows_t, block_at(b, plane, block, classes, rows_t)[3], plane, soft, e, n)
        _chosen(mask, each, pixel0, chosen, pixel)
        exponentials(logits, begins, apart, classes, top, total, e)
        for zeros in (shared, share, sums):
            fill(zeros, f32(0.0))
        fill(below, f32(-np.inf))
        for c in range(classes):
            s = row(soft, c, n, n)
            _check(s, sums, below)
            _shares(weight[c], keep, spread, s)
            _gather(s, part(logits, begins + c * apart, n), top, share, shared)
        logarithm(total, slope)
        out[2] += _wrong(sums, below, chosen, tolerance)
        _silence(share, chosen, pixel)
        out[0] += _cost(slope, share, shared, pixel)
        out[1] += _weight(share, pixel) if by_weight else add_up(chosen)
        if wanted:
            scale_by(scale, pixel)
            _slope(share, total, pixel, slope)
            for c in range(classes):
                _gradient(row(e, c, n, n), row(soft, c, n, n), slope, pixel, row(tile, c, n, n))
            store(gradient, narrow_x, rows, first, plane, tile, e, n)
    fence()
    keep_alive(floats)


def fused_total(
    at: Layout,
    tolerance: float,
    logits: Tensor,
    target: Tensor,
    dim: int,
    mask: Tensor | None,
    weight: Tensor | None,
    each: Tensor | None,
    smoothing: float,
    normalize: str,
    mean: bool,
    twin: Callable[[Tensor], Tensor],
) -> tuple[Tensor, float] | None:
    """(total, weight) as the plain version gives it, for a target of probabilities in the shape of the logits.

    None for a target whose sums are off by more than `tolerance`: the plain version says what is wrong with it.
    """
    shares = class_shares(weight, at.classes)
    chosen, pixel = flat_mask(mask), flat_weights(each)
    narrow, source = logits.dtype == torch.bfloat16, words(logits, at.rows, dim)
    numbers, kind, rows = laid_out(target, dim, at)
    wanted = logits.requires_grad and torch.is_grad_enabled()

    def run(factor: float, write: bool) -> tuple[NDArray[np.float64], Tensor | None]:
        gradient = empty_like(logits.detach()) if write else None
        into = source if gradient is None else words(gradient, at.rows, dim)

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            soft_tiles(
                source, numbers, into, narrow, kind, rows, at.rows, at.classes, at.plane, at.block, chosen, pixel,
                shares, np.float32(1 - smoothing), np.float32(smoothing / at.classes),
                normalize == "weight", np.float32(tolerance), begin, end, np.float32(factor), write, sums,
            )  # fmt: skip

        return over_blocks(at.blocks, 3, work, at.least), gradient

    # Without class weights a target weighs 1, so the weight is known before the pass that would count it.
    simple = mean and weight is None and mask is None and each is None
    scale = reciprocal(at.pixels) if simple else 1.0
    (value, amount, wrong), gradient = run(scale, wanted)
    if wrong:
        return None
    weighed = float(at.pixels if simple else amount)
    scalar = torch.tensor(value, dtype=torch.float32)
    if not wanted:
        return scalar, weighed

    def again(factor: float) -> list[Tensor | None]:
        return [run(factor, True)[1]]

    return total(scalar, [gradient], scale, again, twin, [logits], [target, mask, weight, each]), weighed
