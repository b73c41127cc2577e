"""Embeddings as rows: their checks, their similarities, and rows of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.autograd import applied
from nucleate.losses.kernels.dispatch import plain_tensor
from nucleate.losses.kernels.row_blocks import product as product
from nucleate.losses.options import Positive, Reduction, Similarity
from nucleate.losses.reduction import held, reduce, select
from nucleate.losses.targets import selection
from nucleate.losses.validation import (
    batched,
    checking,
    number,
    require_choice,
    require_floating,
    require_mask,
    require_shape,
    require_weights,
    shape,
    transforming,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

_FEWEST = 1 << 20  # numbers, from which on the backward pass of `unit` saves memory
_ROWS = 4096  # at a time


def unit(x: Tensor) -> Tensor:
    """Rows, along the last axis, scaled to length 1; a row of zeros stays 0 and has a finite gradient."""
    fits = x.dtype == torch.float32 and x.ndim == 2 and x.requires_grad and not transforming()
    return applied(_Unit, x) if fits and x.numel() >= _FEWEST and plain_tensor(x) else _unit(x)


def _unit(x: Tensor) -> Tensor:
    if not x.shape[-1]:
        return x
    x = x / _scale(x)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length == 0, 1.0, length)


def _scale(x: Tensor) -> Tensor:
    """What to divide each row by before its squares are summed: 1, but where they would overflow or vanish."""
    largest = torch.linalg.vector_norm(x.detach(), torch.inf, dim=-1, keepdim=True)
    extreme = (largest > 1e15) | ((largest < 1e-15) & (largest > 0))
    return torch.where(extreme & largest.isfinite(), largest, 1.0)


@final
class _Unit(torch.autograd.Function):
    """With y = x / |x| the gradient is (g - y (y . g)) / |x|, and nothing else is held.

    PyTorch's own backward pass holds three times as much.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        result = torch.empty_like(x)
        for of_x, out in zip(x.split(_ROWS), result.split(_ROWS), strict=True):
            out.copy_(_unit(of_x))
        return result

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
            scale = _scale(of_x)
            y = of_x / scale
            length = torch.linalg.vector_norm(y, dim=1, keepdim=True)
            length.masked_fill_(length == 0, 1.0)
            y /= length
            torch.addcmul(of_g, y, (y * of_g).sum(1, keepdim=True), value=-1, out=out).div_(length).div_(scale)
        return result


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """The rows that take part, scaled.

    Rows that are not selected are left out, and `chosen` says which of those given are here. Where shapes must not
    depend on values (in a transformation, or on a device that would be waited for) they are here as zeros instead,
    and `keep` says which of the rows count. Both are None where every row counts.
    """

    each: list[Tensor]
    weight: Tensor | None
    chosen: Tensor | None
    keep: Tensor | None
    read: bool

    def expected(self, reduction: Reduction) -> Tensor | None:
        """What the backward pass will bring to the values, up to a factor; None where nobody will ask for it."""
        if reduction == "none" or transforming():
            return None
        return self.each[0].new_ones(self.each[0].shape[0]) if self.weight is None else self.weight.detach()

    def row_numbers(self, begin: int) -> Tensor:
        """The place of each row among those of all ranks, the first of which is `begin`."""
        return torch.arange(begin, begin + self.each[0].shape[0], device=self.each[0].device)


def batch(
    loss: str, named: dict[str, Tensor], similarity: Similarity, mask: Tensor | None, weight: Tensor | None,
    check: bool | None, group: Group | None = None,
) -> Batch:  # fmt: skip
    """The selected rows of each input; all inputs have one shape (N, D). A row of weight 0 is not selected."""
    read = _require_rows(loss, named, similarity, mask, weight, check)
    selected = selection(mask, weight)
    given = list(named.values())
    chosen = keep = None
    if selected is not None and group is None and (transforming() or selected.device.type != "cpu"):
        keep = selected
        given = [select(x, keep.unsqueeze(1)) for x in given]
    elif selected is not None and not bool(selected.all()):
        chosen = selected
        given = [x[chosen] for x in given]
        weight = None if weight is None else weight[chosen]
    taken = alike(given)
    return Batch([unit(x) for x in taken] if similarity == "cosine" else taken, weight, chosen, keep, read)


def alike(inputs: Sequence[Tensor]) -> list[Tensor]:
    """All in the widest type in which sums of one of them are held."""
    taken = [held(x) for x in inputs]
    wide = any(x.dtype == torch.float64 for x in taken)
    return [x.double() for x in taken] if wide else taken


def rows(
    loss: str,
    named: dict[str, Tensor],
    similarity: Similarity,
    mask: Tensor | None,
    weight: Tensor | None,
    check: bool | None,
) -> tuple[list[Tensor], bool]:
    """The rows that `mask` selects of each input, scaled; all inputs have one shape (N, D)."""
    read = _require_rows(loss, named, similarity, mask, weight, check)
    taken = alike([x if mask is None else x[mask] for x in named.values()])
    return ([unit(x) for x in taken] if similarity == "cosine" else taken), read


def _require_rows(
    loss: str,
    named: dict[str, Tensor],
    similarity: Similarity,
    mask: Tensor | None,
    weight: Tensor | None,
    check: bool | None,
) -> bool:
    require_choice(loss, "similarity", similarity, ("cosine", "dot"))
    (first_name, first), *rest = named.items()
    require_floating(loss, first_name, first)
    if first.ndim != 2:
        raise LossInputError(f"{loss}: {first_name} must have shape (N, D), one embedding a row, got {shape(first)}")
    for name, x in rest:
        require_floating(loss, name, x)
        require_shape(loss, name, x, shape(first), first_name)
    if mask is not None:
        require_mask(loss, mask, (first.shape[0],), "the rows")
    read = checking(check, first)
    if weight is not None:
        require_weights(loss, "weight", weight, (first.shape[0],), "the rows, one weight each", read)
    return read


def require_temperature(loss: str, temperature: Positive | Tensor, read: bool) -> float | Tensor:
    if isinstance(temperature, Tensor) and temperature.numel() != 1:
        raise LossInputError(f"{loss}: temperature must have one element, got shape {shape(temperature)}")
    if read or not isinstance(temperature, Tensor):
        value = (
            temperature.detach().item() if isinstance(temperature, Tensor) else number(loss, "temperature", temperature)
        )
        if not 0 < value < torch.inf:
            raise LossInputError(f"{loss}: temperature must be positive and finite, got {value:g}")
    return held(temperature).reshape(()) if isinstance(temperature, Tensor) else temperature


def finish_rows(
    loss: str, values: Tensor, valid: Tensor | None, found: Batch, reduction: Reduction, group: Group | None
) -> Tensor:
    """Weigh the anchors and reduce; "none" gives one value for each row.

    Anchors that are not `valid` are not counted; their values and the gradients of these are 0 already.
    """
    values = select(values, found.keep)
    if found.weight is not None:
        values = values * select(found.weight.to(values.dtype), found.keep)
    counted = [x for x in (valid, found.keep) if x is not None]
    weights = torch.ones_like(values) if found.weight is None else found.weight.to(values.dtype)
    weights = select(weights, torch.stack(counted).all(0) if counted else None)
    if reduction == "none" and found.chosen is not None:
        values = values.new_zeros(found.chosen.shape).masked_scatter(found.chosen, values)
    return reduce(loss, values, weights, reduction=reduction, check=found.read, group=group)
