"""How unsure a prediction is: entropy and what is counted from it. In nats; `base=2` gives bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.distributed import sum_across
from nucleate.losses.distribution import Distribution, distribution, warn_of_simplex
from nucleate.losses.options import Reduction
from nucleate.losses.reduction import finish, reduce, times
from nucleate.losses.registry import Loss, catalogue, loss
from nucleate.losses.targets import class_axis, class_target, position_weights, positions_of, selection, weigh
from nucleate.losses.validation import checking, require_choice, require_mask, require_shape, shape

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["entropy", "expected_calibration_error", "information", "mutual_information", "perplexity"]


def nats_of(loss: str, base: float) -> float:
    """How many nats one unit of `base` holds."""
    if not (base > 0 and base != 1):
        raise LossInputError(f"{loss}: base must be positive and not 1 (2 gives bits, e gives nats), got {base:g}")
    return math.log(base)


def checked(
    loss: str,
    x: Tensor | Distribution,
    name: str,
    class_dim: int,
    mask: Tensor | None,
    weight: Tensor | None,
    check: bool | None,
) -> tuple[Distribution, int, bool]:
    """A distribution with its class axis and whether to read values, checked against its mask and weights."""
    said = distribution(loss, name, x)
    dim, _, positions = class_axis(loss, said.tensor, class_dim, fewest=1, name=name)
    read = checking(check, said.tensor)
    if mask is not None:
        require_mask(loss, mask, positions, f"the positions of {name}")
    position_weights(loss, weight, positions, read)
    if read:
        warn_of_simplex(loss, name, x, dim)
    return said, dim, read


def chosen(loss: str, said: Distribution, name: str, dim: int, mask: Tensor | None, read: bool) -> Distribution:
    """The distribution where selected, uniform elsewhere; values that are no distribution are refused."""
    said = said.selected(None if mask is None else mask.unsqueeze(dim), dim)
    if read:
        said.require_valid(loss, name, dim)
    return said


def prepared(
    loss: str,
    x: Tensor | Distribution,
    name: str,
    class_dim: int,
    mask: Tensor | None,
    weight: Tensor | None,
    check: bool | None,
) -> tuple[Distribution, int, Tensor | None, bool]:
    """`checked` and `chosen`, with the positions that count."""
    said, dim, read = checked(loss, x, name, class_dim, mask, weight, check)
    mask = selection(mask, weight, [said.tensor], dim)
    return chosen(loss, said, name, dim, mask, read), dim, mask, read


def entropy_at(p: Distribution, dim: int) -> Tensor:
    """-sum_c p_c log p_c at each position, in nats."""
    return -times(p.probabilities(dim), p.log_probabilities(dim)).sum(dim)


@loss("entropy", "-sum p log p", "0..ln C", "how unsure a prediction is; which tile to label next")
def entropy(
    p: Tensor | Distribution,
    *,
    class_dim: int = 1,
    base: float = math.e,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The entropy H(p) = -sum_c p_c log p_c: the fewest nats that express an outcome; range 0..ln C.

    `p` holds its classes along `class_dim`, as logits or as said; `mask` (boolean) selects and `weight` weighs
    positions, both in the shape of the positions. The mean divides by the sum of the weights.

    A fair die needs more bits than a fair coin:

    >>> import torch
    >>> round(entropy(torch.zeros(1, 6), base=2).item(), 3), entropy(torch.zeros(1, 2), base=2).item()
    (2.585, 1.0)

    Source: C. E. Shannon, A mathematical theory of communication (1948).
    """
    unit = nats_of("entropy", base)
    said, dim, mask, read = prepared("entropy", p, "p", class_dim, mask, weight, check)
    values, weights = weigh(entropy_at(said, dim) / unit, None, mask, weight, "weight")
    return reduce("entropy", values, weights, reduction=reduction, check=read, group=group)


