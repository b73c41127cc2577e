"""One mean over several backward passes, for one loss or a sum of several, each divided by its own weight."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.distributed import require_group
from nucleate.losses.reduction import TotalAndWeight, is_nothing, require_parts
from nucleate.parallel import communicator_of

if TYPE_CHECKING:
    from torch.amp import GradScaler

    from nucleate.parallel.communicator import Group

__all__ = ["Accumulation"]

_SAME_WEIGHT = 1e-4  # relative: weights are summed in float32
_ONE_PASS = ("CheckpointFunctionBackward", "RegisterPostBackwardFunctionBackward")  # checkpoint, fully_shard


@final
class Accumulation:
    """The mean of a loss, or of a sum of losses, over several backward passes and over the ranks of `group`.

    `backward` adds the gradients of the totals of one part; `finish` divides once, each loss by all of its own
    weights. The result is the loss and the gradient of one pass over everything, whatever the sizes of the parts.

    The weight of a loss is known when the last part has been seen, so the gradients of several losses are held apart
    until then: each loss after the first takes a backward pass of its own and the memory of one gradient of the
    model. Where the weights are known beforehand, as numbers of labelled pixels are, say them with `weights`: one
    backward pass, no more memory, and what flows back has the size of the mean's gradient, as float16 needs.

    Args:
        group: the ranks over which the mean is taken; each loss is then called without group=.
        factors: one number for each loss, by which its mean counts; None is 1 each.
        weights: for each loss the sum of its weights over all parts of this rank, where it is known beforehand.
            With a group, all ranks must construct together.
        scaler: the `torch.amp.GradScaler` whose factor the gradients shall carry until its `unscale_`. Call it after
            `finish`: finish, `unscale_`, clipping, step, update.

    Attributes:
        means: after `finish`, the mean of each loss, without its factor.

    Raises:
        LossInputError: for losses of the whole batch (over="batch", barlow_twins, vicreg) in a second part, for
            numbers of losses that change, and for weights that were not those of the parts.

    Cross entropy plus half of Dice, over two parts of three images and one:

    >>> import torch
    >>> from nucleate import losses
    >>> w = torch.zeros(2, 1, requires_grad=True)
    >>> steps = losses.Accumulation(factors=(1.0, 0.5))
    >>> for n in (3, 1):
    ...     logits, target = w * torch.ones(n, 2, 4), torch.zeros(n, 4, dtype=torch.long)
    ...     pairs = [losses.total_and_weight(fn, logits, target) for fn in (losses.cross_entropy, losses.dice)]
    ...     steps.backward(*pairs)
    >>> round(steps.finish([w]), 4), [round(mean, 4) for mean in steps.means]
    (0.9015, [0.6931, 0.4167])
    """

    means: tuple[float, ...] = ()

    def __init__(
        self,
        group: Group | None = None,
        *,
        factors: Sequence[float] | None = None,
        weights: Sequence[float | Tensor] | None = None,
        scaler: GradScaler | None = None,
    ) -> None:
        if isinstance(group, (Iterable, int, float)):
            raise LossInputError(
                f"Accumulation: group must be a process group or a communicator of mpi4py, got {group!r}; say factors= "
                "or weights="
            )
        require_group("Accumulation", group)
        self._factors = _numbers("factors", factors, -sys.float_info.max)
        said = _numbers("weights", weights, 0.0)
        if self._factors is not None and said is not None and len(self._factors) != len(said):
            raise LossInputError(
                f"Accumulation: factors has {len(self._factors)} numbers and weights {len(said)}; give one for each "
                "loss"
            )
        self.group = group
        self.scaler = scaler
        self._weights = None if said is None else _across(said, group)
        self._first: list[Tensor] | None = None  # leaves of a single loss, of its first part
        self._forget()

    def _forget(self) -> None:
        self._parts: list[list[tuple[Tensor, Tensor]]] = []
        self._whole: set[int] = set()  # the losses that had a part of a whole batch
        self._apart: dict[int, dict[Tensor, Tensor | None]] = {}  # of each loss but the first: leaf -> gradient

    def backward(self, *pairs: TotalAndWeight | tuple[int, int]) -> None:
        """Back-propagate one part: for each loss what `total_and_weight(fn, ...)` gave, in the same order every time.

        A part that has nothing of some loss gives (0, 0) there. Where a backward pass fails midway, what it has added
        to the gradients stays there, as in PyTorch: set them to None and begin with a new `Accumulation`.
        """
        checked = self._check(pairs)
        self._add(checked)
        self._whole.update(k for k, pair in enumerate(checked) if pair.of_batch)
        self._parts.append([(pair.total.detach(), pair.weight.detach()) for pair in checked])

    def _add(self, pairs: Sequence[TotalAndWeight]) -> None:
        """Add the gradients of one part."""
        factors = self._factors or (1.0,) * len(pairs)
        # Without a graph there is nothing to add; where there should be one PyTorch says so.
        live = [k for k, pair in enumerate(pairs) if _counts(pair)]
        if self._first is None and len(pairs) == 1 and live:
            self._first = _leaves_if_known(pairs[0].total)
        if self._weights is not None:
            shares = [factors[k] / (self._weights[k] or 1.0) for k in live]
            if live:
                loss = sum(pairs[k].total * share for k, share in zip(live, shares, strict=True))
                self._scaled(loss).backward()
            return
        leaves = _leaves([pair.total for pair in pairs]) if len(pairs) > 1 else []
        for k in live:
            # The first loss uses the place where the gradients lie anyway.
            apart = self._apart.setdefault(k, {}) if k else None
            before = [leaf.grad for leaf in leaves]
            if apart is not None:
                for leaf in leaves:
                    leaf.grad = apart.get(leaf)
            try:
                self._scaled(pairs[k].total).backward(retain_graph=k != live[-1])
            finally:
                if apart is not None:
                    for leaf, gradient in zip(leaves, before, strict=True):
                        apart[leaf], leaf.grad = leaf.grad, gradient

    def _scaled(self, loss: Any) -> Any:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def _check(self, given: Sequence[TotalAndWeight | tuple[int, int]]) -> list[TotalAndWeight]:
        """The pairs, where (0, 0) is one, too."""
        pairs = [TotalAndWeight(torch.zeros(()), torch.zeros(())) if is_nothing(pair) else pair for pair in given]
        checked = [pair for pair in pairs if isinstance(pair, TotalAndWeight)]
        if not pairs or len(checked) != len(pairs):
            raise LossInputError(
                "Accumulation: backward takes what total_and_weight gave, as in backward(of_cross_entropy, of_dice), "
                "one pair for each loss; totals of different losses have different weights and are not added"
            )
        before = [x for x in (self._factors, self._weights, *self._parts[:1]) if x is not None]
        if before and len(pairs) != len(before[0]):
            raise LossInputError(
                f"Accumulation: backward got {len(pairs)} pairs after {len(before[0])}; give one for each loss in each "
                "part, (0, 0) where a part has nothing of it"
            )
        for k, pair in enumerate(checked):
            if self._parts or self.group is not None:
                require_parts("Accumulation", pair, also=k in self._whole and _counts(pair))
            if self.group is not None and pair.of_group:
                raise LossInputError("Accumulation: sums over its group itself; call the losses without group=")
        return checked

    def finish(self, parameters: Iterable[Tensor], *, averaged: bool = False) -> float:
        """Divide the gradients of `parameters` by all weights, in place; return the loss and start anew.

        With a group the gradients are summed over its ranks, and every rank must call this with the same parameters
        in the same order.

        Args:
            parameters: all tensors that the losses are differentiated by; one that is given twice counts once.
            averaged: a wrapper, `DistributedDataParallel` or FSDP, has averaged the gradients over `group` in the
                backward passes: nothing is sent again. Sharded gradients (FSDP) need it.

        Raises:
            LossInputError: no part at all, sharded gradients without `averaged`, several losses with it but without
                `weights`, or parameters that are missing (of one loss this is seen in its first part).
        """
        given = _distinct(parameters)
        self._check_finish(given, averaged)
        terms = _most(len(self._parts[0]) if self._parts else 0, self.group)
        if not terms:
            raise LossInputError("Accumulation: finish must come after backward, and no part was given to it")
        rows = [[sum(float(part[k][i]) for part in self._parts) for k in range(terms)] for i in (0, 1)]
        sums = _across(rows[0] + rows[1], self.group)
        totals, weights = sums[:terms], sums[terms:]
        factors = self._factors or (1.0,) * terms
        self._check_weights(weights)
        ranks = communicator_of(self.group).size if averaged else 1
        shares = [ranks * (1.0 if self._weights else f / (w or 1.0)) for f, w in zip(factors, weights, strict=True)]
        for parameter in given:
            self._gather(parameter, shares)
            if self.group is not None and not averaged and parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.copy_(communicator_of(self.group).sum(parameter.grad))
        self._forget()
        self.means = tuple(total / (weight or 1.0) for total, weight in zip(totals, weights, strict=True))
        return float(sum(f * mean for f, mean in zip(factors, self.means, strict=True)))

    def _gather(self, parameter: Tensor, shares: Sequence[float]) -> None:
        """The gradient of the sum of losses, out of those that were held apart."""
        if parameter.grad is not None:
            parameter.grad.mul_(shares[0])
        for k, apart in self._apart.items():
            gradient = apart.get(parameter)
            if gradient is not None and parameter.grad is not None:
                parameter.grad.add_(gradient, alpha=shares[k])
            elif gradient is not None:
                parameter.grad = gradient.mul_(shares[k])

    def _check_finish(self, given: Sequence[Tensor], averaged: bool) -> None:
        if averaged and (self.group is None or len(self._apart)):
            raise LossInputError(
                "Accumulation: averaged=True needs group=, the ranks of the wrapper, and of several losses the sums of "
                "their weights beforehand: Accumulation(group, weights=...)"
            )
        if not averaged and any(_sharded(parameter) for parameter in given):
            raise LossInputError(
                "Accumulation: these gradients are sharded over ranks (FSDP), so no rank can sum them; construct it "
                "with the group of the wrapper and call finish(parameters, averaged=True)"
            )
        needed = {id(leaf) for apart in self._apart.values() for leaf in apart}
        works = self._weights is None or (self.group is not None and not averaged)  # there is something to do for each
        if works:
            needed.update(id(leaf) for leaf in self._first or ())
        if needed - set(map(id, given)) or (works and not given and any(bool(part[0][1]) for part in self._parts)):
            raise LossInputError(
                "Accumulation: the losses depend on tensors that finish was not given; give all that need a gradient. "
                "Where a wrapper (fully_shard) puts others in their place, say the sums of the weights beforehand: "
                "Accumulation(group, weights=...)"
            )
        if self._first:
            self._first = []  # found once: later steps are not slowed down

    def _check_weights(self, found: Sequence[float]) -> None:
        for k, (said, weight) in enumerate(zip(self._weights or (), found, strict=self._weights is not None)):
            if not abs(said - weight) <= _SAME_WEIGHT * max(said, weight):
                raise LossInputError(
                    f"Accumulation: weights said {said:g} for loss {k}, but its parts weigh {weight:g}; the gradients "
                    "were divided by what was said, so give the sum over all parts"
                )


def _numbers(name: str, given: Sequence[float | Tensor] | None, low: float) -> list[float] | None:
    if given is None:
        return None
    try:
        found = [math.nan if isinstance(x, str) else float(x) for x in given]
    except (TypeError, ValueError, RuntimeError):
        found = []
    if not found or not all(low <= x < math.inf for x in found):
        least = "" if low else " of at least 0"
        raise LossInputError(
            f"Accumulation: {name} must hold one finite number{least} for each loss, as in (1.0, 0.5), got {given!r}"
        )
    return found


def _distinct(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Each parameter once, also where weights are tied."""
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for x in given:
        if not isinstance(x, Tensor):
            raise LossInputError(
                f"Accumulation: parameters must be tensors, as model.parameters() gives, got {type(x).__name__}"
            )
    return list({id(x): x for x in given}.values())


