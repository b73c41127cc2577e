"""What overlap losses count, for each image and class, and the gradient by the logits from that by the counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels import softmax, tiles
from nucleate.losses.kernels.compiled import kernel, step
from nucleate.losses.kernels.labels import count, count_selected, narrow, read_labels
from nucleate.losses.kernels.scalars import LOG2_E, choose, exp2, f32, i32, larger
from nucleate.losses.kernels.softmax import row
from nucleate.losses.kernels.stream import settle
from nucleate.losses.kernels.views import hold, lent, part


@step
def _inverse(total: Any, label: Any) -> None:
    """1 / total where selected, else 0."""
    for j in range(total.size):
        total[j] = choose(label[j] >= 0, f32(1.0) / total[j], f32(0.0))


@step
def _sums(e: Any, inverse: Any, label: Any, c: Any) -> Any:
    """The sum of p = e / total where the label is c, and everywhere; where not selected p is 0 whatever e holds."""
    overlap, predicted = f32(0.0), f32(0.0)
    for j in range(e.size):
        p = choose(inverse[j] == 0, f32(0.0), e[j] * inverse[j])
        overlap += choose(label[j] == c, p, f32(0.0))
        predicted += p
    return overlap, predicted


@step
def _add_slope(e: Any, label: Any, c: Any, at_label: Any, elsewhere: Any, along: Any) -> None:
    """The share of p = e / total of the slope along p, times the total."""
    for j in range(along.size):
        along[j] += e[j] * choose(label[j] == c, at_label, elsewhere)


@step
def _gradient(e: Any, inverse: Any, label: Any, c: Any, at_label: Any, elsewhere: Any, along: Any) -> None:
    for j in range(e.size):
        slope = choose(label[j] == c, at_label, elsewhere) - along[j] * inverse[j]
        e[j] = choose(inverse[j] == 0, f32(0.0), e[j] * inverse[j] * slope)


# Of up to three classes a pixel's numbers stay in registers from the logits to the sums, or to the gradient: half the
# time of row by row. What is missing to three are logits of -inf, whose p is 0.
_FEW = 3
_APART = 1024  # numbers between two classes of a gradient: a constant, or it would not become vector code


@step
def _class_of_few(x: Any, begins: int, apart: int, c: int, classes: int, n: int, missing: Any) -> Any:
    return part(x, begins + c * apart, n) if c < classes else part(missing, 0, n)


@step
def _sums_of_few(x: Any, y: Any, z: Any, label: Any, into: Any, classes: int) -> None:
    """Adds overlap, predicted and labelled of each class, `classes` apart; 0 where not selected, whatever x holds."""
    over_x, over_y, over_z = f32(0.0), f32(0.0), f32(0.0)
    all_x, all_y, all_z = f32(0.0), f32(0.0), f32(0.0)
    in_x, in_y, in_z = f32(0.0), f32(0.0), f32(0.0)
    for j in range(label.size):
        top = larger(larger(x[j], y[j]), z[j])
        a, b, c = exp2((x[j] - top) * LOG2_E), exp2((y[j] - top) * LOG2_E), exp2((z[j] - top) * LOG2_E)
        inverse = f32(1.0) / (a + b + c)
        selected = label[j] >= 0
        a, b, c = (
            choose(selected, a * inverse, f32(0.0)),
            choose(selected, b * inverse, f32(0.0)),
            choose(selected, c * inverse, f32(0.0)),
        )
        all_x, all_y, all_z = all_x + a, all_y + b, all_z + c
        over_x += choose(label[j] == i32(0), a, f32(0.0))
        over_y += choose(label[j] == i32(1), b, f32(0.0))
        over_z += choose(label[j] == i32(2), c, f32(0.0))
        in_x += choose(label[j] == i32(0), f32(1.0), f32(0.0))
        in_y += choose(label[j] == i32(1), f32(1.0), f32(0.0))
        in_z += choose(label[j] == i32(2), f32(1.0), f32(0.0))
    overlap, predicted, labelled = (over_x, over_y, over_z), (all_x, all_y, all_z), (in_x, in_y, in_z)
    for k in range(classes):
        into[k] += overlap[k]
        into[classes + k] += predicted[k]
        into[2 * classes + k] += labelled[k]


@step
def _gradient_of_few(x: Any, y: Any, z: Any, label: Any, elsewhere: Any, more: Any, out: Any) -> None:
    """Where the label is c, the slope along p_c is elsewhere[c] + more[c]."""
    by_x, by_y, by_z = elsewhere
    at_x, at_y, at_z = by_x + more[0], by_y + more[1], by_z + more[2]
    for j in range(label.size):
        top = larger(larger(x[j], y[j]), z[j])
        a, b, c = exp2((x[j] - top) * LOG2_E), exp2((y[j] - top) * LOG2_E), exp2((z[j] - top) * LOG2_E)
        inverse = f32(1.0) / (a + b + c)
        u = choose(label[j] == i32(0), at_x, by_x)
        v = choose(label[j] == i32(1), at_y, by_y)
        w = choose(label[j] == i32(2), at_z, by_z)
        along = (a * u + b * v + c * w) * inverse
        selected = label[j] >= 0
        out[j] = choose(selected, a * inverse * (u - along), f32(0.0))
        out[j + _APART] = choose(selected, b * inverse * (v - along), f32(0.0))
        out[j + 2 * _APART] = choose(selected, c * inverse * (w - along), f32(0.0))


@step
def _of_few(numbers: Any, first: int, classes: int) -> Any:
    """A number of each class, 0 of those that are missing."""
    return (
        numbers[first],
        numbers[first + 1] if classes > 1 else f32(0.0),
        numbers[first + 2] if classes > 2 else f32(0.0),
    )


@kernel(
    "void(int16[::1], boolean, boolean, int64, int64, int64, uint8[::1], int64, boolean[::1], int64, "
    "boolean, uint8[::1], int64, int64, float64[::1])"
)
def count_tiles(
    x: Any, bfloat16: bool, rows: bool, classes: int, plane: int, block: int, target: Any, size: int,
    mask: Any, ignore: int, ignores: bool, labels: Any, begin: int, end: int, out: Any,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`, added to out[image, :]: overlap, predicted, labelled of each class; selected; wrong.

    `labels`, where it is not empty, receives the labels as bytes, 255 where not selected.
    """
    x, target, mask, labels = lent(x), lent(target), lent(mask), lent(labels)
    size_of = classes * block
    floats, integers = np.empty(2 * size_of + 3 * block, f32), np.empty(block, i32)
    tile_of, p_of = part(floats, 0, size_of), part(floats, size_of, size_of)
    work, label_of = part(floats, 2 * size_of, 3 * block), lent(integers)
    missing = row(work, 2, block, block)
    softmax.fill(missing, f32(-np.inf))
    # Planes of float32 are read where they are; all else goes through a tile.
    direct = not (rows or bfloat16)
    logits = x.view(f32) if direct else tile_of
    blocks = (plane + block - 1) // block
    columns = 3 * classes + 2
    for b in range(begin, end):
        image, inside = b // blocks, (b % blocks) * block
        n = min(block, plane - inside)
        pixel0 = image * plane + inside
        first = pixel0 * classes if rows else image * plane * classes + inside
        tile, p, label = part(tile_of, 0, classes * n), part(p_of, 0, classes * n), part(label_of, 0, n)
        inverse = row(work, 1, block, n)
        into = part(out, image * columns, columns)
        into[3 * classes + 1] += read_labels(target, size, mask, pixel0, classes, ignore, ignores, label)
        into[3 * classes] += count_selected(label)
        if labels.size:
            narrow(label, part(labels, pixel0, n))
        begins, apart = (first, plane) if direct else (0, n)
        if not direct:
            tiles.load(x, bfloat16, rows, first, plane, tile, p, n)
        if classes <= _FEW:
            x_0 = _class_of_few(logits, begins, apart, 0, classes, n, missing)
            x_1 = _class_of_few(logits, begins, apart, 1, classes, n, missing)
            x_2 = _class_of_few(logits, begins, apart, 2, classes, n, missing)
            _sums_of_few(x_0, x_1, x_2, label, into, classes)
            continue
        softmax.exponentials(logits, begins, apart, classes, row(work, 0, block, n), inverse, p)
        _inverse(inverse, label)
        for c in range(classes):
            overlap, predicted = _sums(row(p, c, n, n), inverse, label, i32(c))
            into[c] += overlap
            into[classes + c] += predicted
            into[2 * classes + c] += count(label, i32(c))
    hold(floats)
    hold(integers)


