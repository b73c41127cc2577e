"""The fast Lovász extension: a compiled sort of packed keys, which leaves out the pixels that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.differentiable import applied
from nucleate.losses.kernels.dispatch import kernels, plain_cpu_tensor
from nucleate.losses.kernels.memory import unwritten
from nucleate.losses.kernels.threads import over_blocks

_FEWEST = 1 << 13  # errors in all rows, below which torch.sort is as fast
_CHUNK = 1 << 16  # pixels that one thread takes at a time
_MANY = 8  # rows, from which on a thread takes whole ones
_MOST = 1 << 31  # pixels in a row: an index and a label share 32 bits


def extension(errors: Tensor, positive: Tensor) -> Tensor | None:
    """The extension along the last axis as the plain version gives it, or None where only that will do."""
    if errors.dtype != torch.float32 or errors.numel() < _FEWEST or errors.shape[-1] >= _MOST:
        return None
    if not (plain_cpu_tensor(errors) and plain_cpu_tensor(positive)):
        return None
    module = kernels("lovasz_kernels")
    if module is None:
        return None
    return applied(_Extension, errors, positive, module)


def _together(
    module: ModuleType, errors: NDArray[np.float32], hot: NDArray[np.bool_], slope: NDArray[np.float32]
) -> float:
    """What `module.row` computes, by all threads: chunks of pixels go to their bins, then bins are finished."""
    edges = [*range(0, len(errors), _CHUNK), len(errors)]
    chunks = [slice(a, b) for a, b in pairwise(edges)]
    found = np.empty((len(chunks), 4), np.int64)

    def each_chunk(work: Callable[[int, slice], None]) -> None:
        def run(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            for k in range(begin, end):
                work(k, chunks[k])

        over_blocks(len(chunks), 1, run)

    each_chunk(lambda k, at: module.survey(errors[at], hot[at], found[k]))
    low, high, total = int(found[:, 0].min()), int(found[:, 1].max()), int(found[:, 3].sum())
    if found[:, 2].any():
        return np.nan
    if not high:
        return 0.0
    counts, positives = (np.zeros((len(chunks), module.BINS), np.int64) for _ in range(2))
    each_chunk(lambda k, at: module.count(errors[at], hot[at], low, high, counts[k], positives[k]))
    # Bin by bin, and in each of them chunk by chunk.
    ends = counts.T.cumsum().reshape(-1, len(chunks)).T
    offsets = np.ascontiguousarray(ends - counts)
    begins = np.append(offsets[0], ends[-1, -1])
    founds = np.append(0, positives.sum(0).cumsum())
    keys = unwritten(torch.empty(len(errors), dtype=torch.int64, device="meta")).numpy().view(np.uint64)
    each_chunk(lambda k, at: module.place(errors[at], hot[at], at.start, low, high, offsets[k], keys))

    def finish(begin: int, end: int, sums: NDArray[np.float64]) -> None:
        sums[0] += module.finish(keys, begins, founds, total, low, high, begin, end, slope)

    return float(over_blocks(module.BINS, 1, finish)[0])


@final
class _Extension(torch.autograd.Function):
    """Linear in the errors as long as their order stays, so its slope is all that a second derivative needs too."""

    @staticmethod
    def forward(ctx: Any, errors: Tensor, positive: Tensor, module: ModuleType) -> Tensor:
        length = errors.shape[-1]
        source = errors.detach().reshape(-1, length).contiguous().numpy()
        hot = (positive.detach() > 0).reshape(-1, length).contiguous().numpy()
        slope = np.zeros_like(source)
        value = np.empty(len(source), np.float32)
        if len(source) < _MANY and length >= 2 * _CHUNK:
            for row in range(len(source)):
                value[row] = _together(module, source[row], hot[row], slope[row])
        else:

            def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
                for row in range(begin, end):
                    value[row] = module.row(source[row], hot[row], slope[row])

            over_blocks(len(source), 1, work)
        ctx.save_for_backward(torch.from_numpy(slope).view(errors.shape))
        return torch.from_numpy(value).view(errors.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0].unsqueeze(-1) * slope, None, None
