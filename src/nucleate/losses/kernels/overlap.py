"""What overlap losses count, for each image and class, and the gradient by the logits from that by the counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.autograd import Twin, applied, save
from nucleate.losses.kernels.compiler import kernel, step
from nucleate.losses.kernels.intrinsics import borrowed, choose, fence, keep_alive, larger, part
from nucleate.losses.kernels.labels import count, count_selected, narrow, read_labels
from nucleate.losses.kernels.memory import IGNORED, Layout, bytes_of, empty_like, flat_mask, words
from nucleate.losses.kernels.scalars import LOG2_E, exp2, f32, i32
from nucleate.losses.kernels.threads import over_blocks
from nucleate.losses.kernels.tiles import block_at, copy, exponentials, fill, load, row, store
from nucleate.losses.validation import batched


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
    x, target, mask, labels = borrowed(x), borrowed(target), borrowed(mask), borrowed(labels)
    size_of = classes * block
    floats, integers = np.empty(2 * size_of + 3 * block, f32), np.empty(block, i32)
    tile_of, p_of = part(floats, 0, size_of), part(floats, size_of, size_of)
    work, label_of = part(floats, 2 * size_of, 3 * block), borrowed(integers)
    missing = row(work, 2, block, block)
    fill(missing, f32(-np.inf))
    # Planes of float32 are read where they are; all else goes through a tile.
    direct = not (rows or bfloat16)
    logits = x.view(f32) if direct else tile_of
    columns = 3 * classes + 2
    for b in range(begin, end):
        image, n, pixel0, first = block_at(b, plane, block, classes, rows)
        tile, p, label = part(tile_of, 0, classes * n), part(p_of, 0, classes * n), part(label_of, 0, n)
        inverse = row(work, 1, block, n)
        into = part(out, image * columns, columns)
        into[3 * classes + 1] += read_labels(target, size, mask, pixel0, classes, ignore, ignores, label)
        into[3 * classes] += count_selected(label)
        if labels.size:
            narrow(label, part(labels, pixel0, n))
        begins, apart = (first, plane) if direct else (0, n)
        if not direct:
            load(x, bfloat16, rows, first, plane, tile, p, n)
        if classes <= _FEW:
            x_0 = _class_of_few(logits, begins, apart, 0, classes, n, missing)
            x_1 = _class_of_few(logits, begins, apart, 1, classes, n, missing)
            x_2 = _class_of_few(logits, begins, apart, 2, classes, n, missing)
            _sums_of_few(x_0, x_1, x_2, label, into, classes)
            continue
        exponentials(logits, begins, apart, classes, row(work, 0, block, n), inverse, p)
        _inverse(inverse, label)
        for c in range(classes):
            overlap, predicted = _sums(row(p, c, n, n), inverse, label, i32(c))
            into[c] += overlap
            into[classes + c] += predicted
            into[2 * classes + c] += count(label, i32(c))
    keep_alive(floats)
    keep_alive(integers)


@kernel(
    "void(int16[::1], int16[::1], boolean, boolean, int64, int64, int64, uint8[::1], int64, "
    "boolean[::1], int64, boolean, float32[::1], float32[::1], int64, int64)"
)
def gradient_tiles(
    x: Any, gradient: Any, bfloat16: bool, rows: bool, classes: int, plane: int, block: int, target: Any,
    size: int, mask: Any, ignore: int, ignores: bool, by_both: Any, by_predicted: Any, begin: int, end: int,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`; by_both and by_predicted hold the derivative by the counts of (image, class)."""
    x, gradient, target, mask = borrowed(x), borrowed(gradient), borrowed(target), borrowed(mask)
    size_of = classes * block
    floats, integers = np.empty(2 * size_of + 4 * block + _FEW * _APART, f32), np.empty(block, i32)
    tile_of, p_of = part(floats, 0, size_of), part(floats, size_of, size_of)
    work, label_of = part(floats, 2 * size_of, 4 * block), borrowed(integers)
    few, missing = part(floats, 2 * size_of + 4 * block, _FEW * _APART), row(work, 3, block, block)
    fill(missing, f32(-np.inf))
    # Planes of float32 are read where they are; all else goes through a tile.
    direct = not (rows or bfloat16)
    logits = x.view(f32) if direct else tile_of
    for b in range(begin, end):
        image, n, pixel0, first = block_at(b, plane, block, classes, rows)
        tile, p, label = part(tile_of, 0, classes * n), part(p_of, 0, classes * n), part(label_of, 0, n)
        inverse = row(work, 1, block, n)
        read_labels(target, size, mask, pixel0, classes, ignore, ignores, label)
        begins, apart = (first, plane) if direct else (0, n)
        if not direct:
            load(x, bfloat16, rows, first, plane, tile, p, n)
        if classes <= _FEW:
            elsewhere = _of_few(by_predicted, image * classes, classes)
            more = _of_few(by_both, image * classes, classes)
            x_0 = _class_of_few(logits, begins, apart, 0, classes, n, missing)
            x_1 = _class_of_few(logits, begins, apart, 1, classes, n, missing)
            x_2 = _class_of_few(logits, begins, apart, 2, classes, n, missing)
            _gradient_of_few(x_0, x_1, x_2, label, elsewhere, more, few)
            for c in range(classes):
                copy(part(few, c * _APART, n), row(p, c, n, n))
            store(gradient, bfloat16, rows, first, plane, p, tile, n)
            continue
        exponentials(logits, begins, apart, classes, row(work, 0, block, n), inverse, p)
        _inverse(inverse, label)
        along = row(work, 2, block, n)
        fill(along, f32(0.0))
        for c in range(classes):
            both, predicted = by_both[image * classes + c], by_predicted[image * classes + c]
            _add_slope(row(p, c, n, n), label, i32(c), both + predicted, predicted, along)
        for c in range(classes):
            both, predicted = by_both[image * classes + c], by_predicted[image * classes + c]
            _gradient(row(p, c, n, n), inverse, label, i32(c), both + predicted, predicted, along)
        store(gradient, bfloat16, rows, first, plane, p, tile, n)
    fence()
    keep_alive(floats)
    keep_alive(integers)