def _counts(pair: TotalAndWeight) -> bool:
    return pair.total.requires_grad or float(pair.weight) != 0


def _leaves_if_known(total: Tensor) -> list[Tensor]:
    """The leaves of one loss; none where a wrapper stands between it and them."""
    try:
        return _leaves([total])
    except LossInputError:
        return []


def _across(numbers: list[float], group: Group | None) -> list[float]:
    """The sums over the ranks, in float64."""
    if group is None:
        return numbers
    return [float(x) for x in communicator_of(group).sum(torch.tensor(numbers, dtype=torch.float64))]


def _most(number: int, group: Group | None) -> int:
    """The largest over the ranks: one without a part has not seen how many losses there are."""
    return max(communicator_of(group).all(number))


def _sharded(parameter: Tensor) -> bool:
    """Whether FSDP holds a share of it on each rank: `fully_shard` as a DTensor, the older wrapper by a mark."""
    marked = hasattr(parameter, "placements") or bool(getattr(parameter, "_fsdp_flattened", False))
    return marked or (parameter.numel() > 0 and parameter.untyped_storage().size() == 0)


def _one_pass() -> LossInputError:
    return LossInputError(
        "Accumulation: several losses take a backward pass each, which FSDP and checkpoint(use_reentrant=True) do not "
        "allow; say the sums of their weights beforehand, Accumulation(group, weights=...), for one pass"
    )


def _leaves(totals: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that backward() gives a gradient to."""
    found: dict[int, Tensor] = {}
    ahead, seen = [total.grad_fn for total in totals], set[Any]()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if node.name() in _ONE_PASS or (leaf is not None and _sharded(leaf)):
            raise _one_pass()
        if leaf is not None:
            found[id(leaf)] = leaf
        ahead += [following for following, _ in node.next_functions]
    return list(found.values())