@loss("entropy", "exp(H(p))", "1..C", "entropy as a number of equally likely classes")
def perplexity(
    p: Tensor | Distribution,
    *,
    class_dim: int = 1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """exp(H(p)) at each position: the number of equally likely classes that is as unsure; range 1..C.

    >>> import torch
    >>> round(perplexity(torch.zeros(1, 6)).item(), 4)
    6.0

    Source: Jelinek et al., Perplexity: a measure of the difficulty of speech recognition tasks (1977).
    """
    said, dim, mask, read = prepared("perplexity", p, "p", class_dim, mask, weight, check)
    values, weights = weigh(entropy_at(said, dim).exp(), None, mask, weight, "weight")
    return reduce("perplexity", values, weights, reduction=reduction, check=read, group=group)


@loss("entropy", "-log p(outcome)", "0..inf", "how surprising what happened was")
def information(
    p: Tensor | Distribution,
    outcome: Tensor,
    *,
    class_dim: int = 1,
    base: float = math.e,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The information -log p(outcome), also called surprisal; range 0..inf.

    Args:
        outcome: class indices of what happened, any integer type, in the shape of the positions.

    >>> import torch
    >>> from nucleate import losses
    >>> p = losses.Probabilities(torch.tensor([[0.75, 0.25]]))
    >>> information(p, torch.tensor([1]), base=2).item()
    2.0

    Source: C. E. Shannon, A mathematical theory of communication (1948).
    """
    unit = nats_of("information", base)
    said, dim, mask, read = prepared("information", p, "p", class_dim, mask, weight, check)
    require_shape("information", "outcome", outcome, positions_of(said.tensor, dim), "the positions of p")
    t = class_target(
        "information", said.tensor, outcome, class_dim=dim, mask=mask, ignore_index=None, read=read, fewest=1
    )
    assert t.index is not None
    surprisal = -said.log_probabilities(dim).gather(dim, t.index.unsqueeze(dim)).squeeze(dim)
    values, weights = weigh(surprisal / unit, None, mask, weight, "weight")
    return reduce("information", values, weights, reduction=reduction, check=read, group=group)


@loss(
    "entropy",
    "H(mean p_m) - mean H(p_m)",
    "0..ln min(C, M)",
    "where several predictions disagree, apart from where all are unsure",
)
def mutual_information(
    predictions: Tensor | Sequence[Tensor | Distribution],
    *,
    class_dim: int = 1,
    base: float = math.e,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """H(mean of p_m) - mean of H(p_m) over M predictions: what they disagree on (BALD); range 0..ln min(C, M).

    Args:
        predictions: a sequence of distributions of one shape, or one tensor of logits with the M predictions along its
            first axis.
        class_dim: the axis of the classes within one prediction.

    >>> import torch
    >>> sure = torch.tensor([[40.0, 0.0]])
    >>> mutual_information([sure, -sure], base=2).item(), mutual_information([sure, sure]).item()
    (1.0, 0.0)

    Source: Houlsby et al., Bayesian active learning for classification and preference learning (2011).
    """
    name = "mutual_information"
    unit = nats_of(name, base)
    members = list(predictions)
    if not members:
        raise LossInputError(f"{name}: needs at least one prediction, got none")
    first, dim, read = checked(name, members[0], "predictions[0]", class_dim, mask, weight, check)
    made = [distribution(name, f"predictions[{m}]", p) for m, p in enumerate(members)]
    for m, said in enumerate(made):
        require_shape(name, f"predictions[{m}]", said.tensor, shape(first.tensor), "predictions[0]")
    mask = selection(mask, weight, [said.tensor for said in made], dim)
    made = [chosen(name, said, f"predictions[{m}]", dim, mask, read) for m, said in enumerate(made)]
    probabilities = torch.stack([said.probabilities(dim) for said in made])
    shared = torch.stack([said.log_probabilities(dim) for said in made])
    log_mean = torch.logsumexp(shared.clamp(min=-1e30), 0) - math.log(len(made))
    # sum_m p_m (log p_m - log mean) / M is at least 0 term by term in m: no difference of two large entropies.
    gaps = times(probabilities, shared) - times(probabilities, log_mean.expand_as(shared))
    values, weights = weigh(gaps.sum(dim + 1).mean(0) / unit, None, mask, weight, "weight")
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)


@loss(
    "entropy",
    "sum n_b/n |accuracy_b - confidence_b|",
    "0..1",
    "whether stated probabilities can be believed; a measure without gradient",
)
def expected_calibration_error(
    p: Tensor | Distribution,
    target: Tensor,
    *,
    class_dim: int = 1,
    bins: int = 15,
    mask: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """sum_b n_b / n |accuracy_b - confidence_b| over `bins` equal bins of the top probability; range 0..1.

    It has no gradient, and belongs to all positions together: with `group` the bins are filled by every rank.

    Args:
        target: class indices, in the shape of the positions.
        bins: how many bins of equal width the top probability is counted in; at least 1.
        reduction: "mean", "sum" for n times the error, or "pair"; it has no value for a single position.

    >>> import torch
    >>> from nucleate import losses
    >>> p = losses.Probabilities(torch.tensor([[0.9, 0.1], [0.9, 0.1]]))
    >>> round(expected_calibration_error(p, torch.tensor([0, 1])).item(), 4)  # half are right, 0.9 was said
    0.4

    Source: Naeini et al., Obtaining well calibrated probabilities using Bayesian binning (2015).
    """
    name = "expected_calibration_error"
    require_choice(name, "reduction", reduction, ("mean", "sum", "pair"))
    if bins < 1:
        raise LossInputError(f"{name}: bins must be at least 1, got {bins}")
    said, dim, mask, read = prepared(name, p, "p", class_dim, mask, None, check)
    require_shape(name, "target", target, positions_of(said.tensor, dim), "the positions of p")
    t = class_target(
        name, said.tensor, target, class_dim=dim, mask=mask, ignore_index=ignore_index, read=read, fewest=1
    )
    assert t.index is not None
    with torch.no_grad():
        confidence, top = said.probabilities(dim).max(dim)
        gap = (top == t.index).to(confidence.dtype) - confidence
        bin_of = (confidence * bins).long().clamp(0, bins - 1)
        counted = torch.ones_like(gap) if t.selected is None else t.selected.to(gap.dtype)
        gap = gap if t.selected is None else torch.where(t.selected, gap, 0.0)
        sums = gap.new_zeros(bins).index_add_(0, bin_of.flatten(), gap.flatten())
        sums, weight = sum_across(sums, group), sum_across(counted.sum(), group)
        total = sums.abs().sum()
        return finish(name, total, weight, reduction=reduction, check=read, group=group, whole=True)


# The measures as modules, as `measures.Entropy()`.
MODULES = {entry.module.__name__: entry.module for entry in catalogue() if entry.function.__module__ == __name__}
globals().update(MODULES)


def __getattr__(name: str) -> type[Loss]:
    """What a type checker is told of the modules above."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
