"""The fast Lovász extension: a compiled sort of packed keys, which leaves out the pixels that cost nothing."""

from __future__ import annotations

from types import ModuleType
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.fused.ready import kernels, plain_cpu_tensor
from nucleate.losses.fused.threads import over_blocks

_FEWEST = 1 << 13  # errors in all rows, below which torch.sort is as fast
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
    # PyTorch gives `Function.apply` no types.
    result: Tensor = _Extension.apply(errors, positive, module)  # type: ignore[no-untyped-call]
    return result


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
