"""The fast KL and Jensen-Shannon divergence of two tensors of logits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.kernels.dispatch import kernels, plain_cpu_tensor
from nucleate.losses.kernels.layout import layout_of, words
from nucleate.losses.kernels.memory import unwritten
from nucleate.losses.kernels.threads import over_blocks
from nucleate.losses.kernels.total import Twin, total


def divergence_total(
    x: Tensor, y: Tensor, dim: int, mask: Tensor | None, each: Tensor | None, symmetric: bool, scale: float, twin: Twin
) -> Tensor | None:
    """sum of KL(softmax x || softmax y), or of JS where `symmetric`; None where only the twin will do.

    `scale` is what the backward pass will bring; twin(x, y) is the plain version.
    """
    constants = [c for c in (mask, each) if c is not None]
    if any(c.requires_grad for c in constants) or not all(plain_cpu_tensor(c) for c in (x, y, *constants)):
        return None
    at, other = layout_of(x, dim, tiles=5), layout_of(y, dim, tiles=5)
    module = None if at is None or other is None or at.rows != other.rows else kernels("divergence_kernels")
    if at is None or module is None:
        return None
    chosen = np.empty(0, np.bool_) if mask is None else mask.contiguous().view(-1).numpy()
    weight = np.empty(0, np.float32) if each is None else each.float().contiguous().view(-1).numpy()
    sources = [words(t, at.rows, dim) for t in (x, y)]
    narrow = [t.dtype == torch.bfloat16 for t in (x, y)]
    needed = [t.requires_grad and torch.is_grad_enabled() for t in (x, y)]

    def run(factor: float, wanted: list[bool]) -> tuple[float, list[Tensor | None]]:
        made = [unwritten(t.detach()) if need else None for t, need in zip((x, y), wanted, strict=True)]
        into = [s if g is None else words(g, at.rows, dim) for s, g in zip(sources, made, strict=True)]

        def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            module.divergence_tiles(
                *sources, *into, *narrow, at.rows, at.classes, at.plane, at.block, chosen, weight, symmetric,
                begin, end, np.float32(factor), *wanted, sums,
            )  # fmt: skip

        return float(over_blocks(at.blocks, 1, work)[0]), made

    value, made = run(scale, needed)
    scalar = torch.tensor(value, dtype=torch.float32)
    if not any(needed):
        return scalar
    return total(scalar, made, scale, lambda factor: run(factor, needed)[1], twin, [x, y])
