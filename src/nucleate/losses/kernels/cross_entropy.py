"""The fast cross entropy: one pass over the logits gives the total and writes the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.kernels.dispatch import kernels, plain_cpu_tensor
from nucleate.losses.kernels.layout import IGNORED, Layout, bytes_of, layout_of, words
from nucleate.losses.kernels.memory import unwritten
from nucleate.losses.kernels.threads import over_blocks
from nucleate.losses.kernels.total import total

_INT32 = 1 << 31  # the kernels hold labels in 32 bits


@dataclass(frozen=True, slots=True)
class _Job:
    """One call with class indices, ready for the kernel."""

    module: ModuleType
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

    def weight(self, by_weight: bool) -> tuple[float, float, _Job]:
        """The weight of all pixels, how many labels are out of range, and the job with labels that are read faster."""
        fits = self.size > 1 and self.layout.classes < IGNORED
        narrow = np.empty(self.layout.pixels if fits else 0, np.uint8)
        pixels = self.layout.pixels
        each, extras, rest = self.each, self.extras, self.rest
        if not by_weight:
            each, extras, rest = np.empty(0, np.float32), np.ones_like(extras), np.float32(0)

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            self.module.index_weight(
                self.target, self.size, self.mask, each, extras, rest, self.alike or not by_weight, self.ignore,
                self.ignores, narrow, begin * 1024, min(end * 1024, pixels), sums,
            )  # fmt: skip

        _, weight, wrong = over_blocks(-(-pixels // 1024), 3, work)
        if not fits:
            return float(weight), float(wrong), self
        every = np.empty(0, np.bool_)
        job = replace(self, target=narrow, size=1, mask=every, ignore=IGNORED, ignores=True)
        return float(weight), float(wrong), job

    def run(self, logits: Tensor, scale: float, wanted: bool) -> tuple[float, float, Tensor | None]:
        """The total, how many labels are out of range, and `scale` times the gradient."""
        x, at = logits.detach(), self.layout
        gradient = unwritten(x) if wanted else None
        source = words(x, at.rows, self.dim)
        into = source if gradient is None else words(gradient, at.rows, self.dim)

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            self.module.index_tiles(
                source, into, x.dtype == torch.bfloat16, at.rows, at.classes, at.plane, at.block, self.target,
                self.size, self.mask, self.each, self.hits, self.misses, self.extras, self.rest, self.alike,
                self.ignore, self.ignores, begin, end, np.float32(scale), wanted, sums,
            )  # fmt: skip

        value, _, wrong = over_blocks(at.blocks, 3, work).tolist()
        return value, wrong, gradient


def index_total(
    logits: Tensor,
    target: Tensor,
    dim: int,
    mask: Tensor | None,
    weight: Tensor | None,
    each: Tensor | None,
    ignore_index: int | None,
    smoothing: float,
    normalize: str,
    mean: bool,
    twin: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor] | None:
    """(total, weight) as the plain twin gives it, or None where only the twin will do.

    None also for labels out of range: the twin says what is wrong with them. `mean` says that the total will be
    divided by the weight, and so what the backward pass will bring.
    """
    job = _job(logits, target, dim, mask, weight, each, ignore_index, smoothing)
    if job is None:
        return None
    by_weight = normalize == "weight"
    if weight is None and each is None and ignore_index is None:
        # Every pixel weighs 1. Labels in error are found in the pass itself.
        amount = float(job.layout.pixels if mask is None else mask.count_nonzero())
    else:
        amount, wrong, job = job.weight(by_weight)
        if wrong:
            return None
    wanted = logits.requires_grad and torch.is_grad_enabled()
    # In float32, as the division's own backward pass computes it: equal numbers need no second pass.
    weighed = torch.tensor(amount, dtype=torch.float32)
    scale = float(1 / weighed) if mean and amount > 0 else 1.0
    value, wrong, gradient = job.run(logits, scale, wanted)
    if wrong:
        return None
    scalar = torch.tensor(value, dtype=torch.float32)
    if not wanted:
        return scalar, weighed

    def again(factor: float) -> list[Tensor | None]:
        return [job.run(logits, factor, True)[2]]

    return total(scalar, [gradient], scale, again, twin, [logits]), weighed


def soft_total(
    logits: Tensor,
    target: Tensor,
    dim: int,
    mask: Tensor | None,
    weight: Tensor | None,
    each: Tensor | None,
    smoothing: float,
    normalize: str,
    mean: bool,
    tolerance: float,
    twin: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor] | None:
    """The same for a target of probabilities in the shape of the logits, whose sums may be off by `tolerance`."""
    constants = [x for x in (target, mask, weight, each) if x is not None]
    if any(x.requires_grad for x in constants) or not all(plain_cpu_tensor(x) for x in (logits, *constants)):
        return None
    at, other = layout_of(logits, dim, tiles=3), layout_of(target, dim, tiles=3)
    module = None if at is None or other is None or at.rows != other.rows else kernels("soft_kernels")
    if at is None or module is None:
        return None
    shares = np.ones(at.classes, np.float32) if weight is None else weight.float().numpy()
    chosen, pixel = _flat_mask(mask), _flat_weights(each)
    narrow = [x.dtype == torch.bfloat16 for x in (logits, target)]
    sources = [words(x, at.rows, dim) for x in (logits, target)]
    wanted = logits.requires_grad and torch.is_grad_enabled()

    def run(factor: float, write: bool) -> tuple[NDArray[np.float64], Tensor | None]:
        gradient = unwritten(logits.detach()) if write else None
        into = sources[0] if gradient is None else words(gradient, at.rows, dim)

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            module.soft_tiles(
                *sources, into, *narrow, at.rows, at.classes, at.plane, at.block, chosen, pixel, shares,
                np.float32(1 - smoothing), np.float32(smoothing / at.classes), normalize == "weight",
                np.float32(tolerance), begin, end, np.float32(factor), write, sums,
            )  # fmt: skip

        return over_blocks(at.blocks, 3, work), gradient

    # Without class weights a target weighs 1, so the weight is known before the pass that would count it.
    simple = mean and weight is None and mask is None and each is None
    scale = float(1 / torch.tensor(at.pixels, dtype=torch.float32)) if simple else 1.0
    (value, amount, wrong), gradient = run(scale, wanted)
    if wrong:
        return None
    weighed = torch.tensor(at.pixels if simple else amount, dtype=torch.float32)
    scalar = torch.tensor(value, dtype=torch.float32)
    if not wanted:
        return scalar, weighed
    return total(scalar, [gradient], scale, lambda factor: [run(factor, True)[1]], twin, [logits]), weighed


def _flat_mask(mask: Tensor | None) -> NDArray[np.bool_]:
    return np.empty(0, np.bool_) if mask is None else mask.contiguous().view(-1).numpy()


def _flat_weights(each: Tensor | None) -> NDArray[np.float32]:
    return np.empty(0, np.float32) if each is None else each.float().contiguous().view(-1).numpy()


def _job(
    logits: Tensor,
    target: Tensor,
    dim: int,
    mask: Tensor | None,
    weight: Tensor | None,
    each: Tensor | None,
    ignore_index: int | None,
    smoothing: float,
) -> _Job | None:
    """The call in the kernel's terms, or None where it cannot take it."""
    constants = [x for x in (target, mask, weight, each) if x is not None]
    if any(x.requires_grad or not plain_cpu_tensor(x) for x in constants) or not plain_cpu_tensor(logits):
        return None
    layout = layout_of(logits, dim)
    if layout is None or not -_INT32 <= (ignore_index or 0) < _INT32:
        return None
    module = kernels("cross_entropy_kernels")
    if module is None:
        return None
    labels, size = bytes_of(target)
    shares = np.ones(layout.classes, np.float32) if weight is None else weight.float().numpy()
    misses, extras = shares * np.float32(smoothing / layout.classes), shares * np.float32(1 - smoothing)
    return _Job(
        module, layout, dim, labels, size, _flat_mask(mask), _flat_weights(each), misses + extras, misses, extras,
        misses.sum(dtype=np.float32), weight is None, ignore_index or 0, ignore_index is not None,
    )  # fmt: skip
