"""Cross entropy and its gradient in one pass over the logits, a tile of pixels at a time.

Every target is a share s_c of each class: w_c ((1 - e) t_c + e / C). With d the logits below the largest and
S = sum s_c, a pixel of weight v costs v (S log sum exp d - sum s_c d_c), and its gradient is v (S q_c - s_c).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels import softmax, tiles
from nucleate.losses.kernels.compiled import kernel, step
from nucleate.losses.kernels.labels import count, count_selected, narrow, read_labels
from nucleate.losses.kernels.scalars import choose, f32, i32, larger, log
from nucleate.losses.kernels.softmax import row
from nucleate.losses.kernels.stream import settle
from nucleate.losses.kernels.views import hold, lent, part


@step
def _add_where(label: Any, c: Any, value: Any, out: Any) -> None:
    """Class by class: to look them up in a table of all classes takes longer."""
    for j in range(label.size):
        out[j] += choose(label[j] == c, value, f32(0.0))


@step
def _plus(a: Any, rest: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = a[j] + rest


@step
def _weigh(label: Any, out: Any) -> None:
    for j in range(label.size):
        out[j] = choose(label[j] >= 0, f32(1.0), f32(0.0))


@step
def _weigh_by(each: Any, label: Any, out: Any) -> None:
    for j in range(label.size):
        out[j] = choose(label[j] >= 0, each[j], f32(0.0))


@step
def _weights(each: Any, first: int, label: Any, pixel: Any) -> None:
    if each.size:
        _weigh_by(part(each, first, label.size), label, pixel)
    else:
        _weigh(label, pixel)


@step
def _next_class(x: Any, c: Any, label: Any, top: Any, own: Any) -> None:
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
    softmax.fill(products, f32(1.0))
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
def _scale_by(scale: Any, pixel: Any) -> None:
    for j in range(pixel.size):
        pixel[j] *= scale


@step
def _gradient_of_class(e: Any, slope: Any, pixel: Any, label: Any, c: Any, hit: Any, missed: Any, out: Any) -> None:
    for j in range(out.size):
        g = e[j] * slope[j] - pixel[j] * choose(label[j] == c, hit, missed)
        out[j] = choose(label[j] >= 0, g, f32(0.0))


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
    target, mask, each, extras, labels = lent(target), lent(mask), lent(each), lent(extras), lent(labels)
    floats, integers = np.empty(2 * block, f32), np.empty(block, i32)
    work, label_of = lent(floats), lent(integers)
    softmax.fill(row(work, 0, block, block), extras[0] + rest)
    for first in range(begin, end, block):
        n = min(block, end - first)
        label, share = part(label_of, 0, n), row(work, 0, block, n)
        pixel = row(work, 1, block, n)
        out[2] += read_labels(target, size, mask, first, extras.size, ignore, ignores, label)
        if each.size:
            _weigh_by(part(each, first, n), label, pixel)
            if not alike:
                softmax.fill(share, rest)
                for c in range(extras.size):
                    _add_where(label, i32(c), extras[c], share)
            out[1] += softmax.dot(pixel, share)
        elif alike:
            out[1] += count_selected(label) * float(extras[0] + rest)
        else:
            for c in range(extras.size):
                out[1] += count(label, i32(c)) * float(extras[c] + rest)
        if labels.size:
            narrow(label, part(labels, first, n))
    hold(floats)
    hold(integers)


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
    x, gradient, target, mask, each = lent(x), lent(gradient), lent(target), lent(mask), lent(each)
    hits, misses, extras = lent(hits), lent(misses), lent(extras)
    size_of = classes * block
    floats, integers = np.empty(2 * size_of + 8 * block, f32), np.empty(block, i32)
    tile_of, e_of = part(floats, 0, size_of), part(floats, size_of, size_of)
    work, label_of = part(floats, 2 * size_of, 8 * block), lent(integers)
    softmax.fill(row(work, 0, block, block), extras[0] + rest)
    softmax.fill(row(work, 1, block, block), extras[0])
    # Planes of float32 are read where they are; all else goes through a tile.
    direct = not (rows or bfloat16)
    logits = x.view(f32) if direct else tile_of
    blocks = (plane + block - 1) // block
    for b in range(begin, end):
        image, inside = b // blocks, (b % blocks) * block
        n = min(block, plane - inside)
        pixel0 = image * plane + inside
        first = pixel0 * classes if rows else image * plane * classes + inside
        begins, step = (first, plane) if direct else (0, n)
        tile, e, label = part(tile_of, 0, classes * n), part(e_of, 0, classes * n), part(label_of, 0, n)
        share, extra, top = row(work, 0, block, n), row(work, 1, block, n), row(work, 2, block, n)
        own, spread, total = row(work, 3, block, n), row(work, 4, block, n), row(work, 5, block, n)
        pixel, slope = row(work, 6, block, n), row(work, 7, block, n)
        out[2] += read_labels(target, size, mask, pixel0, classes, ignore, ignores, label)
        _weights(each, pixel0, label, pixel)
        if not alike:
            softmax.fill(extra, f32(0.0))
            for c in range(classes):
                _add_where(label, i32(c), extras[c], extra)
            _plus(extra, rest, share)
        if not direct:
            tiles.load(x, bfloat16, rows, first, plane, tile, e, n)
        softmax.fill(top, f32(-np.inf))
        softmax.fill(own, f32(0.0))
        for c in range(classes):
            _next_class(part(logits, begins + c * step, n), i32(c), label, top, own)
        softmax.fill(total, f32(0.0))
        softmax.fill(spread, f32(0.0))
        for c in range(classes):
            z = part(logits, begins + c * step, n)
            softmax.exponential(z, top, total, row(e, c, n, n))
            if misses[c] != 0:
                _spread(z, top, misses[c], spread)
        if alike and not each.size:
            out[0] += share[0] * _log_sum(total, pixel, part(slope, 0, n // 8))
            softmax.fill(slope, f32(0.0))
        else:
            softmax.logarithm(total, slope)
        out[0] += _cost(slope, share, extra, own, top, spread, pixel)
        if wanted:
            _slope(total, share, scale, pixel, slope)
            _scale_by(scale, pixel)
            for c in range(classes):
                into = row(tile, c, n, n)
                _gradient_of_class(row(e, c, n, n), slope, pixel, label, i32(c), hits[c], misses[c], into)
            tiles.store(gradient, bfloat16, rows, first, plane, tile, e, n)
    settle()
    hold(floats)
    hold(integers)
