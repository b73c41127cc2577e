"""Cross entropy and its gradient in one pass over the logits, a tile of pixels at a time.

Every target is a share s_c of each class: w_c ((1 - e) t_c + e / C). With d the logits below the largest and
S = sum s_c, a pixel of weight v costs v (S log sum exp d - sum s_c d_c), and its gradient is v (S q_c - s_c).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.autograd import total
from nucleate.losses.kernels.compiler import kernel, step
from nucleate.losses.kernels.intrinsics import borrowed, choose, fence, keep_alive, larger, part
from nucleate.losses.kernels.labels import count, count_selected, narrow, read_labels
from nucleate.losses.kernels.memory import (
    IGNORED,
    Layout,
    bytes_of,
    class_shares,
    empty_like,
    flat_mask,
    flat_weights,
    reciprocal,
    words,
)
from nucleate.losses.kernels.scalars import f32, i32, log
from nucleate.losses.kernels.threads import over_blocks
from nucleate.losses.kernels.tiles import block_at, dot, exponential, fill, load, logarithm, row, scale_by, store

_INT32 = 1 << 31  # the kernels hold labels in 32 bits


@step
def add_where(label: Any, c: Any, value: Any, out: Any) -> None:
    """Class by class: to look them up in a table of all classes takes longer."""
    for j in range(label.size):
        out[j] += choose(label[j] == c, value, f32(0.0))


@step
def _plus(a: Any, rest: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = a[j] + rest


@step
def _silence(share: Any, pixel: Any) -> None:
    """What the label's class weighs 0 is not selected."""
    for j in range(pixel.size):
        pixel[j] = choose(share[j] == 0, f32(0.0), pixel[j])


@step
def _weigh(label: Any, out: Any) -> None:
    for j in range(label.size):
        out[j] = choose(label[j] >= 0, f32(1.0), f32(0.0))


@step
def _weigh_by(each: Any, label: Any, out: Any) -> None:
    for j in range(label.size):
        out[j] = choose(label[j] >= 0, each[j], f32(0.0))


@step
def weights(each: Any, first: int, label: Any, pixel: Any) -> None:
    if each.size:
        _weigh_by(part(each, first, label.size), label, pixel)
    else:
        _weigh(label, pixel)


@step
def next_class(x: Any, c: Any, label: Any, top: Any, own: Any) -> None:
    for j in range(label.size):
        top[j] = larger(top[j], x[j])
        own[j] += choose(label[j] == c, x[j], f32(0.0))


@step
def _spread(x: Any, top: Any, missed: Any, spread: Any) -> None:
    for j in range(x.size):
        spread[j] += missed * (x[j] - top[j])


@step
def _cost(log_total: Any, share: Any, extra: Any, own: Any, top: Any, spread: Any, pixel: Any) -> float:
    """The value of a block of pixels; a share of 0 silences any x, and a weight of 0 the pixel."""
    total = f32(0.0)
    for j in range(pixel.size):
        shared = choose(extra[j] == 0, f32(0.0), extra[j] * (own[j] - top[j])) + spread[j]
        total += choose(pixel[j] == 0, f32(0.0), pixel[j] * (share[j] * log_total[j] - shared))
    return float(total)


@step
def _multiply(total: Any, pixel: Any, products: Any) -> None:
    for j in range(products.size):
        products[j] *= choose(pixel[j] == 0, f32(1.0), total[j])


@step
def _log_sum(total: Any, pixel: Any, products: Any) -> float:
    """The sum of log(total) over the selected pixels: one logarithm for eight, whose product float32 holds."""
    n = products.size
    fill(products, f32(1.0))
    for k in range(8):
        _multiply(row(total, k, n, n), row(pixel, k, n, n), products)
    found = f32(0.0)
    for j in range(n):
        found += log(products[j])
    for j in range(8 * n, total.size):
        found += choose(pixel[j] == 0, f32(0.0), log(total[j]))
    return float(found)


@step
def _slope(total: Any, share: Any, scale: Any, pixel: Any, out: Any) -> None:
    for j in range(total.size):
        out[j] = choose(pixel[j] == 0, f32(0.0), scale * pixel[j] * share[j] / total[j])


@step
def _gradient_of_class(e: Any, slope: Any, pixel: Any, label: Any, c: Any, hit: Any, missed: Any, out: Any) -> None:
    for j in range(out.size):
        g = e[j] * slope[j] - pixel[j] * choose(label[j] == c, hit, missed)
        out[j] = choose(pixel[j] == 0, f32(0.0), g)


