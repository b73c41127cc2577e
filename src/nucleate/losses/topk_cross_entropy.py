"""Cross entropy of the hardest positions alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.cross_entropy import cross_entropy_of
from nucleate.losses.distributed import first_row, gather
from nucleate.losses.options import Normalize, Over, Reduction, Share
from nucleate.losses.reduction import select
from nucleate.losses.registry import loss
from nucleate.losses.targets import class_axis, class_target, class_weights, position_weights
from nucleate.losses.validation import checking, require_between, require_choice

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["topk_cross_entropy"]


@loss(
    "cross entropy",
    "cross entropy of the hardest share k",
    "0..inf",
    "few pixels are hard, and they are to decide",
    module="TopKCrossEntropy",
)
def topk_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    k: Share = 0.1,
    over: Over = "image",
    class_dim: int = 1,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: Share = 0.0,
    normalize: Normalize = "weight",
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The cross entropy of the share `k` of positions at which it is largest, the others left out; range 0..inf.

    Of the n selected positions of an image the ceil(k n) hardest count, as if `mask` chose them; which ones has no
    gradient. So the loss is a sum over images, and parts of a batch or ranks of `group` add up to the whole. A batch
    without images, logits (N, C), has one position each: say over="batch" there.

    Args:
        k: the share of the selected positions, in 0..1; nnU-Net's TopK10 is 0.1. 1 gives `cross_entropy`, and so
            does over="image" of one position each.
        over: "image", the hardest of each image, or "batch", the hardest of all images (and of all ranks of `group`).
            An image is what lies along the first axis.
        mask: boolean, the shape of the positions; True selects what the hardest are chosen from.
        class_weight: one weight for each class, shape (C,); the hardest are those of the largest weighted value.
        weight: one weight for each position; 0, by its class too, leaves it out before the hardest are chosen.
        reduction: as in `cross_entropy`; "none" holds 0 where a position is not among the hardest.

    >>> import torch
    >>> probability = torch.tensor([[[0.9, 0.8, 0.5, 0.2], [0.1, 0.2, 0.5, 0.8]]])  # one image of four pixels
    >>> label = torch.zeros(1, 4, dtype=torch.long)
    >>> round(topk_cross_entropy(probability.log(), label, k=0.25).item(), 4)  # -ln 0.2
    1.6094

    Source: Wu et al., Bridging category-level and instance-level semantic image segmentation (2016); as a share of
    the pixels, Isensee et al., nnU-Net (2021).
    """
    name = "topk_cross_entropy"
    require_between(name, "k", k, 0.0, 1.0)
    require_choice(name, "over", over, ("image", "batch"))
    read = checking(check, logits)
    dim, _, positions = class_axis(name, logits, class_dim)
    # Detached: what weighs nothing is left out before the choice, which has no gradient, also where weights are learnt.
    w, each = class_weights(name, class_weight, logits, dim, read), position_weights(name, weight, positions, read)
    w, each = (None if x is None else x.detach() for x in (w, each))
    t = class_target(
        name, logits, target, class_dim=dim, mask=mask, ignore_index=ignore_index, read=read, weight=each,
        class_weight=w, smoothing=label_smoothing,
    )  # fmt: skip
    if over == "image" and dim == 0:
        raise LossInputError(
            f"{name}: over='image' needs images along dimension 0, where the classes are; say over='batch'"
        )
    rule = class_weight, weight, ignore_index, label_smoothing, normalize
    values = cross_entropy_of(name, logits.detach(), target, dim, t.selected, *rule, "none", check, None)
    hard = _hardest(values, t.selected, k, over, group)
    return cross_entropy_of(name, logits, target, dim, hard, *rule, reduction, False if read else check, group)


def _hardest(values: Tensor, selected: Tensor | None, k: float, over: Over, group: Group | None) -> Tensor:
    """Boolean, True at the ceil(k n) largest of the n selected values of each image, or of all of them."""
    ranked = select(values.detach(), selected, -1.0)  # the values are at least 0
    if over == "image":
        return _largest(ranked.unsqueeze(-1).flatten(1), k, selected is None).reshape(values.shape)
    every = gather(ranked.flatten(), group)
    begin = first_row(ranked.numel(), group)
    whole = selected is None and group is None
    return _largest(every.unsqueeze(0), k, whole)[0, begin : begin + ranked.numel()].reshape(values.shape)


def _largest(rows: Tensor, k: float, whole: bool) -> Tensor:
    """True at the ceil(k n) largest of the n numbers of each row that are not -1; `whole` says that none is."""
    if not rows.numel():
        return torch.zeros_like(rows, dtype=torch.bool)
    exact = k * (1 - 1e-12)  # a product that is a whole number may be one bit above it
    most = math.ceil(exact * rows.shape[1])
    found, at = rows.topk(most, dim=1, sorted=not whole)
    counted = torch.ones_like(at, dtype=torch.bool)
    if not whole:
        wanted = torch.ceil(exact * (rows != -1).sum(1, keepdim=True).double())
        counted = (torch.arange(most, device=rows.device) < wanted) & (found != -1)
    return torch.zeros_like(rows, dtype=torch.bool).scatter(1, at, counted)
