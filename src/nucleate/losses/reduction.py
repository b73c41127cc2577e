"""A loss is a sum and a weight; a mean is taken once, as all sums over all weights.

Means of means are wrong as soon as batches, accumulation steps or ranks hold different numbers of selected
positions. So every loss can give its (total, weight), and `Accumulation` and `group=` add both before they divide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, final, get_args

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.distributed import message_device, sum_across
from nucleate.losses.options import Reduction
from nucleate.losses.validation import require_choice

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Accumulation", "TotalAndWeight", "mean_of", "total_and_weight"]

REDUCTIONS = get_args(Reduction)


class TotalAndWeight(NamedTuple):
    """A loss before its mean is taken: two scalars, float32 or wider; the gradient flows through `total`."""

    total: Tensor
    weight: Tensor


def total_and_weight(fn: Callable[..., Tensor], *args: Any, **kwargs: Any) -> TotalAndWeight:
    """Call the loss `fn` and return (total, weight), whose quotient is what reduction="mean" returns.

    Where nothing is selected both are 0, and so is the gradient of `total`. With `group=` both are already summed
    over the ranks.

    >>> import torch
    >>> from nucleate import losses
    >>> logits, target = torch.zeros(4, 2), torch.tensor([0, 1, 1, 255])
    >>> total, weight = losses.total_and_weight(losses.cross_entropy, logits, target, ignore_index=255)
    >>> round(total.item(), 4), weight.item()
    (2.0794, 3.0)
    """
    if "reduction" in kwargs:
        raise LossInputError("total_and_weight: takes the place of reduction=; leave that argument out")
    return TotalAndWeight(*fn(*args, **kwargs, reduction="pair").unbind())


def quotient(total: Tensor, weight: Tensor | float) -> Tensor:
    """total / weight, and 0 with a zero gradient where nothing was weighed."""
    if not isinstance(weight, Tensor):
        return total if weight in (0, 1) else total / weight
    return total / torch.where(weight == 0, torch.ones_like(weight), weight)


def mean_of(pairs: Iterable[tuple[Tensor, Tensor]], group: ProcessGroup | None = None) -> Tensor:
    """The mean over several (total, weight) pairs, and over the ranks of `group`: all totals over all weights.

    >>> import torch
    >>> mean_of([(torch.tensor(6.0), torch.tensor(3.0)), (torch.tensor(0.0), torch.tensor(1.0))]).item()
    1.5
    """
    rows = [torch.stack((total, weight)) for total, weight in pairs]
    if not rows:
        raise LossInputError("mean_of: needs at least one (total, weight) pair; a rank without data gives (0, 0)")
    total, weight = sum_across(torch.stack(rows).sum(0), group).unbind()
    return quotient(total, weight)


def reduce(
    name: str,
    values: Tensor,
    weights: Tensor | None,
    *,
    reduction: Reduction,
    check: bool,
    group: ProcessGroup | None = None,
    whole: bool = False,
) -> Tensor:
    """The last step of every loss: `values` are weighted and 0 where not selected; `weights` None means 1 each.

    `whole` says that every rank of `group` already holds the whole loss, so nothing is summed over the ranks.
    """
    require_choice(name, "reduction", reduction, REDUCTIONS)
    if reduction == "none":
        if check and bool(values.detach().isnan().any()):
            raise _nan(name)
        return values
    total = values.sum()
    weight = values.numel() if weights is None else weights.sum()
    return finish(name, total, weight, reduction=reduction, check=check, group=None if whole else group)


def finish(
    name: str,
    total: Tensor,
    weight: Tensor | float,
    *,
    reduction: Reduction,
    check: bool,
    group: ProcessGroup | None = None,
) -> Tensor:
    """From this rank's total and weight (a number where it is known) to what `reduction` asks for."""
    require_choice(name, "reduction", reduction, ("mean", "sum", "pair"))
    if check and math.isnan(total.item()):
        raise _nan(name)
    if group is None and reduction != "pair":
        return total if reduction == "sum" else quotient(total, weight)
    pair = torch.stack((total, weight if isinstance(weight, Tensor) else total.new_full((), weight)))
    pair = pair if group is None else sum_across(pair, group)
    if reduction == "pair":
        return pair
    total, weight = pair.unbind()
    return total if reduction == "sum" else quotient(total, weight)


def held(x: Tensor) -> Tensor:
    """`x` in the type that sums are held in: float32, or float64 where it is float64 already."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def select(x: Tensor, selected: Tensor | None, fill: float = 0.0) -> Tensor:
    """`x` where selected, else `fill`. Selection, not multiplication: 0 * NaN and 0 * inf would be NaN."""
    return x if selected is None else torch.where(selected, x, fill)


def times(factor: Tensor, x: Tensor) -> Tensor:
    """factor * x, where a zero factor also silences an infinite x (0 log 0 = 0)."""
    return factor * x.masked_fill((factor == 0) & x.isinf(), 0.0)


def _nan(name: str) -> LossInputError:
    return LossInputError(
        f"{name}: the loss is NaN, so an input holds NaN or infinities that cancel at a selected position; "
        "leave such positions out with mask=, or pass check=False to get the NaN"
    )


@final
class Accumulation:
    """One mean over several backward passes, and over the ranks of `group`.

    `backward` adds the gradients of a total; `finish` divides the gradients once by all weights. The result is the
    loss and the gradient of one pass over everything, whatever the sizes of the parts.

    >>> import torch
    >>> from nucleate import losses
    >>> w = torch.zeros(2, requires_grad=True)
    >>> steps = losses.Accumulation()
    >>> for rows in (torch.ones(3, 2), torch.ones(1, 2)):
    ...     target = torch.zeros(len(rows), dtype=torch.long)
    ...     steps.backward(losses.total_and_weight(losses.cross_entropy, rows * w, target))
    >>> round(steps.finish([w]), 4), w.grad.tolist()
    (0.6931, [-0.5, 0.5])
    """

    def __init__(self, group: ProcessGroup | None = None) -> None:
        self.group = group
        self._total = 0.0
        self._weight = 0.0

    def backward(self, pair: tuple[Tensor, Tensor]) -> None:
        """Back-propagate the total of `total_and_weight(fn, ...)` (called without group=) and remember both."""
        total, weight = pair
        total.backward()
        self._total += float(total.detach())
        self._weight += float(weight.detach())

    def finish(self, parameters: Iterable[Tensor]) -> float:
        """Divide the gradients of `parameters` by all weights, in place; return the mean loss and start anew.

        With a group every rank must call this with the same parameters in the same order.
        """
        device = None if self.group is None else message_device(self.group)
        sums = torch.tensor([self._total, self._weight], dtype=torch.float64, device=device)
        if self.group is not None:
            torch.distributed.all_reduce(sums, group=self.group)
        total, weight = sums.tolist()
        for parameter in parameters:
            if parameter.grad is None and self.group is not None and parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                if self.group is not None:
                    torch.distributed.all_reduce(parameter.grad, group=self.group)
                parameter.grad.div_(weight or 1.0)
        self._total = self._weight = 0.0
        return float(total / (weight or 1.0))