@kernel(
    "void(uint8[::1], int64, boolean[::1], float32[::1], float32[::1], float32, boolean, int64, boolean, uint8[::1], "
    "int64, int64, float64[::1])"
)
def index_weight(
    target: Any, size: int, mask: Any, each: Any, extras: Any, rest: float, alike: bool, ignore: int, ignores: bool,
    labels: Any, begin: int, end: int, out: Any,
) -> None:  # fmt: skip
    """The weight of pixels `begin` to `end`, added to out[1]; labels out of range to out[2].

    `labels`, where it is not empty, receives the labels as bytes, 255 where ignored.
    """
    block = 1024
    target, mask, each, extras, labels = (
        borrowed(target),
        borrowed(mask),
        borrowed(each),
        borrowed(extras),
        borrowed(labels),
    )
    floats, integers = np.empty(2 * block, f32), np.empty(block, i32)
    work, label_of = borrowed(floats), borrowed(integers)
    fill(row(work, 0, block, block), extras[0] + rest)
    for first in range(begin, end, block):
        n = min(block, end - first)
        label, share = part(label_of, 0, n), row(work, 0, block, n)
        pixel = row(work, 1, block, n)
        out[2] += read_labels(target, size, mask, first, extras.size, ignore, ignores, label)
        if each.size:
            _weigh_by(part(each, first, n), label, pixel)
            if not alike:
                fill(share, rest)
                for c in range(extras.size):
                    add_where(label, i32(c), extras[c], share)
            out[1] += dot(pixel, share)
        elif alike:
            out[1] += count_selected(label) * float(extras[0] + rest)
        else:
            for c in range(extras.size):
                out[1] += count(label, i32(c)) * float(extras[c] + rest)
        if labels.size:
            narrow(label, part(labels, first, n))
    keep_alive(floats)
    keep_alive(integers)


