"""What overlap losses count of classes that do not exclude each other, and the gradient by their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.autograd import Twin
from nucleate.losses.kernels.compiler import kernel, step
from nucleate.losses.kernels.intrinsics import borrowed, choose, fence, keep_alive, part
from nucleate.losses.kernels.memory import Layout, empty_like, flat_mask, words
from nucleate.losses.kernels.overlap import counted
from nucleate.losses.kernels.scalars import LOG2_E, exp2, f32
from nucleate.losses.kernels.target_values import laid_out, load_numbers
from nucleate.losses.kernels.threads import over_blocks
from nucleate.losses.kernels.tiles import add_up, block_at, fill, load, row, store


@step
def _select(mask: Any, chosen: Any) -> None:
    for j in range(chosen.size):
        chosen[j] = choose(mask[j], f32(1.0), f32(0.0))


@step
def _sums(x: Any, t: Any, chosen: Any) -> Any:
    """Overlap, predicted and labelled, and how many targets are not in 0..1; 0 where not selected, whatever x holds."""
    overlap, predicted, labelled, wrong = f32(0.0), f32(0.0), f32(0.0), f32(0.0)
    for j in range(x.size):
        e = exp2(-abs(x[j]) * LOG2_E)
        one = f32(1.0) / (f32(1.0) + e)
        out = chosen[j] == 0
        p = choose(out, f32(0.0), choose(x[j] > 0, one, e * one))
        y = choose(out, f32(0.0), t[j])
        overlap += choose((p <= y) & (y > 0), p, y)
        predicted += p
        labelled += y
        wrong += choose((y >= 0) & (y <= 1), f32(0.0), f32(1.0))
    return overlap, predicted, labelled, wrong


@step
def _gradient(x: Any, t: Any, chosen: Any, by_both: Any, by_predicted: Any, out: Any) -> None:
    for j in range(x.size):
        e = exp2(-abs(x[j]) * LOG2_E)
        one = f32(1.0) / (f32(1.0) + e)
        p = choose(x[j] > 0, one, e * one)
        slope = by_predicted + choose((p <= t[j]) & (t[j] > 0), by_both, f32(0.0))
        out[j] = choose(chosen[j] == 0, f32(0.0), e * one * one * slope)


@kernel(
    "void(int16[::1], boolean, boolean, int64, int64, int64, uint8[::1], int64, boolean, boolean[::1], int64, int64, "
    "float64[::1])"
)
def sigmoid_counts(
    x: Any, bfloat16: bool, rows: bool, classes: int, plane: int, block: int, target: Any, kind: int, rows_t: bool,
    mask: Any, begin: int, end: int, out: Any,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`, added to out[image, :]: overlap, predicted, labelled of each class; selected; wrong."""
    x, target, mask = borrowed(x), borrowed(target), borrowed(mask)
    size = classes * block
    floats = np.empty(3 * size + block, f32)
    columns = 3 * classes + 2
    for b in range(begin, end):
        image, n, pixel0, first = block_at(b, plane, block, classes, rows)
        tile, t = part(floats, 0, classes * n), part(floats, size, classes * n)
        spare, chosen = part(floats, 2 * size, classes * n), part(floats, 3 * size, n)
        fill(chosen, f32(1.0))
        if mask.size:
            _select(part(mask, pixel0, n), chosen)
        load(x, bfloat16, rows, first, plane, tile, spare, n)
        load_numbers(target, kind, rows_t, block_at(b, plane, block, classes, rows_t)[3], plane, t, spare, n)
        into = part(out, image * columns, columns)
        into[3 * classes] += add_up(chosen)
        for c in range(classes):
            overlap, predicted, labelled, wrong = _sums(row(tile, c, n, n), row(t, c, n, n), chosen)
            into[c] += overlap
            into[classes + c] += predicted
            into[2 * classes + c] += labelled
            into[3 * classes + 1] += wrong
    keep_alive(floats)


@kernel(
    "void(int16[::1], int16[::1], boolean, boolean, int64, int64, int64, uint8[::1], int64, boolean, boolean[::1], "
    "float32[::1], float32[::1], int64, int64)"
)
def sigmoid_gradient(
    x: Any, gradient: Any, bfloat16: bool, rows: bool, classes: int, plane: int, block: int, target: Any,
    kind: int, rows_t: bool, mask: Any, by_both: Any, by_predicted: Any, begin: int, end: int,
) -> None:  # fmt: skip
    """Blocks `begin` to `end`; by_both and by_predicted hold the derivative by the counts of (image, class)."""
    x, gradient, target, mask = borrowed(x), borrowed(gradient), borrowed(target), borrowed(mask)
    size = classes * block
    floats = np.empty(4 * size + block, f32)
    for b in range(begin, end):
        image, n, pixel0, first = block_at(b, plane, block, classes, rows)
        tile, t = part(floats, 0, classes * n), part(floats, size, classes * n)
        spare, g = part(floats, 2 * size, classes * n), part(floats, 3 * size, classes * n)
        chosen = part(floats, 4 * size, n)
        fill(chosen, f32(1.0))
        if mask.size:
            _select(part(mask, pixel0, n), chosen)
        load(x, bfloat16, rows, first, plane, tile, spare, n)
        load_numbers(target, kind, rows_t, block_at(b, plane, block, classes, rows_t)[3], plane, t, spare, n)
        for c in range(classes):
            at = image * classes + c
            _gradient(row(tile, c, n, n), row(t, c, n, n), chosen, by_both[at], by_predicted[at], row(g, c, n, n))
        store(gradient, bfloat16, rows, first, plane, g, spare, n)
    fence()
    keep_alive(floats)


@dataclass(frozen=True, slots=True)
class _Job:
    layout: Layout
    images: int
    target: tuple[NDArray[np.uint8], int, bool]
    mask: NDArray[np.bool_]

    def _where(self, logits: Tensor) -> tuple[bool, bool, int, int, int]:
        at = self.layout
        return logits.dtype == torch.bfloat16, at.rows, at.classes, at.plane, at.block

    def count(self, logits: Tensor) -> NDArray[np.float64]:
        """(images, 3 C + 2), as `sigmoid_counts` adds them up."""
        at, source = self.layout, words(logits, self.layout.rows, 1)

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            sigmoid_counts(source, *self._where(logits), *self.target, self.mask, begin, end, sums)

        return over_blocks(at.blocks, self.images * (3 * at.classes + 2), work, at.least).reshape(self.images, -1)

    def gradient(self, logits: Tensor, by_counts: Tensor) -> Tensor:
        at, source = self.layout, words(logits, self.layout.rows, 1)
        result = empty_like(logits.detach())
        into = words(result, at.rows, 1)
        by_both, by_predicted = (x.flatten().contiguous().numpy() for x in by_counts.detach().float().unbind(1))

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            sigmoid_gradient(
                source, into, *self._where(logits), *self.target, self.mask, by_both, by_predicted, begin, end
            )

        over_blocks(at.blocks, 1, work, at.least)
        return result


def region_counts(
    layout: Layout, logits: Tensor, target: Tensor, mask: Tensor | None, twin: Twin
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Of logits (N, C, ...) and a target of that shape: what `overlap.region_counts` gives; None for one outside 0..1.

    twin(logits) -> (N, 2, C) is the plain version.
    """
    job = _Job(layout, len(logits), laid_out(target, 1, layout), flat_mask(mask))
    found = job.count(logits)
    return None if found[:, -1].any() else counted(found, layout.classes, job, twin, logits, target, mask)
