"""The counts of overlap losses straight from logits and class indices; nothing but the gradient is held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.differentiable import applied
from nucleate.losses.kernels.dispatch import kernels, plain_cpu_tensor
from nucleate.losses.kernels.layout import IGNORED, Layout, bytes_of, layout_of, words
from nucleate.losses.kernels.memory import unwritten
from nucleate.losses.kernels.threads import over_blocks

Twin = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Job:
    module: ModuleType
    layout: Layout
    images: int
    labels: tuple[NDArray[np.uint8], int, NDArray[np.bool_], int, bool]

    def count(self, logits: Tensor) -> tuple[NDArray[np.float64], _Job]:
        """(images, 3 C + 2): overlap, predicted, labelled pixels of each class; selected pixels; labels in error.

        And the job with labels that are read faster.
        """
        at, source = self.layout, words(logits, self.layout.rows, 1)
        fits = at.classes < IGNORED
        narrow = unwritten(torch.empty(at.pixels if fits else 0, dtype=torch.uint8, device="meta")).numpy()

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            self.module.count_tiles(
                source, logits.dtype == torch.bfloat16, at.rows, at.classes, at.plane, at.block, *self.labels,
                narrow, begin, end, sums,
            )  # fmt: skip

        found = over_blocks(at.blocks, self.images * (3 * at.classes + 2), work).reshape(self.images, -1)
        return found, replace(self, labels=(narrow, 1, np.empty(0, np.bool_), IGNORED, True)) if fits else self

    def gradient(self, logits: Tensor, by_counts: Tensor) -> Tensor:
        at, source = self.layout, words(logits, self.layout.rows, 1)
        result = unwritten(logits.detach())
        into = words(result, at.rows, 1)
        by_both, by_predicted = (x.flatten().numpy() for x in by_counts.detach().float().unbind(1))

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            self.module.gradient_tiles(
                source, into, logits.dtype == torch.bfloat16, at.rows, at.classes, at.plane, at.block,
                *self.labels, by_both, by_predicted, begin, end,
            )  # fmt: skip

        over_blocks(at.blocks, 1, work)
        return result


def region_counts(
    logits: Tensor, target: Tensor, mask: Tensor | None, ignore_index: int | None, twin: Twin
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Of logits (N, C, ...) and indices: (N, 2, C) overlap and predicted, (N, C) labelled, (N,) selected pixels.

    None where only the twin will do, which is said as twin(logits) -> (N, 2, C); None also for labels out of range.
    """
    constants = [x for x in (target, mask) if x is not None]
    if not all(plain_cpu_tensor(x) for x in (logits, *constants)):
        return None
    layout = layout_of(logits, 1, by_image=True)
    module = None if layout is None else kernels("region_kernels")
    if layout is None or module is None:
        return None
    flat, size = bytes_of(target)
    chosen = np.empty(0, np.bool_) if mask is None else mask.contiguous().view(-1).numpy()
    ignored = 0 if ignore_index is None else ignore_index
    job = _Job(module, layout, len(logits), (flat, size, chosen, ignored, ignore_index is not None))
    found, job = job.count(logits)
    if found[:, -1].any():
        return None
    sums = torch.from_numpy(found[:, :-2].reshape(len(logits), 3, layout.classes)).float()
    both = applied(_Counts, sums[:, :2].contiguous(), job, twin, logits)
    return both, sums[:, 2], torch.from_numpy(found[:, -2]).float()


@final
class _Counts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, job: _Job, twin: Twin, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.job, ctx.twin = job, twin
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None, Tensor]:
        (logits,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            (found,) = torch.autograd.grad(ctx.twin(logits), logits, gradients[0], create_graph=True)
            return None, None, None, found
        return None, None, None, ctx.job.gradient(logits, gradients[0])
