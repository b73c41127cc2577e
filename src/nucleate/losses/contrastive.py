"""Contrastive losses: embeddings of two views of one thing are drawn together, all others pushed apart.

Embeddings are rows, shape (N, D). similarity="cosine" (the default) scales each row to length 1, "dot" takes rows as
they are; the temperature is a number, or a tensor of one element that may be learnt. `mask` (boolean, (N,)) selects
the rows that take part at all, `weight` (N,) weighs anchors. With `group` each rank's anchors meet the rows of every
rank, with gradient: W ranks give the loss and the gradient of one process that holds all rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.distributed import first_row, gather
from nucleate.losses.embeddings import finish_rows, own_columns, product, require_temperature, rows
from nucleate.losses.kernels import blocks
from nucleate.losses.options import Positive, Reduction, Similarity
from nucleate.losses.reduction import finish
from nucleate.losses.registry import loss
from nucleate.losses.validation import shape

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["clip_loss", "decoupled", "info_nce", "nt_xent", "siglip"]


def _toward(query: Tensor, keys: Tensor, temperature: Positive | Tensor, begin: int) -> Tensor:
    """-log softmax of the similarities to `keys` at each row's own key."""
    if not len(query):
        # An empty rank still has a place in the graph of its keys and of a learnt temperature.
        return (product(query, keys) / temperature).sum(1)
    partner = torch.arange(begin, begin + len(query), device=query.device)
    return F.cross_entropy(product(query, keys) / temperature, partner, reduction="none")


def _row_weights(
    x: Tensor, mask: Tensor | None, weight: Tensor | None, reduction: Reduction, group: ProcessGroup | None
) -> tuple[Tensor | None, Tensor, float]:
    """The anchors' weights, their sum, and what the backward pass will bring to the total."""
    share = None if weight is None else (weight if mask is None else weight[mask]).to(x.dtype)
    amount = x.new_full((), len(x)) if share is None else share.sum()
    alone = reduction == "mean" and group is None and float(amount) > 0
    return share, amount, float(1 / amount) if alone else 1.0


@loss("contrastive", "-log softmax(s_i / T)_i", "0..inf", "queries and their keys, one direction", module="InfoNCE")
def info_nce(
    query: Tensor,
    key: Tensor,
    *,
    temperature: Positive | Tensor = 0.1,
    similarity: Similarity = "cosine",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """-log exp(s_ii / T) / sum_j exp(s_ij / T): which key belongs to this query; range 0..inf.

    s is the similarity of query i and key j; row i of both is a pair, every other key is a negative. All-equal
    embeddings give ln N.

    >>> import torch
    >>> round(info_nce(torch.ones(8, 3), torch.ones(8, 3)).item(), 4)  # ln 8
    2.0794

    Source: van den Oord et al., Representation learning with contrastive predictive coding (2018).
    """
    (q, k), read = rows("info_nce", {"query": query, "key": key}, similarity, mask, weight, check)
    t = require_temperature("info_nce", temperature, read)
    keys, begin = gather(k, group), first_row(len(k), group)
    if reduction != "none" and blocks.suits(q, keys, None, (mask, weight)):
        share, amount, scale = _row_weights(q, mask, weight, reduction, group)

        def twin(x: Tensor, y: Tensor, heat: Tensor) -> Tensor:
            values = _toward(x, y, heat, begin)
            return (values if share is None else values * share).sum()

        total = blocks.row_total(q, keys, t, begin, share, scale, twin)
        return finish("info_nce", total, amount, reduction=reduction, check=read, group=group)
    return finish_rows("info_nce", _toward(q, keys, t, begin), None, mask, weight, reduction, read, group)


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
    group: ProcessGroup | None = None,
) -> Tensor:
    """The mean of `info_nce` from `first` to `second` and back; range 0..inf.

    >>> import torch
    >>> round(clip_loss(torch.ones(8, 3), torch.ones(8, 3)).item(), 4)
    2.0794

    Source: Radford et al., Learning transferable visual models from natural language supervision (2021).
    """
    (a, b), read = rows("clip_loss", {"first": first, "second": second}, similarity, mask, weight, check)
    t = require_temperature("clip_loss", temperature, read)
    begin, every = first_row(len(a), group), (gather(a, group), gather(b, group))
    if reduction != "none" and blocks.suits(a, every[1], None, (mask, weight)):
        share, amount, scale = _row_weights(a, mask, weight, reduction, group)

        def one_way(x: Tensor, y: Tensor, heat: Tensor) -> Tensor:
            values = _toward(x, y, heat, begin)
            return (values if share is None else values * share).sum()

        if group is None:
            total = blocks.both_total(a, b, t, share, scale, lambda x, y, h: (one_way(x, y, h) + one_way(y, x, h)) / 2)
        else:
            ways = (
                blocks.row_total(x, y, t, begin, share, scale / 2, one_way) for x, y in ((a, every[1]), (b, every[0]))
            )
            total = sum(ways, a.new_zeros(())) / 2
        return finish("clip_loss", total, amount, reduction=reduction, check=read, group=group)
    values = (_toward(a, every[1], t, begin) + _toward(b, every[0], t, begin)) / 2
    return finish_rows("clip_loss", values, None, mask, weight, reduction, read, group)


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
    group: ProcessGroup | None = None,
) -> Tensor:
    """`info_nce` where all other 2N - 2 rows of both views are negatives; range 0..inf.

    The mean is over both rows of each pair; reduction="none" gives the mean of the two for each pair, (N,).
    All-equal embeddings give ln(2N - 1).

    >>> import torch
    >>> round(nt_xent(torch.ones(8, 3), torch.ones(8, 3)).item(), 4)  # ln 15
    2.7081

    Source: Chen et al., A simple framework for contrastive learning (SimCLR, 2020).
    """
    (a, b), read = rows("nt_xent", {"first": first, "second": second}, similarity, mask, weight, check)
    t = require_temperature("nt_xent", temperature, read)
    begin, every = first_row(len(a), group), (gather(a, group), gather(b, group))
    own = own_columns(len(a), len(every[0]), begin, a.device)
    values = (_without_self(a, every[0], every[1], t, own) + _without_self(b, every[1], every[0], t, own)) / 2
    return finish_rows("nt_xent", values, None, mask, weight, reduction, read, group)