@kernel(
    "void(int16[::1], int16[::1], boolean, boolean, int64, int64, int64, uint8[::1], int64, "
    "boolean[::1], int64, boolean, float32[::1], float32[::1], int64, int64)"
)
def gradient_tiles(
    x: Any, gradient: Any, bfloat16: bool, rows: bool, classes: int, plane: int, block: int, target: Any,
    size: int, mask: Any, ignore: int, ignores: bool, by_both: Any, by_predicted: Any, begin: int, end: int,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`; by_both and by_predicted hold the derivative by the counts of (image, class)."""
    x, gradient, target, mask = lent(x), lent(gradient), lent(target), lent(mask)
    size_of = classes * block
    floats, integers = np.empty(2 * size_of + 4 * block + _FEW * _APART, f32), np.empty(block, i32)
    tile_of, p_of = part(floats, 0, size_of), part(floats, size_of, size_of)
    work, label_of = part(floats, 2 * size_of, 4 * block), lent(integers)
    few, missing = part(floats, 2 * size_of + 4 * block, _FEW * _APART), row(work, 3, block, block)
    softmax.fill(missing, f32(-np.inf))
    # Planes of float32 are read where they are; all else goes through a tile.
    direct = not (rows or bfloat16)
    logits = x.view(f32) if direct else tile_of
    blocks = (plane + block - 1) // block
    for b in range(begin, end):
        image, inside = b // blocks, (b % blocks) * block
        n = min(block, plane - inside)
        pixel0 = image * plane + inside
        first = pixel0 * classes if rows else image * plane * classes + inside
        tile, p, label = part(tile_of, 0, classes * n), part(p_of, 0, classes * n), part(label_of, 0, n)
        inverse = row(work, 1, block, n)
        read_labels(target, size, mask, pixel0, classes, ignore, ignores, label)
        begins, apart = (first, plane) if direct else (0, n)
        if not direct:
            tiles.load(x, bfloat16, rows, first, plane, tile, p, n)
        if classes <= _FEW:
            elsewhere = _of_few(by_predicted, image * classes, classes)
            more = _of_few(by_both, image * classes, classes)
            x_0 = _class_of_few(logits, begins, apart, 0, classes, n, missing)
            x_1 = _class_of_few(logits, begins, apart, 1, classes, n, missing)
            x_2 = _class_of_few(logits, begins, apart, 2, classes, n, missing)
            _gradient_of_few(x_0, x_1, x_2, label, elsewhere, more, few)
            for c in range(classes):
                softmax.copy(part(few, c * _APART, n), row(p, c, n, n))
            tiles.store(gradient, bfloat16, rows, first, plane, p, tile, n)
            continue
        softmax.exponentials(logits, begins, apart, classes, row(work, 0, block, n), inverse, p)
        _inverse(inverse, label)
        along = row(work, 2, block, n)
        softmax.fill(along, f32(0.0))
        for c in range(classes):
            both, predicted = by_both[image * classes + c], by_predicted[image * classes + c]
            _add_slope(row(p, c, n, n), label, i32(c), both + predicted, predicted, along)
        for c in range(classes):
            both, predicted = by_both[image * classes + c], by_predicted[image * classes + c]
            _gradient(row(p, c, n, n), inverse, label, i32(c), both + predicted, predicted, along)
        tiles.store(gradient, bfloat16, rows, first, plane, p, tile, n)
    settle()
    hold(floats)
    hold(integers)
