"""A loss is a sum and a weight; a mean is taken once, as all sums over all weights.

Means of means are wrong as soon as batches, accumulation steps or ranks hold different numbers of selected
positions. So every loss can give its (total, weight); `mean_of`, `Accumulation` and `group=` add both before they
divide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self, final, get_args

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.distributed import require_group, sum_across
from nucleate.losses.options import Reduction
from nucleate.losses.validation import require_choice

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["TotalAndWeight", "mean_of", "total_and_weight"]

REDUCTIONS = get_args(Reduction)
_OF_BATCH, _OF_GROUP = 1, 2  # what the stride of a pair says, added to 1


class _Pair(NamedTuple):
    total: Tensor
    weight: Tensor


@final
class TotalAndWeight(_Pair):
    """A loss before its mean is taken: two scalars, float32 or wider; the gradient flows through `total`.

    `of_batch` says that it is one value of a whole batch, as with over="batch", to which parts of the batch do not
    add up; `of_group`, that it is summed over the ranks already.
    """

    of_batch: bool = False
    of_group: bool = False

    def __add__(self, other: object) -> NoReturn:
        raise LossInputError(
            "TotalAndWeight: two pairs are not added; parts of one loss are what mean_of([a, b]) takes, different "
            "losses go into Accumulation.backward(a, b), each with its own weight"
        )

    def __mul__(self, factor: object) -> NoReturn:
        raise LossInputError(
            f"TotalAndWeight: a pair is not multiplied, got {factor!r}; a factor of a loss goes into "
            "Accumulation(factors=...), or multiply the total"
        )

    __radd__, __rmul__ = __add__, __mul__

    def _replace(self, **fields: Any) -> Self:
        made = super()._replace(**fields)
        made.of_batch, made.of_group = self.of_batch, self.of_group
        return made


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
    try:
        found = fn(*args, **kwargs, reduction="pair")
    except (TypeError, ValueError, NotImplementedError) as error:
        # What does not know reduction="pair" says so by one of these, each in its own words; other errors pass.
        if isinstance(error, LossInputError) or not any(word in str(error) for word in ("reduction", "pair")):
            raise
        raise _no_pair(fn) from error
    if not isinstance(found, Tensor) or found.shape != (2,):
        raise _no_pair(fn)
    pair = TotalAndWeight(*found.unbind())
    said = found.stride(0) - 1
    pair.of_batch, pair.of_group = bool(said & _OF_BATCH), bool(said & _OF_GROUP)
    return pair


def _no_pair(fn: object) -> LossInputError:
    return LossInputError(
        f"total_and_weight: fn must be a loss of nucleate, or a function that hands reduction= on to one, got {fn!r}"
    )


def require_parts(caller: str, pair: object, also: bool = False) -> None:
    """Refuse a pair that is one value of a whole batch, or that is `also` none of its parts."""
    if also or (isinstance(pair, TotalAndWeight) and pair.of_batch):
        raise LossInputError(
            f"{caller}: a loss of the whole batch, such as over='batch', is not the sum of its parts; take "
            "over='image', or one part"
        )


def _is_pair(pair: object) -> bool:
    return isinstance(pair, (tuple, list)) and len(pair) == 2


def is_nothing(pair: Any) -> bool:
    """Whether it is (0, 0) in plain numbers, for a part without anything of a loss."""
    return _is_pair(pair) and all(isinstance(x, (int, float)) and x == 0 for x in pair)


def quotient(total: Tensor, weight: Tensor | float) -> Tensor:
    """total / weight, and 0 with a zero gradient where nothing was weighed."""
    if not isinstance(weight, Tensor):
        return total if weight in (0, 1) else total / weight
    return total / torch.where(weight == 0, torch.ones_like(weight), weight)


def mean_of(pairs: Iterable[tuple[Tensor, Tensor] | tuple[int, int]], group: Group | None = None) -> Tensor:
    """The mean over several (total, weight) pairs, and over the ranks of `group`: all totals over all weights.

    >>> import torch
    >>> mean_of([(torch.tensor(6.0), torch.tensor(3.0)), (torch.tensor(0.0), torch.tensor(1.0))]).item()
    1.5
    """
    require_group("mean_of", group)
    if isinstance(pairs, TotalAndWeight):
        raise LossInputError("mean_of: pairs must be a list of (total, weight), got one pair; give [pair]")
    parts = list(pairs)
    for given in parts:
        if not is_nothing(given) and not (_is_pair(given) and all(isinstance(x, Tensor) for x in given)):
            raise LossInputError(f"mean_of: pairs must hold (total, weight) of two tensors each, got {given!r}")
    if len(parts) > 1 or group is not None:
        for pair in parts:
            require_parts("mean_of", pair)
    rows = [torch.stack(pair) for pair in parts if isinstance(pair[0], Tensor) and isinstance(pair[1], Tensor)]
    if parts and not rows:  # numbers alone
        rows = [torch.zeros(2)]
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
    group: Group | None = None,
    whole: bool = False,
) -> Tensor:
    """The last step of every loss: `values` are weighted and 0 where not selected; `weights` None means 1 each.

    `whole` says that the loss is one value of a whole batch, which every rank of `group` already holds: nothing is
    summed over the ranks, and parts do not add up to it.
    """
    require_choice(name, "reduction", reduction, REDUCTIONS)
    if reduction == "none":
        if check and bool(values.detach().isnan().any()):
            raise _nan(name)
        return values
    total = values.sum()
    weight = values.numel() if weights is None else weights.sum()
    return finish(name, total, weight, reduction=reduction, check=check, group=group, whole=whole)


def finish(
    name: str,
    total: Tensor,
    weight: Tensor | float,
    *,
    reduction: Reduction,
    check: bool,
    group: Group | None = None,
    whole: bool = False,
) -> Tensor:
    """From this rank's total and weight (a number where it is known) to what `reduction` asks for.

    `whole`: it is one value of a whole batch, which every rank of `group` already holds.
    """
    require_choice(name, "reduction", reduction, ("mean", "sum", "pair"))
    if check and math.isnan(total.item()):
        raise _nan(name)
    if group is not None and not whole:
        total, weight = sum_across(torch.stack((total, _tensor(weight, total))), group).unbind()
    if reduction == "pair":
        # The stride says what kind of pair it is: so it comes through lambdas, modules, torch.compile and threads.
        stride = 1 + whole * _OF_BATCH + (group is not None) * _OF_GROUP
        pair = torch.stack((*(total,) * stride, _tensor(weight, total)))
        return pair if stride == 1 else pair[::stride]
    return total if reduction == "sum" else quotient(total, weight)


def _tensor(weight: Tensor | float, total: Tensor) -> Tensor:
    return weight if isinstance(weight, Tensor) else total.new_full((), weight)


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
