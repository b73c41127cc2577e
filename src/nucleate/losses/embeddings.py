"""Embeddings as rows: their checks, their similarities, and rows of length 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.autograd import applied
from nucleate.losses.kernels.dispatch import plain_tensor
from nucleate.losses.options import Positive, Reduction, Similarity
from nucleate.losses.reduction import held, reduce, select
from nucleate.losses.validation import (
    batched,
    checking,
    require_choice,
    require_floating,
    require_mask,
    require_shape,
    require_weights,
    shape,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_FEWEST = 1 << 20  # numbers, from which on the backward pass of `unit` saves memory
_ROWS = 4096  # at a time


def unit(x: Tensor) -> Tensor:
    """Rows, along the last axis, scaled to length 1; a row of zeros stays 0 and has a finite gradient."""
    if x.dtype != torch.float32 or x.ndim != 2 or x.numel() < _FEWEST or not (x.requires_grad and plain_tensor(x)):
        return _unit(x)
    return applied(_Unit, x)


def _unit(x: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length == 0, 1.0, length)


@final
class _Unit(torch.autograd.Function):
    """With y = x / |x| the gradient is (g - y (y . g)) / |x|, and nothing else is held.

    PyTorch's own backward pass holds three times as much.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _unit(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        given = gradients[0]
        if torch.is_grad_enabled() or batched(given):  # batched gradients cannot be written into memory
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                found: Tensor
                (found,) = torch.autograd.grad(_unit(x), x, given, create_graph=again)
            return found
        result = torch.empty_like(x)
        for of_x, of_g, out in zip(*(t.split(_ROWS) for t in (x, given, result)), strict=True):
            length = torch.linalg.vector_norm(of_x, dim=1, keepdim=True)
            length.masked_fill_(length == 0, 1.0)
            y = of_x / length
            torch.addcmul(of_g, y, (y * of_g).sum(1, keepdim=True), value=-1, out=out).div_(length)
        return result


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T in the type that sums are held in, also inside a region of automatic mixed precision."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.transpose(-1, -2)


def rows(
    loss: str,
    named: dict[str, Tensor],
    similarity: Similarity,
    mask: Tensor | None,
    weight: Tensor | None,
    check: bool | None,
) -> tuple[list[Tensor], bool]:
    """The selected rows of each input, scaled; all inputs have one shape (N, D)."""
    require_choice(loss, "similarity", similarity, ("cosine", "dot"))
    (first_name, first), *rest = named.items()
    require_floating(loss, first_name, first)
    if first.ndim != 2:
        raise LossInputError(f"{loss}: {first_name} must have shape (N, D), one embedding a row, got {shape(first)}")
    for name, x in rest:
        require_floating(loss, name, x)
        require_shape(loss, name, x, shape(first), first_name)
    if mask is not None:
        require_mask(loss, mask, (len(first),), "the rows")
    read = checking(check, first)
    if weight is not None:
        require_weights(loss, "weight", weight, (len(first),), "the rows, one weight each", read)
    taken = [held(x if mask is None else x[mask]) for x in named.values()]
    return ([unit(x) for x in taken] if similarity == "cosine" else taken), read


def require_temperature(loss: str, temperature: Positive | Tensor, read: bool) -> float | Tensor:
    if isinstance(temperature, Tensor) and temperature.numel() != 1:
        raise LossInputError(f"{loss}: temperature must have one element, got shape {shape(temperature)}")
    if read or not isinstance(temperature, Tensor):
        value = float(temperature.detach() if isinstance(temperature, Tensor) else temperature)
        if not 0 < value < torch.inf:
            raise LossInputError(f"{loss}: temperature must be positive and finite, got {value:g}")
    return held(temperature).reshape(()) if isinstance(temperature, Tensor) else temperature


def finish_rows(
    loss: str,
    values: Tensor,
    valid: Tensor | None,
    mask: Tensor | None,
    weight: Tensor | None,
    reduction: Reduction,
    read: bool,
    group: ProcessGroup | None,
) -> Tensor:
    """Weigh the anchors, leave out those that are not `valid`, and reduce; "none" gives one value for each row."""
    weights = None if weight is None else (weight if mask is None else weight[mask]).to(values.dtype)
    if weights is not None:
        values = values * weights
    if valid is not None:
        values = select(values, valid)
        weights = valid.to(values.dtype) if weights is None else select(weights, valid)
    if reduction == "none" and mask is not None:
        values = values.new_zeros(mask.shape).masked_scatter(mask, values)
    return reduce(loss, values, weights, reduction=reduction, check=read, group=group)


def own_columns(n: int, columns: int, begin: int, device: torch.device) -> Tensor:
    """True at (i, begin + i): where each local row meets itself or its partner among all rows; shape (n, columns)."""
    return torch.arange(columns, device=device) == torch.arange(begin, begin + n, device=device).unsqueeze(1)
