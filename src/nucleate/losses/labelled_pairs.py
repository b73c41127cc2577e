"""Contrastive losses whose pairs are given: rows of the same label, and pixels matched between two views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.distributed import first_row, gather
from nucleate.losses.embeddings import (
    finish_rows,
    own_columns,
    product,
    require_temperature,
    rows,
    unit,
)
from nucleate.losses.options import Negatives, Positive, Reduction, Similarity
from nucleate.losses.reduction import held, reduce, select, times
from nucleate.losses.registry import loss
from nucleate.losses.targets import position_weights, positions_of
from nucleate.losses.validation import checking, require_choice, require_floating, require_mask, require_shape, shape

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

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
    group: ProcessGroup | None = None,
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
    (x,), read = rows(name, {"features": features}, similarity, mask, weight, check)
    if labels.is_floating_point():
        raise LossInputError(f"{name}: labels must be of an integer type, got {labels.dtype}")
    require_shape(name, "labels", labels, (len(features),), "the rows of features")
    t = require_temperature(name, temperature, read)
    mine = labels.long() if mask is None else labels.long()[mask]
    every, label = gather(x, group), gather(mine, group)
    own = own_columns(len(x), len(every), first_row(len(x), group), x.device)
    positive = (mine.unsqueeze(1) == label) & ~own
    logits = (product(x, every) / t).masked_fill(own, -torch.inf)
    found = positive.sum(1)
    anchor = found > 0
    # An anchor alone in the batch has only -inf to normalise over; it is left out below and needs a finite row here.
    logits = torch.where(anchor.unsqueeze(1), logits, 0.0)
    log_share = F.log_softmax(logits, 1).masked_fill(~positive, 0.0)
    values = -log_share.sum(1) / found.clamp(min=1)
    return finish_rows(name, values, anchor, mask, weight, reduction, read, group)


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
    group: ProcessGroup | None = None,
) -> Tensor:
    """`info_nce` for pixels: each pixel of `query` against the pixels of `key`, one of which shows the same place.

    Args:
        query: features (N, D, H, W) of the first view; any number of spatial axes.
        key: features (N, D, H', W') of the second view of the same images.
        match: (N, H, W), an integer type: the index y' W' + x' of the matching pixel in `key`, -1 for none.
        negatives: "image", the other pixels of the same image's `key`; "batch", of all images (and of all ranks).
        mask, weight: the shape of `match`; which pixels are anchors, and their weight.
        temperature, similarity, reduction, check, group: as in `info_nce`.

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
    anchor = match >= 0 if mask is None else (match >= 0) & mask
    every_key = held(key).flatten(2).transpose(1, 2)
    keys = unit(every_key) if similarity == "cosine" else every_key
    queries = held(query).flatten(2).transpose(1, 2)
    wanted, where = match.flatten(1).long(), anchor.flatten(1)
    offset = 0
    if negatives == "batch":
        offset = first_row(len(keys) * keys.shape[1], group)
        everything = gather(keys.reshape(-1, keys.shape[2]), group)
    found = []
    for n in range(len(queries)):
        q = queries[n][where[n]]
        q = unit(q) if similarity == "cosine" else q
        pixels = everything if negatives == "batch" else keys[n]
        partner = wanted[n][where[n]] + (offset + n * keys.shape[1] if negatives == "batch" else 0)
        logits = product(q, pixels) / t
        found.append(logits.logsumexp(1) - logits.gather(1, partner.unsqueeze(1)).squeeze(1))
    # A rank without images still takes part in the backward pass of the gather, and of a learnt temperature.
    pool = everything if negatives == "batch" else keys.flatten(0, 1)
    nothing = (queries.flatten(0, 1)[:0] * pool[:0]).sum(1) / t
    values = torch.cat([nothing, *found])
    values = torch.zeros(match.shape, dtype=values.dtype, device=values.device).masked_scatter(anchor, values)
    values = values if each is None else times(each.to(values.dtype), values)
    weights = select(torch.ones_like(values) if each is None else each.to(values.dtype), anchor)
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)


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
    if match.is_floating_point() or match.dtype == torch.bool:
        raise LossInputError(f"{name}: match must hold pixel indices of an integer type, got {match.dtype}")
    require_shape(name, "match", match, positions_of(query, 1), "the pixels of query")
    if mask is not None:
        require_mask(name, mask, positions_of(query, 1), "the pixels of query")
    read = checking(check, query)
    pixels = key[0, 0].numel() if len(key) else 0
    if read and match.numel() and not -1 <= int(match.min()) <= int(match.max()) < pixels:
        raise LossInputError(
            f"{name}: match must hold -1 or a pixel of key in 0..{pixels - 1}, but holds {int(match.min())} and "
            f"{int(match.max())}"
        )
    return read
