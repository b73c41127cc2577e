"""Metric learning from labels: similarities of one label above those of others, each pair by how far it is off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.distributed import first_row, gather
from nucleate.losses.embeddings import product, rows, unit
from nucleate.losses.options import Between, NotNegative, Positive, Reduction, Share
from nucleate.losses.reduction import reduce, select
from nucleate.losses.registry import loss
from nucleate.losses.targets import weigh, without_zeros
from nucleate.losses.validation import require_between, require_positive, require_shape, require_tensor

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["circle", "multi_similarity"]


@loss(
    "contrastive", "log(1 + sum e^(g a_n (s_n - m)) sum e^(-g a_p (s_p - 1 + m)))", "0..inf", "few rows of each label"
)
def circle(
    features: Tensor,
    labels: Tensor,
    *,
    margin: Share = 0.4,
    scale: Positive = 80.0,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """log(1 + sum_n exp(g a_n (s_n - m)) sum_p exp(-g a_p (s_p - (1 - m)))) for each anchor; range 0..inf.

    s_p are the cosines to the other rows of the anchor's label, s_n those to the rows of other labels; g is `scale`, m
    `margin`. The weights a_p = max(0, 1 + m - s_p) and a_n = max(0, s_n + m) pull most at what is furthest from
    where it should be. As in the paper no gradient flows through them, so the gradient is not the derivative of the
    value. A row without another of its label is no anchor, and one without a row of another label has the loss 0.

    Args:
        features: (N, D), one embedding a row; lengths do not count.
        labels: (N,), of any integer type.
        margin: m, 0..1: s_p should be above 1 - m, s_n below m.
        scale: g, above 0.
        mask: boolean, (N,); the rows that take part at all, as anchors and for others.
        weight: one weight for each anchor, (N,); a row of weight 0 takes no part.
        group: each rank's anchors meet the rows of all its ranks, with gradient, and the mean is over all.

    Equal embeddings have 20 (1.5 0.5 - 0.5 0.5) = 10 in the exponent, and ln 2 more for the two negatives:

    >>> import torch
    >>> round(circle(torch.ones(4, 3), torch.tensor([0, 0, 1, 1]), margin=0.5, scale=20.0).item(), 4)
    10.6932

    Source: Sun et al., Circle loss: a unified perspective of pair similarity optimization (2020).
    """
    name = "circle"
    require_between(name, "margin", margin, 0.0, 1.0)
    require_positive(name, "scale", scale)
    p = _pairs(name, features, labels, mask, weight, check, group)
    of_negatives, of_positives = F.relu(p.s.detach() + margin), F.relu(1 + margin - p.s.detach())
    pushed = _log_sum(scale * of_negatives * (p.s - margin), p.negative)
    pulled = _log_sum(-scale * of_positives * (p.s - (1 - margin)), p.positive)
    values = select(F.softplus(pushed + pulled), p.negative.any(1))
    return _mean_of_anchors(name, values, p, weight, reduction, group)


@loss(
    "contrastive",
    "log(1 + sum e^(-a (s_p - l))) / a + log(1 + sum e^(b (s_n - l))) / b",
    "0..inf",
    "many rows of each label, most pairs easy",
)
def multi_similarity(
    features: Tensor,
    labels: Tensor,
    *,
    alpha: Positive = 2.0,
    beta: Positive = 50.0,
    threshold: Annotated[float, Between(-1.0, 1.0)] = 0.5,
    mining: NotNegative | None = None,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """log(1 + sum_p e^(-alpha (s_p - l))) / alpha + log(1 + sum_n e^(beta (s_n - l))) / beta; range 0..inf.

    One value for each anchor: s_p are the cosines to the other rows of its label, s_n those to the rows of other
    labels, and l is `threshold`. A row without another of its label is no anchor.

    Args:
        features: (N, D), one embedding a row; lengths do not count.
        labels: (N,), of any integer type.
        alpha: above 0; how sharply positives below the threshold are told from those above.
        beta: above 0; the same for negatives.
        threshold: a cosine, -1..1.
        mining: e, at least 0 (0.1 in the paper): of the negatives only those with s_n > min s_p - e count, and of the
            positives those with s_p < max s_n + e. None takes every pair.
        mask: boolean, (N,); the rows that take part at all, as anchors and for others.
        weight: one weight for each anchor, (N,); a row of weight 0 takes no part.
        group: each rank's anchors meet the rows of all its ranks, with gradient, and the mean is over all.

    >>> import torch
    >>> x, label = torch.ones(4, 3), torch.tensor([0, 0, 1, 1])
    >>> round(multi_similarity(x, label, alpha=1.0, beta=1.0, threshold=1.0).item(), 4)  # ln 2 + ln 3
    1.7918

    Source: Wang et al., Multi-similarity loss with general pair weighting for deep metric learning (2019).
    """
    name = "multi_similarity"
    require_positive(name, "alpha", alpha)
    require_positive(name, "beta", beta)
    require_between(name, "threshold", threshold, -1.0, 1.0)
    require_between(name, "mining", mining or 0.0, 0.0, math.inf)
    p = _pairs(name, features, labels, mask, weight, check, group)
    pulled, pushed = p.positive, p.negative
    if mining is not None and p.s.numel():
        s = p.s.detach()  # the comparisons are turned round, so that NaN is kept, and found in the result
        pulled = pulled & ~(s >= s.masked_fill(~p.negative, -torch.inf).amax(1, keepdim=True) + mining)
        pushed = pushed & ~(s <= s.masked_fill(~p.positive, torch.inf).amin(1, keepdim=True) - mining)
    values = _log_one_plus(-alpha * (p.s - threshold), pulled) / alpha
    values = values + _log_one_plus(beta * (p.s - threshold), pushed) / beta
    return _mean_of_anchors(name, values, p, weight, reduction, group)


class _Pairs(NamedTuple):
    """Of each row and each row of all ranks: the cosine; whether both are selected and of one label, or of two."""

    s: Tensor
    positive: Tensor
    negative: Tensor
    read: bool


def _pairs(
    name: str,
    features: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    check: bool | None,
    group: Group | None,
) -> _Pairs:
    (x,), read = rows(name, {"features": features}, "dot", None, None, check)
    require_tensor(name, "labels", labels)
    if labels.is_floating_point() or labels.is_complex():
        raise LossInputError(f"{name}: labels must be of an integer type, got {labels.dtype}; call .long() on them")
    require_shape(name, "labels", labels, (len(x),), "the rows of features")
    selected = without_zeros(name, mask, weight, (len(x),), read)
    here = torch.ones_like(labels, dtype=torch.bool) if selected is None else selected
    # Shapes do not depend on the mask: rows that are not selected become ones, and are in no pair.
    x = unit(select(x, None if selected is None else selected.unsqueeze(1), fill=1.0))
    every, of_every = gather(x, group), gather(torch.stack((labels.long(), here.long()), 1), group)
    same, both = labels.long().unsqueeze(1) == of_every[:, 0], here.unsqueeze(1) & (of_every[:, 1] == 1)
    begin = first_row(len(x), group)
    mine = torch.arange(begin, begin + len(x), device=x.device).unsqueeze(1)
    own = mine == torch.arange(len(every), device=x.device)
    return _Pairs(product(x, every), both & same & ~own, both & ~same, read)


def _mean_of_anchors(
    name: str,
    values: Tensor,
    p: _Pairs,
    weight: Tensor | None,
    reduction: Reduction,
    group: Group | None,
) -> Tensor:
    """The mean over the rows that have a positive, by weight."""
    pair = weigh(values, None, p.positive.any(1), weight, "weight")
    return reduce(name, *pair, reduction=reduction, check=p.read, group=group)


def _log_sum(x: Tensor, among: Tensor) -> Tensor:
    """log sum exp over the columns `among`; without any a finite number, whose slope is finite, too."""
    found = among.any(1, keepdim=True)
    return torch.where(found, x.masked_fill(~among, -torch.inf), 0.0).logsumexp(1)


def _log_one_plus(x: Tensor, among: Tensor) -> Tensor:
    """log(1 + sum exp) over the columns `among`."""
    return F.pad(x.masked_fill(~among, -torch.inf), (1, 0)).logsumexp(1)
