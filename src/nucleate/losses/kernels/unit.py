"""Rows of length 1 whose backward pass holds nothing but the gradient: PyTorch's own holds three times as much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from nucleate.losses.differentiable import applied
from nucleate.losses.kernels.dispatch import plain_tensor

_FEWEST = 1 << 20  # numbers
_ROWS = 4096  # at a time

Plain = Callable[[Tensor], Tensor]


def unit_rows(x: Tensor, plain: Plain) -> Tensor | None:
    """plain(x), which divides rows by their length and leaves those of zeros; None where only that will do."""
    if x.dtype != torch.float32 or x.ndim != 2 or x.numel() < _FEWEST or not (x.requires_grad and plain_tensor(x)):
        return None
    return applied(_Unit, x, plain)


@final
class _Unit(torch.autograd.Function):
    """With y = x / |x| the gradient is (g - y (y . g)) / |x|."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plain: Plain) -> Tensor:
        ctx.save_for_backward(x)
        ctx.plain = plain
        return plain(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        given = gradients[0]
        if torch.is_grad_enabled():
            (found,) = torch.autograd.grad(ctx.plain(x), x, given, create_graph=True)
            return found, None
        result = torch.empty_like(x)
        for of_x, of_g, out in zip(*(t.split(_ROWS) for t in (x, given, result)), strict=True):
            length = torch.linalg.vector_norm(of_x, dim=1, keepdim=True)
            length.masked_fill_(length == 0, 1.0)
            y = of_x / length
            torch.addcmul(of_g, y, (y * of_g).sum(1, keepdim=True), value=-1, out=out).div_(length)
        return result, None