@kernel(
    "void(int16[::1], int16[::1], boolean, boolean, int64, int64, int64, uint8[::1], int64, "
    "boolean[::1], float32[::1], float32[::1], float32[::1], float32[::1], float32, boolean, int64, boolean, "
    "int64, int64, float32, boolean, float64[::1])"
)
def index_tiles(
    x: Any, gradient: Any, bfloat16: bool, rows: bool, classes: int, plane: int, block: int, target: Any,
    size: int, mask: Any, each: Any, hits: Any, misses: Any, extras: Any, rest: float, alike: bool, ignore: int,
    ignores: bool, begin: int, end: int, scale: float, wanted: bool, out: Any,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`: adds the total to out[0], labels out of range to out[2]; `scale` times the gradient.

    s_c is hits[c] at the label and misses[c] elsewhere, extras[c] the difference and `rest` the sum of all misses.
    """
    x, gradient, target, mask, each = borrowed(x), borrowed(gradient), borrowed(target), borrowed(mask), borrowed(each)
    hits, misses, extras = borrowed(hits), borrowed(misses), borrowed(extras)
    size_of = classes * block
    floats, integers = np.empty(2 * size_of + 8 * block, f32), np.empty(block, i32)
    tile_of, e_of = part(floats, 0, size_of), part(floats, size_of, size_of)
    work, label_of = part(floats, 2 * size_of, 8 * block), borrowed(integers)
    fill(row(work, 0, block, block), extras[0] + rest)
    fill(row(work, 1, block, block), extras[0])
    # Planes of float32 are read where they are; all else goes through a tile.
    direct = not (rows or bfloat16)
    logits = x.view(f32) if direct else tile_of
    for b in range(begin, end):
        _, n, pixel0, first = block_at(b, plane, block, classes, rows)
        begins, apart = (first, plane) if direct else (0, n)
        tile, e, label = part(tile_of, 0, classes * n), part(e_of, 0, classes * n), part(label_of, 0, n)
        share, extra, top = row(work, 0, block, n), row(work, 1, block, n), row(work, 2, block, n)
        own, spread, total = row(work, 3, block, n), row(work, 4, block, n), row(work, 5, block, n)
        pixel, slope = row(work, 6, block, n), row(work, 7, block, n)
        out[2] += read_labels(target, size, mask, pixel0, classes, ignore, ignores, label)
        weights(each, pixel0, label, pixel)
        if not alike:
            fill(extra, f32(0.0))
            for c in range(classes):
                add_where(label, i32(c), extras[c], extra)
            _plus(extra, rest, share)
            _silence(share, pixel)
        if not direct:
            load(x, bfloat16, rows, first, plane, tile, e, n)
        fill(top, f32(-np.inf))
        fill(own, f32(0.0))
        for c in range(classes):
            next_class(part(logits, begins + c * apart, n), i32(c), label, top, own)
        fill(total, f32(0.0))
        fill(spread, f32(0.0))
        for c in range(classes):
            z = part(logits, begins + c * apart, n)
            exponential(z, top, total, row(e, c, n, n))
            if misses[c] != 0:
                _spread(z, top, misses[c], spread)
        if alike and not each.size:
            out[0] += share[0] * _log_sum(total, pixel, part(slope, 0, n // 8))
            fill(slope, f32(0.0))
        else:
            logarithm(total, slope)
        out[0] += _cost(slope, share, extra, own, top, spread, pixel)
        if wanted:
            _slope(total, share, scale, pixel, slope)
            scale_by(scale, pixel)
            for c in range(classes):
                into = row(tile, c, n, n)
                _gradient_of_class(row(e, c, n, n), slope, pixel, label, i32(c), hits[c], misses[c], into)
            store(gradient, bfloat16, rows, first, plane, tile, e, n)
    fence()
    keep_alive(floats)
    keep_alive(integers)


@dataclass(frozen=True, slots=True)
class _CrossEntropyJob:
    """One call with class indices, ready for the kernels."""

    layout: Layout
    dim: int
    target: NDArray[np.uint8]
    size: int
    mask: NDArray[np.bool_]
    each: NDArray[np.float32]
    hits: NDArray[np.float32]
    misses: NDArray[np.float32]
    extras: NDArray[np.float32]
    rest: np.float32
    alike: bool
    ignore: int
    ignores: bool
    tiles: Callable[..., None]

    def weight(self, by_weight: bool) -> tuple[float, float, _CrossEntropyJob]:
        """The weight of all pixels, how many labels are out of range, and the job with labels that are read faster."""
        fits = self.size > 1 and self.layout.classes < IGNORED
        narrow = np.empty(self.layout.pixels if fits else 0, np.uint8)
        pixels = self.layout.pixels
        each, extras, rest = self.each, self.extras, self.rest
        if not by_weight:  # what weighs anything counts 1
            each, extras, rest = (each != 0).astype(np.float32), (self.hits != 0).astype(np.float32), np.float32(0)

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            index_weight(
                self.target, self.size, self.mask, each, extras, rest, self.alike, self.ignore,
                self.ignores, narrow, begin * 1024, min(end * 1024, pixels), sums,
            )  # fmt: skip

        _, weight, wrong = over_blocks(-(-pixels // 1024), 3, work, 16)
        if not fits:
            return float(weight), float(wrong), self
        every = np.empty(0, np.bool_)
        job = replace(self, target=narrow, size=1, mask=every, ignore=IGNORED, ignores=True)
        return float(weight), float(wrong), job

    def run(self, logits: Tensor, scale: float, wanted: bool) -> tuple[float, float, Tensor | None]:
        """The total, how many labels are out of range, and `scale` times the gradient."""
        x, at = logits.detach(), self.layout
        gradient = empty_like(x) if wanted else None
        source = words(x, at.rows, self.dim)
        into = source if gradient is None else words(gradient, at.rows, self.dim)

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            self.tiles(
                source, into, x.dtype == torch.bfloat16, at.rows, at.classes, at.plane, at.block, self.target,
                self.size, self.mask, self.each, self.hits, self.misses, self.extras, self.rest, self.alike,
                self.ignore, self.ignores, begin, end, np.float32(scale), wanted, sums,
            )  # fmt: skip

        value, _, wrong = over_blocks(at.blocks, 3, work, at.least).tolist()
        return value, wrong, gradient


def fused_total(
    layout: Layout,
    ignore_index: int | None,
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
    tiles: Callable[..., None] = index_tiles,
) -> tuple[Tensor, float] | None:
    """(total, weight) as the plain version gives it, or None where only the plain version will do.

    None also for labels out of range: the plain version says what is wrong with them. `mean` says that the total
    will be divided by the weight, and so what the backward pass will bring.
    """
    if not -_INT32 <= (ignore_index or 0) < _INT32:
        return None
    labels, size = bytes_of(target)
    shares = class_shares(weight, layout.classes)
    misses, extras = shares * np.float32(smoothing / layout.classes), shares * np.float32(1 - smoothing)
    job = _CrossEntropyJob(
        layout, dim, labels, size, flat_mask(mask), flat_weights(each), misses + extras, misses, extras,
        misses.sum(dtype=np.float32), weight is None, ignore_index or 0, ignore_index is not None,
        tiles,
    )  # fmt: skip
    by_weight = normalize == "weight"
    if weight is None and each is None and ignore_index is None:
        # Every pixel weighs 1. Labels in error are found in the pass itself.
        amount = float(job.layout.pixels if mask is None else mask.count_nonzero())
    else:
        amount, wrong, job = job.weight(by_weight)
        if wrong:
            return None
    wanted = logits.requires_grad and torch.is_grad_enabled()
    scale = reciprocal(amount) if mean else 1.0
    value, wrong, gradient = job.run(logits, scale, wanted)
    if wrong:
        return None
    scalar = torch.tensor(value, dtype=torch.float32)
    if not wanted:
        return scalar, amount

    def again(factor: float) -> list[Tensor | None]:
        return [job.run(logits, factor, True)[2]]

    constants = [target, mask, weight, each]
    return total(scalar, [gradient], scale, again, twin, [logits], constants), amount
