"""Cross entropy and its gradient in one pass over the logits, a tile of pixels at a time.

Every target is a share s_c of each class: w_c ((1 - e) t_c + e / C). With d the logits below the largest and
S = sum s_c, a pixel of weight v costs v (S log sum exp d - sum s_c d_c), and its gradient is v (S q_c - s_c).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.fused import softmax, tiles
from nucleate.losses.fused.compiled import kernel, step
from nucleate.losses.fused.labels import count_wrong, outside_mask, read_labels
from nucleate.losses.fused.scalars import f32


@step
def _look_up(table: Any, label: Any, out: Any) -> None:
    for j in range(label.size):
        out[j] = table[max(label[j], 0)]


@step
def _ones_where(label: Any, out: Any) -> None:
    for j in range(label.size):
        out[j] = f32(1.0) if label[j] >= 0 else f32(0.0)


@step
def _scale_by(factor: Any, label: Any, out: Any) -> None:
    for j in range(label.size):
        out[j] = factor[j] if label[j] >= 0 else f32(0.0)


@step
def _share_of_class(x: Any, top: Any, label: Any, c: int, hit: float, missed: float, shared: Any) -> None:
    """Add s_c (x_c - top), where s_c is `hit` at the label and `missed` elsewhere; a share of 0 silences any x."""
    if missed != 0:
        for j in range(x.size):
            shared[j] += (hit if label[j] == c else missed) * (x[j] - top[j])
    elif hit != 0:
        for j in range(x.size):
            shared[j] = shared[j] + hit * (x[j] - top[j]) if label[j] == c else shared[j]


@step
def _gradient_of_class(e: Any, slope: Any, pixel: Any, label: Any, c: int, hit: float, missed: float, out: Any) -> None:
    for j in range(out.size):
        g = e[j] * slope[j] - pixel[j] * (hit if label[j] == c else missed)
        out[j] = g if label[j] >= 0 else f32(0.0)


@step
def _value(log_total: Any, total_share: Any, shared: Any, pixel: Any, label: Any) -> float:
    total = f32(0.0)
    for j in range(label.size):
        v = pixel[j] * (total_share[j] * log_total[j] - shared[j])
        total += v if label[j] >= 0 else f32(0.0)
    return float(total)


@step
def _slope(total: Any, total_share: Any, pixel: Any, scale: Any, out: Any) -> None:
    for j in range(total.size):
        out[j] = scale * pixel[j] * total_share[j] / total[j] if pixel[j] != 0 else f32(0.0)


@step
def _times_scale(scale: Any, pixel: Any) -> None:
    for j in range(pixel.size):
        pixel[j] *= scale


@step
def _pixels(
    target: Any, size: int, mask: Any, each: Any, shares: Any, alike: bool, ignore: int, ignores: bool,
    first: int, label: Any, pixel: Any, share: Any,
) -> Any:  # fmt: skip
    """What is known of a block of pixels before its logits: label, weight v, share S; returns the labels in error."""
    read_labels(target, size, first, shares.size, ignore, ignores, label)
    if mask.size:
        outside_mask(mask[first : first + label.size], label)
    if each.size:
        _scale_by(each[first : first + label.size], label, pixel)
    else:
        _ones_where(label, pixel)
    if alike:
        share[:] = shares[0]
    else:
        _look_up(shares, label, share)
    return count_wrong(label)


@kernel(
    "void(uint8[::1], int64, boolean[::1], float32[::1], float32[::1], int64, boolean, boolean, int64, int64, "
    "float64[::1])"
)
def index_weight(
    target: Any, size: int, mask: Any, each: Any, shares: Any, ignore: int, ignores: bool, by_weight: bool,
    begin: int, end: int, out: Any,
) -> None:  # fmt: skip
    """The weight of pixels `begin` to `end`, added to out[1]; labels out of range to out[2]."""
    block = 1024
    work, labels = np.empty((2, block), np.float32), np.empty(block, np.int32)
    alike = shares.min() == shares.max()
    for first in range(begin, end, block):
        n = min(block, end - first)
        label, pixel, share = labels[:n], work[0, :n], work[1, :n]
        out[2] += _pixels(target, size, mask, each, shares, alike, ignore, ignores, first, label, pixel, share)
        out[1] += softmax.dot(pixel, share) if by_weight else softmax.add_up(pixel)


@kernel(
    "void(int16[::1], int16[::1], boolean, boolean, int64[::1], int64[::1], int64, int64, uint8[::1], int64, "
    "boolean[::1], float32[::1], float32[::1], float32[::1], float32[::1], int64, boolean, int64, int64, float32, "
    "boolean, float64[::1])"
)
def index_tiles(
    x: Any, gradient: Any, bfloat16: bool, rows: bool, parts: Any, order: Any, plane: int, block: int,
    target: Any, size: int, mask: Any, each: Any, hits: Any, misses: Any, shares: Any, ignore: int, ignores: bool,
    begin: int, end: int, scale: float, wanted: bool, out: Any,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`: adds the total to out[0], labels out of range to out[2]; `scale` times the gradient.

    s_c is hits[c] at the label and misses[c] elsewhere, shares[y] their sum for the label y.
    """
    classes = order.size
    tile_of, spare_of = np.empty(classes * block, np.float32), np.empty(classes * block, np.float32)
    work, labels = np.empty((6, block), np.float32), np.empty(block, np.int32)
    alike = shares.min() == shares.max()
    # Planes of float32 are read and written where they are; all else goes through a tile.
    direct = not (rows or bfloat16)
    logits, gradients = x.view(np.float32) if direct else tile_of, gradient.view(np.float32) if direct else tile_of
    blocks = (plane + block - 1) // block
    for b in range(begin, end):
        image, inside = b // blocks, (b % blocks) * block
        n = min(block, plane - inside)
        pixel0 = image * plane + inside
        first = pixel0 * classes if rows else image * plane * classes + inside
        tile, spare, label = tile_of[: classes * n], spare_of[: classes * n], labels[:n]
        top, total, shared = work[0, :n], work[1, :n], work[2, :n]
        share, pixel, slope = work[3, :n], work[4, :n], work[5, :n]
        out[2] += _pixels(target, size, mask, each, shares, alike, ignore, ignores, pixel0, label, pixel, share)
        begins, step = (first, plane) if direct else (0, n)
        if not direct:
            tiles.load(x, bfloat16, rows, parts, first, plane, tile, spare, n)
        softmax.largest(logits, begins, step, classes, top)
        shared[:] = f32(0.0)
        total[:] = f32(0.0)
        for k in range(classes):
            c, at = order[k], begins + k * step
            _share_of_class(logits[at : at + n], top, label, c, hits[c], misses[c], shared)
            softmax.exponential(logits[at : at + n], top, total, tile[k * n : (k + 1) * n])
        softmax.logarithm(total, top)
        out[0] += _value(top, share, shared, pixel, label)
        if wanted:
            _slope(total, share, pixel, f32(scale), slope)
            _times_scale(f32(scale), pixel)
            for k in range(classes):
                c, at, e = order[k], begins + k * step, tile[k * n : (k + 1) * n]
                _gradient_of_class(e, slope, pixel, label, c, hits[c], misses[c], gradients[at : at + n])
            if not direct:
                tiles.store(gradient, bfloat16, rows, parts, first, plane, tile, spare, n)
