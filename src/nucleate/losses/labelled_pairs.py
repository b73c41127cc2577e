"""Contrastive losses whose pairs are given: rows of the same label, and pixels matched between two views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.contrastive import toward
from nucleate.losses.distributed import first_row, gather
from nucleate.losses.embeddings import alike, batch, finish_rows, require_temperature, unit
from nucleate.losses.kernels.row_blocks import over_products
from nucleate.losses.options import Negatives, Positive, Reduction, Similarity
from nucleate.losses.reduction import reduce, select, times
from nucleate.losses.registry import loss
from nucleate.losses.targets import position_weights, positions_of, selection
from nucleate.losses.validation import (
    checking,
    require_choice,
    require_floating,
    require_integers,
    require_mask,
    require_shape,
    shape,
    transforming,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["dense_info_nce", "sup_con"]


@loss("contrastive", "-mean over positives of log softmax", "0..inf", "labels say which belong together")
def sup_con(
    features: Tensor,
    labels: Tensor,
    *,
    temperature: Positive | Tensor = 0.1,
    similarity: Similarity = "cosine",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """-1/|P(i)| sum_{p in P(i)} log softmax_{a != i}(s_ia / T)_p, P(i) the other rows of i's label; range 0..inf.

    A row without another of its label has no positive: it is a negative for others but no anchor. The weight of
    `total_and_weight` counts the anchors that were used.

    Args:
        labels: the class of each row, any integer type, shape (N,).

    >>> import torch
    >>> from nucleate import losses
    >>> x, label = torch.ones(5, 3), torch.tensor([0, 0, 1, 1, 2])  # the last row has no partner
    >>> total, anchors = losses.total_and_weight(sup_con, x, label)
    >>> round((total / anchors).item(), 4), int(anchors)  # ln 4
    (1.3863, 4)

    Source: Khosla et al., Supervised contrastive learning (2020).
    """
    name = "sup_con"
    found = batch(name, {"features": features}, similarity, mask, weight, check, group)
    require_integers(name, "labels", labels, "labels")
    require_shape(name, "labels", labels, (features.shape[0],), "the rows of features")
    t = require_temperature(name, temperature, found.read)
    (x,) = found.each
    mine = labels.long() if found.chosen is None else labels.long()[found.chosen]
    own = found.row_numbers(first_row(x.shape[0], group))
    each, shared = (own, mine), (gather(mine, group), found.keep)
    values, anchor = over_products(
        x / t, gather(x, group), _toward_same, each, shared, found.expected(reduction)
    ).unbind(1)
    return finish_rows(name, values, anchor > 0, found, reduction, group)


def _toward_same(scores: Tensor, own: Tensor, mine: Tensor, labels: Tensor, keep: Tensor | None) -> Tensor:
    """The value of each row, and 1 where it has positives."""
    others = torch.arange(scores.shape[1], device=scores.device) != own.unsqueeze(1)
    others = others if keep is None else others & keep
    positive = others & (mine.unsqueeze(1) == labels)
    count = positive.sum(1)
    # A row without a positive may be alone, with only -inf to normalise over; it is left out and needs a finite row.
    logits = torch.where(others | (count == 0).unsqueeze(1), scores, -torch.inf)
    log_share = logits.log_softmax(1).masked_fill(~positive, 0.0)
    return torch.stack((-log_share.sum(1) / count.clamp(min=1), (count > 0).to(scores.dtype)), 1)


@loss("contrastive", "info_nce of matched pixels", "0..inf", "pre-training for segmentation", module="DenseInfoNCE")
def dense_info_nce(
    query: Tensor,
    key: Tensor,
    match: Tensor,
    *,
    temperature: Positive | Tensor = 0.1,
    similarity: Similarity = "cosine",
    negatives: Negatives = "image",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """`info_nce` for pixels: each pixel of `query` against the pixels of `key`, one of which shows the same place.

    Args:
        query: features (N, D, H, W) of the first view; any number of spatial axes.
        key: features (N, D, H', W') of the second view of the same images.
        match: (N, H, W), an integer type: the index y' W' + x' of the matching pixel in `key`, -1 for none.
        negatives: "image", the other pixels of the same image's `key`; "batch", of all images (and of all ranks).
        mask, weight: the shape of `match`; which pixels are anchors, and their weight.

    Pixels without a match are left out; the weight of `total_and_weight` counts the others.

    >>> import torch
    >>> x = torch.eye(4).reshape(1, 4, 2, 2)  # four pixels, each its own feature
    >>> round(dense_info_nce(x, x, torch.arange(4).reshape(1, 2, 2), temperature=1.0).item(), 4)  # ln(e + 3) - 1
    0.7437

    Source: Wang et al., Dense contrastive learning (2021); O. Pinheiro et al., Unsupervised learning of dense visual
    representations (2020).
    """
    name = "dense_info_nce"
    read = _require_dense(name, query, key, match, similarity, negatives, mask, check)
    each = position_weights(name, weight, shape(match), read)
    t = require_temperature(name, temperature, read)
    anchor = match >= 0
    chosen = selection(mask, each)
    anchor = anchor if chosen is None else anchor & chosen
    queries, every_key = (x.flatten(2).transpose(1, 2) for x in alike([query, key]))
    keys = unit(every_key) if similarity == "cosine" else every_key
    wanted, where = match.flatten(1).long(), anchor.flatten(1)
    if negatives == "batch":
        columns = [gather(keys.flatten(0, 1), group)]
        first = first_row(len(keys) * keys.shape[1], group)
        images = torch.arange(len(keys), device=match.device).unsqueeze(1)
        wanted = (wanted + first + keys.shape[1] * images).reshape(1, -1)
        queries, where = queries.flatten(0, 1).unsqueeze(0), where.reshape(1, -1)
    else:
        columns = list(keys)
    expected: Sequence[Tensor | None] = [None] * len(where)
    if reduction != "none":
        expected = list(
            (torch.ones_like(match, dtype=keys.dtype) if each is None else each.detach()).reshape(where.shape)
        )
    # A rank without images still takes part in the backward pass of its inputs and of a learnt temperature.
    found = [(queries.flatten(0, 1)[:0] * keys.flatten(0, 1)[:0]).sum(1) / t]
    found += [
        _matched(q, pixels, partner, here, likely, t, similarity)
        for q, pixels, partner, here, likely in zip(queries, columns, wanted, where, expected, strict=True)
    ]
    # `cat` cuts tensors without numbers off the graph, and with them the ranks' second backward pass.
    values = (torch.cat(found) if match.numel() else torch.stack(found).sum(0)).reshape(match.shape)
    weights = select(torch.ones_like(values) if each is None else each.to(values.dtype), anchor)
    values = values if each is None else times(weights, values)
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)


def _matched(
    query: Tensor,
    pixels: Tensor,
    partner: Tensor,
    anchor: Tensor,
    expected: Tensor | None,
    temperature: Positive | Tensor,
    similarity: Similarity,
) -> Tensor:
    """The value of each pixel of `query`, 0 where it is no anchor."""
    if transforming() or query.device.type != "cpu":  # shapes must not depend on values
        q, partner = select(query, anchor.unsqueeze(1)), torch.where(anchor, partner, 0)
    else:
        q, partner = query[anchor], partner[anchor]
        expected = None if expected is None else expected[anchor]
    q = unit(q) if similarity == "cosine" else q
    values = over_products(q / temperature, pixels, toward, (partner, None), (None,), expected)
    if len(values) == len(query):
        return select(values, anchor)
    return values.new_zeros(anchor.shape).masked_scatter(anchor, values)


def _require_dense(
    name: str,
    query: Tensor,
    key: Tensor,
    match: Tensor,
    similarity: Similarity,
    negatives: Negatives,
    mask: Tensor | None,
    check: bool | None,
) -> bool:
    require_choice(name, "similarity", similarity, ("cosine", "dot"))
    require_choice(name, "negatives", negatives, ("image", "batch"))
    require_floating(name, "query", query)
    require_floating(name, "key", key)
    if query.ndim < 3 or key.ndim < 3 or query.shape[:2] != key.shape[:2]:
        raise LossInputError(
            f"{name}: query and key must have shapes (N, D, pixels...) with the same N and D, got {shape(query)} and "
            f"{shape(key)}"
        )
    require_integers(name, "match", match, "pixel indices")
    require_shape(name, "match", match, positions_of(query, 1), "the pixels of query")
    if mask is not None:
        require_mask(name, mask, positions_of(query, 1), "the pixels of query")
    read = checking(check, query)
    pixels = math.prod(key.shape[2:])
    if read and match.numel() and not -1 <= int(match.min()) <= int(match.max()) < pixels:
        raise LossInputError(
            f"{name}: match must hold -1 or a pixel of key in 0..{pixels - 1}, but holds {int(match.min())} and "
            f"{int(match.max())}"
        )
    return read