def _without_self(x: Tensor, same: Tensor, other: Tensor, temperature: Positive | Tensor, own: Tensor) -> Tensor:
    """-log softmax at the partner in `other`, over all of `other` and of `same` but the row itself."""
    among = (product(x, same) / temperature).masked_fill(own, -torch.inf)
    across = product(x, other) / temperature
    if not len(x):
        return (among + across).sum(1)
    return torch.logsumexp(torch.cat((across, among), 1), 1) - across[own]


@loss("contrastive", "info_nce without the pair below the line", "any", "small batches")
def decoupled(
    query: Tensor,
    key: Tensor,
    *,
    temperature: Positive | Tensor = 0.1,
    similarity: Similarity = "cosine",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """-s_ii / T + log sum_{j != i} exp(s_ij / T): `info_nce` without the pair among its rivals; any sign.

    A pair that is already close keeps its full gradient, which helps small batches. An anchor without a negative is
    left out.

    >>> import torch
    >>> round(decoupled(torch.ones(8, 3), torch.ones(8, 3)).item(), 4)  # ln 7
    1.9459

    Source: Yeh et al., Decoupled contrastive learning (2022).
    """
    (q, k), read = rows("decoupled", {"query": query, "key": key}, similarity, mask, weight, check)
    t = require_temperature("decoupled", temperature, read)
    keys = gather(k, group)
    logits = product(q, keys) / t
    if len(keys) < 2:
        nobody = torch.zeros(len(q), dtype=torch.bool, device=q.device)
        return finish_rows("decoupled", logits.sum(1), nobody, mask, weight, reduction, read, group)
    own = own_columns(len(q), len(keys), first_row(len(k), group), q.device)
    values = torch.logsumexp(logits.masked_fill(own, -torch.inf), 1) - logits[own]
    return finish_rows("decoupled", values, None, mask, weight, reduction, read, group)


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
    group: ProcessGroup | None = None,
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
    (a, b), read = rows("siglip", {"first": first, "second": second}, similarity, mask, weight, check)
    t = require_temperature("siglip", temperature, read)
    if isinstance(bias, Tensor) and bias.numel() != 1:
        raise LossInputError(f"siglip: bias must have one element, got shape {shape(bias)}")
    keys = gather(b, group)
    logits = product(a, keys) / t + (bias.reshape(()) if isinstance(bias, Tensor) else bias)
    own = own_columns(len(a), len(keys), first_row(len(b), group), a.device)
    values = -F.logsigmoid(torch.where(own, logits, -logits)).sum(1)
    return finish_rows("siglip", values, None, mask, weight, reduction, read, group)
