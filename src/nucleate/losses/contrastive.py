"""Contrastive losses: embeddings of two views of one thing are drawn together, all others pushed apart.

Embeddings are rows, shape (N, D). similarity="cosine" (the default) scales each row to length 1, "dot" takes rows as
they are; the temperature is a number, or a tensor of one element that may be learnt. `mask` (boolean, (N,)) selects
the rows that take part at all, `weight` (N,) weighs anchors; a row of weight 0 takes no part. With `group` each rank's
anchors meet the rows of every rank, with gradient: W ranks give the loss and the gradient of one process that holds
all rows. From 2^20 similarities on they are never held: memory grows with N, not with N^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.distributed import first_row, gather
from nucleate.losses.embeddings import Batch, batch, finish_rows, require_temperature, unit
from nucleate.losses.kernels import blocks
from nucleate.losses.kernels.row_blocks import over_products
from nucleate.losses.options import NotNegative, Positive, Reduction, Similarity
from nucleate.losses.reduction import finish, held, select
from nucleate.losses.registry import loss
from nucleate.losses.validation import number, require_between, require_floating, shape

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["clip_loss", "decoupled", "info_nce", "nt_xent", "siglip"]


def _at(scores: Tensor, columns: Tensor) -> Tensor:
    """The score of each row at its column."""
    return scores.gather(1, columns.unsqueeze(1)).squeeze(1)


def _without(scores: Tensor, columns: Tensor) -> Tensor:
    """The scores of all columns but one of each row."""
    return scores.scatter(1, columns.unsqueeze(1), -torch.inf)


def _among(scores: Tensor, anchor: Tensor | None, keep: Tensor | None) -> Tensor:
    """The scores of the columns to `keep`; 0 in rows that are no `anchor`, whose results are selected away."""
    if keep is not None:
        scores = scores.masked_fill(~keep, -torch.inf)
    return scores if anchor is None else torch.where(anchor.unsqueeze(1), scores, 0.0)


def toward(scores: Tensor, partner: Tensor, anchor: Tensor | None, keep: Tensor | None) -> Tensor:
    """-log softmax at the partner's column."""
    return -_at(_among(scores, anchor, keep).log_softmax(1), partner)


def _toward_without_self(
    scores: Tensor, partner: Tensor, own: Tensor, anchor: Tensor | None, keep: Tensor | None
) -> Tensor:
    return toward(_without(scores, own), partner, anchor, keep)


def _plain_total(
    begin: int, share: Tensor | None, rows: Tensor, columns: Tensor, temperature: Positive | Tensor
) -> Tensor:
    """What `blocks.row_total` computes."""
    partner = torch.arange(begin, begin + rows.shape[0], device=rows.device)
    values = over_products(rows / temperature, columns, toward, (partner, None), (None,))
    return (values if share is None else values * share).sum()


def _row_weights(found: Batch, reduction: Reduction, group: Group | None) -> tuple[Tensor | None, Tensor, float]:
    """The anchors' weights, their sum, and what the backward pass will bring to the total."""
    x = found.each[0]
    share = None if found.weight is None else found.weight.to(x.dtype)
    amount = x.new_full((), len(x)) if share is None else share.sum()
    alone = reduction == "mean" and group is None and x.device.type == "cpu" and float(amount) > 0
    return share, amount, float(1 / amount) if alone else 1.0