@dataclass(frozen=True, slots=True)
class _OverlapJob:
    layout: Layout
    images: int
    labels: tuple[NDArray[np.uint8], int, NDArray[np.bool_], int, bool]

    def count(self, logits: Tensor) -> tuple[NDArray[np.float64], _OverlapJob]:
        """(images, 3 C + 2): overlap, predicted, labelled pixels of each class; selected pixels; labels in error.

        And the job with labels that are read faster.
        """
        at, source = self.layout, words(logits, self.layout.rows, 1)
        fits = at.classes < IGNORED
        narrow = empty_like(torch.empty(at.pixels if fits else 0, dtype=torch.uint8, device="meta")).numpy()

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            count_tiles(
                source, logits.dtype == torch.bfloat16, at.rows, at.classes, at.plane, at.block, *self.labels,
                narrow, begin, end, sums,
            )  # fmt: skip

        found = over_blocks(at.blocks, self.images * (3 * at.classes + 2), work, at.least).reshape(self.images, -1)
        return found, replace(self, labels=(narrow, 1, np.empty(0, np.bool_), IGNORED, True)) if fits else self

    def gradient(self, logits: Tensor, by_counts: Tensor) -> Tensor:
        at, source = self.layout, words(logits, self.layout.rows, 1)
        result = empty_like(logits.detach())
        into = words(result, at.rows, 1)
        by_both, by_predicted = (x.flatten().numpy() for x in by_counts.detach().float().unbind(1))

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            gradient_tiles(
                source, into, logits.dtype == torch.bfloat16, at.rows, at.classes, at.plane, at.block,
                *self.labels, by_both, by_predicted, begin, end,
            )  # fmt: skip

        over_blocks(at.blocks, 1, work, at.least)
        return result


def region_counts(
    layout: Layout, logits: Tensor, target: Tensor, mask: Tensor | None, ignore_index: int | None, twin: Twin
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Of logits (N, C, ...) and indices: (N, 2, C) overlap and predicted, (N, C) labelled, (N,) selected pixels.

    None for labels out of range. twin(logits) -> (N, 2, C) is the plain version.
    """
    flat, size = bytes_of(target)
    ignored = 0 if ignore_index is None else ignore_index
    job = _OverlapJob(layout, len(logits), (flat, size, flat_mask(mask), ignored, ignore_index is not None))
    found, job = job.count(logits)
    if found[:, -1].any():
        return None
    return counted(found, layout.classes, job, twin, logits, target, mask)


class Job(Protocol):
    """What counted knows how to give the gradient, too."""

    def gradient(self, logits: Tensor, by_counts: Tensor) -> Tensor: ...


def counted(
    found: NDArray[np.float64], classes: int, job: Job, twin: Twin, logits: Tensor, target: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The columns of `found` as tensors: overlap and predicted with their gradient, labelled, selected."""
    sums = torch.from_numpy(found[:, :-2].reshape(len(logits), 3, classes)).float()
    both = applied(_Counts, sums[:, :2].contiguous(), job, twin, logits, target, mask)
    return both, sums[:, 2], torch.from_numpy(found[:, -2]).float()


@final
class _Counts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, job: Job, twin: Twin, logits: Tensor, target: Tensor, mask: Tensor | None
    ) -> Tensor:
        save(ctx, [logits], [target, mask])
        ctx.job, ctx.twin = job, twin
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits = ctx.saved_tensors[0]
        if torch.is_grad_enabled() or batched(gradients[0]):  # batched gradients are no memory for a kernel
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                (found,) = torch.autograd.grad(ctx.twin(logits), logits, gradients[0], create_graph=again)
            return None, None, None, found, None, None
        return None, None, None, ctx.job.gradient(logits, gradients[0]), None, None
