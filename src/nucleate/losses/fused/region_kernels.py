"""What overlap losses count, for each image and class, and the gradient by the logits from that by the counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.fused import softmax, tiles
from nucleate.losses.fused.compiled import kernel, step
from nucleate.losses.fused.labels import count_wrong, outside_mask, read_labels
from nucleate.losses.fused.scalars import f32


@step
def _inverse(total: Any, label: Any) -> None:
    """1 / total where selected, else 0."""
    for j in range(total.size):
        total[j] = f32(1.0) / total[j] if label[j] >= 0 else f32(0.0)


@step
def _normalise(e: Any, inverse: Any) -> None:
    """exp becomes p; where not selected 0, whatever the logits hold."""
    for j in range(e.size):
        e[j] = f32(0.0) if inverse[j] == 0 else e[j] * inverse[j]


@step
def _sum_at_label(p: Any, label: Any, c: int) -> Any:
    total = f32(0.0)
    for j in range(p.size):
        total += p[j] if label[j] == c else f32(0.0)
    return total


@step
def _count_label(label: Any, c: int) -> Any:
    total = np.int32(0)
    for j in range(label.size):
        total += np.int32(label[j] == c)
    return total


@step
def _count_selected(label: Any) -> Any:
    total = np.int32(0)
    for j in range(label.size):
        total += np.int32(label[j] >= 0)
    return total


@step
def _add_slope(p: Any, label: Any, c: int, hit: float, always: float, along: Any) -> None:
    for j in range(p.size):
        along[j] += p[j] * (hit + always if label[j] == c else always)


@step
def _gradient(p: Any, label: Any, c: int, hit: float, always: float, along: Any) -> None:
    for j in range(p.size):
        g = p[j] * ((hit + always if label[j] == c else always) - along[j])
        p[j] = g if label[j] >= 0 else f32(0.0)


@step
def _probabilities(tile: Any, n: int, label: Any, top: Any, total: Any) -> None:
    softmax.largest(tile, 0, n, tile.size // n, top)
    total[:] = f32(0.0)
    for k in range(tile.size // n):
        softmax.exponential(tile[k * n : (k + 1) * n], top, total, tile[k * n : (k + 1) * n])
    _inverse(total, label)
    for k in range(tile.size // n):
        _normalise(tile[k * n : (k + 1) * n], total)


@kernel(
    "void(int16[::1], boolean, boolean, int64[::1], int64[::1], int64, int64, uint8[::1], int64, boolean[::1], int64, "
    "boolean, int64, int64, float64[::1])"
)
def count_tiles(
    x: Any, bfloat16: bool, rows: bool, parts: Any, order: Any, plane: int, block: int, target: Any, size: int,
    mask: Any, ignore: int, ignores: bool, begin: int, end: int, out: Any,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`, added to out[image, :]: overlap, predicted, labelled of each class; selected; wrong."""
    classes = order.size
    tile_of, spare_of = np.empty(classes * block, np.float32), np.empty(classes * block, np.float32)
    work, labels = np.empty((2, block), np.float32), np.empty(block, np.int32)
    blocks = (plane + block - 1) // block
    columns = 3 * classes + 2
    for b in range(begin, end):
        image, inside = b // blocks, (b % blocks) * block
        n = min(block, plane - inside)
        pixel0 = image * plane + inside
        first = pixel0 * classes if rows else image * plane * classes + inside
        tile, spare, label = tile_of[: classes * n], spare_of[: classes * n], labels[:n]
        into = out[image * columns : (image + 1) * columns]
        read_labels(target, size, pixel0, classes, ignore, ignores, label)
        if mask.size:
            outside_mask(mask[pixel0 : pixel0 + n], label)
        into[3 * classes] += _count_selected(label)
        into[3 * classes + 1] += count_wrong(label)
        tiles.load(x, bfloat16, rows, parts, first, plane, tile, spare, n)
        _probabilities(tile, n, label, work[0, :n], work[1, :n])
        for k in range(classes):
            c, p = order[k], tile[k * n : (k + 1) * n]
            into[c] += _sum_at_label(p, label, c)
            into[classes + c] += softmax.add_up(p)
            into[2 * classes + c] += _count_label(label, c)


@kernel(
    "void(int16[::1], int16[::1], boolean, boolean, int64[::1], int64[::1], int64, int64, uint8[::1], int64, "
    "boolean[::1], int64, boolean, float32[:, ::1], float32[:, ::1], int64, int64)"
)
def gradient_tiles(
    x: Any, gradient: Any, bfloat16: bool, rows: bool, parts: Any, order: Any, plane: int, block: int, target: Any,
    size: int, mask: Any, ignore: int, ignores: bool, by_both: Any, by_predicted: Any, begin: int, end: int,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`; by_both and by_predicted hold the derivative by the counts of (image, class)."""
    classes = order.size
    tile_of, spare_of = np.empty(classes * block, np.float32), np.empty(classes * block, np.float32)
    work, labels = np.empty((3, block), np.float32), np.empty(block, np.int32)
    blocks = (plane + block - 1) // block
    for b in range(begin, end):
        image, inside = b // blocks, (b % blocks) * block
        n = min(block, plane - inside)
        pixel0 = image * plane + inside
        first = pixel0 * classes if rows else image * plane * classes + inside
        tile, spare, label = tile_of[: classes * n], spare_of[: classes * n], labels[:n]
        read_labels(target, size, pixel0, classes, ignore, ignores, label)
        if mask.size:
            outside_mask(mask[pixel0 : pixel0 + n], label)
        tiles.load(x, bfloat16, rows, parts, first, plane, tile, spare, n)
        _probabilities(tile, n, label, work[0, :n], work[1, :n])
        along = work[2, :n]
        along[:] = f32(0.0)
        for k in range(classes):
            c = order[k]
            _add_slope(tile[k * n : (k + 1) * n], label, c, by_both[image, c], by_predicted[image, c], along)
        for k in range(classes):
            c = order[k]
            _gradient(tile[k * n : (k + 1) * n], label, c, by_both[image, c], by_predicted[image, c], along)
        tiles.store(gradient, bfloat16, rows, parts, first, plane, tile, spare, n)