@loss("contrastive", "-log softmax(s_i / T)_i", "0..inf", "queries and their keys, one direction", module="InfoNCE")
def info_nce(
    query: Tensor,
    key: Tensor,
    *,
    negatives: Tensor | None = None,
    in_batch: bool = True,
    hardness: NotNegative = 0.0,
    temperature: Positive | Tensor = 0.1,
    similarity: Similarity = "cosine",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """-log exp(s_ii / T) / sum_j exp(s_ij / T): which key belongs to this query; range 0..inf.

    s is the similarity of query i and key j; row i of both is a pair, every other key is a negative. All-equal
    embeddings give ln N.

    Args:
        negatives: (K, D), further keys that belong to no query, such as those of a `Queue`; the same on every rank.
        in_batch: whether the keys of other queries are negatives. False, with `negatives`, is the loss of MoCo.
        hardness: b >= 0; a negative weighs exp(b s_ij / T), over its mean: the more, the more similar it is.
        weight: one weight for each query, finite, at least 0; a row of weight 0 takes no part, as with `mask`.

    >>> import torch
    >>> round(info_nce(torch.ones(8, 3), torch.ones(8, 3)).item(), 4)  # ln 8
    2.0794
    >>> round(info_nce(torch.ones(8, 3), torch.ones(8, 3), negatives=torch.ones(24, 3)).item(), 4)  # ln 32
    3.4657

    A learnt temperature is best learnt as a logarithm, which keeps it positive; CLIP learns log 1 / T:

    >>> from math import log
    >>> logit_scale = torch.nn.Parameter(torch.tensor(log(1 / 0.07)))
    >>> info_nce(torch.eye(4), torch.eye(4).roll(1, 0), temperature=(-logit_scale).exp()).backward()
    >>> bool(logit_scale.grad > 0)  # every query is nearest to a wrong key, so T is to grow
    True

    Source: van den Oord et al., Representation learning with contrastive predictive coding (2018); He et al., Momentum
    contrast (MoCo, 2020); hardness: Robinson et al., Contrastive learning with hard negative samples (2021), without
    the correction for false negatives.
    """
    name = "info_nce"
    require_between(name, "hardness", hardness, 0.0, math.inf)
    found = batch(name, {"query": query, "key": key}, similarity, mask, weight, check, group)
    t = require_temperature(name, temperature, found.read)
    extra = _negatives(name, negatives, query, similarity, in_batch)
    (q, k), expected = found.each, found.expected(reduction)
    if extra is not None and not in_batch:
        beside = partial(_beside, hardness)
        values = over_products(q / t, extra.to(q.dtype), beside, ((q * k).sum(1) / t, found.keep), (), expected)
        return finish_rows(name, values, None, found, reduction, group)
    keys, begin, keep = gather(k, group), first_row(k.shape[0], group), found.keep
    if extra is not None:
        keys = torch.cat((keys, extra.to(keys.dtype)))
        keep = None if keep is None else torch.cat((keep, keep.new_ones(len(extra))))
    if reduction != "none" and keep is None and hardness == 0 and blocks.suits(q, keys, None, (found.weight,)):
        share, amount, scale = _row_weights(found, reduction, group)
        total = blocks.row_total(q, keys, t, begin, share, scale, partial(_plain_total, begin, share))
        return finish(name, total, amount, reduction=reduction, check=found.read, group=group)
    partner = found.row_numbers(begin)
    way = partial(_toward_harder, hardness) if hardness else toward
    values = over_products(q / t, keys, way, (partner, found.keep), (keep,), expected)
    return finish_rows(name, values, None, found, reduction, group)


def _negatives(
    name: str, negatives: Tensor | None, query: Tensor, similarity: Similarity, in_batch: bool
) -> Tensor | None:
    if negatives is None:
        if not in_batch:
            raise LossInputError(f"{name}: in_batch=False leaves no negatives; give them as negatives=")
        return None
    require_floating(name, "negatives", negatives)
    if negatives.ndim != 2 or negatives.shape[1] != query.shape[1]:
        raise LossInputError(
            f"{name}: negatives must have shape (K, {query.shape[1]}), one embedding a row as in query, got "
            f"{shape(negatives)}"
        )
    return unit(held(negatives)) if similarity == "cosine" else held(negatives)


def _beside(hardness: float, scores: Tensor, positive: Tensor, anchor: Tensor | None) -> Tensor:
    """-log softmax at a positive that stands beside the scores of the negatives."""
    scores = _among(scores, anchor, None)
    if anchor is not None:
        positive = torch.where(anchor, positive, 0.0)
    if hardness and scores.shape[1]:
        return _harder(hardness, scores, positive)
    return -torch.cat((positive.unsqueeze(1), scores), 1).log_softmax(1)[:, 0]


def _toward_harder(
    hardness: float, scores: Tensor, partner: Tensor, anchor: Tensor | None, keep: Tensor | None
) -> Tensor:
    return _harder(hardness, _among(_without(scores, partner), anchor, keep), _at(scores, partner))


def _harder(hardness: float, negatives: Tensor, positive: Tensor) -> Tensor:
    """log(1 + sum_j w_j exp(s_j - positive)), w_j = exp(b s_j) over the mean of all; s_j = -inf is no negative."""
    count = (negatives != -torch.inf).sum(1)
    some = count > 0
    x = torch.where(some.unsqueeze(1), negatives, 0.0)
    weighed = torch.logsumexp((1 + hardness) * x, 1) - torch.logsumexp(hardness * x, 1)
    return select(F.softplus(weighed + count.clamp(min=1).to(x.dtype).log() - positive), some)


@loss(
    "contrastive",
    "(info_nce(a, b) + info_nce(b, a)) / 2",
    "0..inf",
    "two kinds of view of one thing",
    module="CLIPLoss",
)
def clip_loss(
    first: Tensor,
    second: Tensor,
    *,
    temperature: Positive | Tensor = 0.1,
    similarity: Similarity = "cosine",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The mean of `info_nce` from `first` to `second` and back; range 0..inf.

    >>> import torch
    >>> round(clip_loss(torch.ones(8, 3), torch.ones(8, 3)).item(), 4)
    2.0794

    Source: Radford et al., Learning transferable visual models from natural language supervision (2021).
    """
    name = "clip_loss"
    found = batch(name, {"first": first, "second": second}, similarity, mask, weight, check, group)
    t = require_temperature(name, temperature, found.read)
    a, b = found.each
    begin, ways = first_row(a.shape[0], group), ((a, gather(b, group)), (b, gather(a, group)))
    if reduction != "none" and found.keep is None and blocks.suits(*ways[0], None, (found.weight,)):
        share, amount, scale = _row_weights(found, reduction, group)
        twin = partial(_plain_total, begin, share)
        if group is None:
            total = blocks.both_total(a, b, t, share, scale, lambda x, y, h: (twin(x, y, h) + twin(y, x, h)) / 2)
        else:
            totals = (blocks.row_total(x, y, t, begin, share, scale / 2, twin) for x, y in ways)
            total = sum(totals, a.new_zeros(())) / 2
        return finish(name, total, amount, reduction=reduction, check=found.read, group=group)
    each = found.row_numbers(begin), found.keep
    there, back = (over_products(x / t, y, toward, each, (found.keep,), found.expected(reduction)) for x, y in ways)
    return finish_rows(name, (there + back) / 2, None, found, reduction, group)


@loss(
    "contrastive", "info_nce against both views", "0..inf", "two augmentations of one image (SimCLR)", module="NTXent"
)
def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: Positive | Tensor = 0.1,
    similarity: Similarity = "cosine",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """`info_nce` where all other 2N - 2 rows of both views are negatives; range 0..inf.

    The mean is over both rows of each pair; reduction="none" gives the mean of the two for each pair, (N,).
    All-equal embeddings give ln(2N - 1).

    >>> import torch
    >>> round(nt_xent(torch.ones(8, 3), torch.ones(8, 3)).item(), 4)  # ln 15
    2.7081

    Source: Chen et al., A simple framework for contrastive learning (SimCLR, 2020).
    """
    name = "nt_xent"
    found = batch(name, {"first": first, "second": second}, similarity, mask, weight, check, group)
    t = require_temperature(name, temperature, found.read)
    values = _of_both_views(found, t, _toward_without_self, reduction, group)
    return finish_rows(name, values, None, found, reduction, group)


def _of_both_views(
    found: Batch,
    temperature: Positive | Tensor,
    values: Callable[..., Tensor],
    reduction: Reduction,
    group: Group | None,
) -> Tensor:
    """The mean over both rows of each pair of values(scores, partner, own, anchor, keep) against all rows."""
    a, b = found.each
    every = gather(a, group), gather(b, group)
    own = found.row_numbers(first_row(a.shape[0], group))
    partner = own + every[0].shape[0]
    keep = None if found.keep is None else torch.cat((found.keep, found.keep))
    each = torch.cat((partner, own)), torch.cat((own, partner)), keep
    expected = found.expected(reduction)
    expected = None if expected is None else expected.repeat(2)
    both = over_products(torch.cat((a, b)) / temperature, torch.cat(every), values, each, (keep,), expected)
    return both.reshape(2, a.shape[0], *both.shape[1:]).mean(0)


@loss("contrastive", "nt_xent without the pair below the line", "any", "small batches")
def decoupled(
    first: Tensor,
    second: Tensor,
    *,
    temperature: Positive | Tensor = 0.1,
    similarity: Similarity = "cosine",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """-s_ii / T + log sum of exp(s / T) over the 2N - 2 rows of other pairs, in both views; any sign.

    `nt_xent` without the pair itself among its rivals: a pair that is already close keeps its full gradient, which
    helps small batches. The mean is over both rows of each pair; reduction="none" gives the mean of the two for each
    pair, (N,). A pair alone has no negatives, and is left out.

    >>> import torch
    >>> round(decoupled(torch.ones(8, 3), torch.ones(8, 3)).item(), 4)  # ln 14
    2.6391

    Source: Yeh et al., Decoupled contrastive learning (2022), without the weights of its variant DCLW.
    """
    name = "decoupled"
    found = batch(name, {"first": first, "second": second}, similarity, mask, weight, check, group)
    t = require_temperature(name, temperature, found.read)
    values, valid = _of_both_views(found, t, _without_pair, reduction, group).unbind(1)
    return finish_rows(name, values, valid > 0, found, reduction, group)


def _without_pair(scores: Tensor, partner: Tensor, own: Tensor, anchor: Tensor | None, keep: Tensor | None) -> Tensor:
    """The value of each row, and 1 where it has negatives."""
    others = _without(_without(scores, own), partner)
    others = others if keep is None else others.masked_fill(~keep, -torch.inf)
    valid = (others != -torch.inf).any(1)
    values = torch.logsumexp(torch.where(valid.unsqueeze(1), others, 0.0), 1) - _at(scores, partner)
    return torch.stack((select(values, valid), valid.to(values.dtype)), 1)


@loss(
    "contrastive",
    "sum log(1 + exp(-y (s / T + b)))",
    "0..inf",
    "large batches without a softmax over them",
    module="SigLIP",
)
def siglip(
    first: Tensor,
    second: Tensor,
    *,
    temperature: Positive | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    similarity: Similarity = "cosine",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """sum_j log(1 + exp(-y_ij (s_ij / T + bias))), y = +1 for a pair and -1 for others; range 0..inf.

    Each pair of rows is a yes or no of its own, so there is no softmax over the batch. `bias` may be learnt.

    Args:
        bias: added to each similarity over T: a number, or a tensor of one element that may be learnt.

    >>> import torch
    >>> round(siglip(torch.eye(2), torch.eye(2), bias=0.0).item(), 4)  # log(1 + e^-10) + log 2
    0.6932

    Source: Zhai et al., Sigmoid loss for language image pre-training (2023).
    """
    name = "siglip"
    found = batch(name, {"first": first, "second": second}, similarity, mask, weight, check, group)
    t = require_temperature(name, temperature, found.read)
    if isinstance(bias, Tensor) and bias.numel() != 1:
        raise LossInputError(f"{name}: bias must have one element, got shape {shape(bias)}")
    a, b = found.each
    own = found.row_numbers(first_row(b.shape[0], group))
    offset = bias.reshape(()).to(a.dtype) if isinstance(bias, Tensor) else a.new_full((), number(name, "bias", bias))
    values = over_products(a / t, gather(b, group), _yes_or_no, (own,), (offset, found.keep), found.expected(reduction))
    return finish_rows(name, values, None, found, reduction, group)


def _yes_or_no(scores: Tensor, own: Tensor, bias: Tensor, keep: Tensor | None) -> Tensor:
    """sum_j -log sigmoid(y x): of a pair it is softplus(x) - x, of all others softplus(x)."""
    logits = scores + bias
    each = -F.logsigmoid(-logits)
    each = each.scatter(1, own.unsqueeze(1), -F.logsigmoid(_at(logits, own)).unsqueeze(1))
    return (each if keep is None else each.masked_fill(~keep, 0.0)).sum(1)
