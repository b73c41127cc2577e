"""Overlap losses: one minus how well the predicted region covers the labelled one, for each class of each image.

A prediction is logits along `class_dim` (a bare tensor) or said as Probabilities or LogProbabilities; the target is
class indices, or one-hot or soft labels in the prediction's shape. With `multilabel` every channel is a yes or no of
its own (sigmoid, one channel allowed) and the target has the prediction's shape.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.distribution import Distribution, safe_power
from nucleate.losses.options import Empty, NotNegative, Over, Positive, Reduction
from nucleate.losses.reduction import quotient, reduce, select
from nucleate.losses.regions import Counts, counts
from nucleate.losses.registry import loss
from nucleate.losses.validation import require_between, require_choice

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["dice", "focal_tversky", "generalized_dice", "jaccard", "tversky"]


def overlap(
    name: str,
    c: Counts,
    false_positives: NotNegative,
    false_negatives: NotNegative,
    gamma: Positive,
    smooth: NotNegative,
    empty: Empty,
    over: Over,
    reduction: Reduction,
    group: Group | None,
) -> Tensor:
    """(1 - TP / (TP + a FP + b FN))^gamma for each image and class: Dice, Jaccard and Tversky are choices of a, b."""
    require_choice(name, "empty", empty, ("penalize", "skip"))
    require_between(name, "smooth", smooth, 0.0, math.inf)
    wrong = false_positives * (c.predicted - c.both).clamp(min=0) + false_negatives * (c.labelled - c.both).clamp(min=0)
    present = c.labelled > 0
    # With no labelled pixel the score would be 0 or 0 / 0 and have no slope: count what was predicted in vain
    # against one pixel, so that nothing costs nothing and every pixel more costs more.
    floor = torch.where(present, wrong.new_full((), smooth), max(smooth, 1.0))
    values = safe_power(quotient(wrong, c.both + wrong + floor), gamma)
    counted = c.counted if empty == "penalize" else c.counted & present
    weights = counted.to(values.dtype)
    if c.class_weight is not None:
        weights = weights * c.class_weight.to(values.dtype)
    values = select(values, counted) * weights
    return reduce(name, values, weights, reduction=reduction, check=c.read, group=group, whole=over == "batch")


@loss("overlap", "1 - 2 |P and T| / (|P| + |T|)", "0..1", "small regions on a large background")
def dice(
    prediction: Tensor | Distribution,
    target: Tensor,
    *,
    class_dim: int = 1,
    multilabel: bool = False,
    over: Over = "image",
    empty: Empty = "penalize",
    smooth: NotNegative = 0.0,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """1 - 2 |P and T| / (|P| + |T|) for each class of each image; range 0..1.

    Args:
        prediction: logits (N, C, ...), or Probabilities(p), LogProbabilities(l).
        target: class indices (N, ...), or one-hot or soft labels in the prediction's shape. |P and T| is the sum of
            the smaller of p and t, which is p t for hard labels, so that soft labels are best met by p = t.
        multilabel: each channel is a yes or no of its own.
        over: "image", one value for each image and class, or "batch", one value for each class of all images (and
            of all ranks of `group`).
        empty: for a class without a labelled pixel: "penalize" gives a / (a + 1) for half the pixels a that were
            predicted in vain; "skip" leaves it out of the mean.
        smooth: pixels added to numerator and denominator, halved.
        mask: boolean, the shape of the positions; True selects.
        class_weight: one weight for each class, shape (C,); 0 leaves a class, such as background, out.
        weight: what each position counts for, as so many pixels.
        ignore_index: an index in `target` that leaves its position out.
        reduction: "mean" over images and classes by weight, "sum", or "none" for (N, C), (1, C) over the batch.

    >>> import torch
    >>> logits = torch.tensor([[[9.0, 9.0, -9.0, -9.0], [-9.0, -9.0, 9.0, 9.0]]]) * 9
    >>> dice(logits, torch.tensor([[0, 0, 0, 1]]), reduction="none").tolist()
    [[0.20000000298023224, 0.3333333432674408]]

    Source: Milletari et al., V-Net (2016); soft labels: Wang et al., Dice semimetric losses (2023).
    """
    c = counts(
        "dice", prediction, target, class_dim, multilabel, mask, class_weight, weight, ignore_index, check, over, group
    )
    return overlap("dice", c, 0.5, 0.5, 1.0, smooth / 2, empty, over, reduction, group)


@loss("overlap", "dice with classes weighed by 1 / |T|^2", "0..1", "classes of very different size")
def generalized_dice(
    prediction: Tensor | Distribution,
    target: Tensor,
    *,
    class_dim: int = 1,
    multilabel: bool = False,
    over: Over = "image",
    empty: Empty = "penalize",
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """1 - 2 sum_c v_c |P_c and T_c| / sum_c v_c (|P_c| + |T_c|), v_c = 1 / |T_c|^2, for each image; range 0..1.

    A class without a labelled pixel takes the largest v of the image ("penalize") or none ("skip"). `class_weight` (one
    for each class) multiplies v. reduction="none" gives (N,), or (1,) over the batch.

    >>> import torch
    >>> logits = torch.tensor([[[9.0, 9.0, -9.0, -9.0], [-9.0, -9.0, 9.0, 9.0]]]) * 9
    >>> round(generalized_dice(logits, torch.tensor([[0, 0, 0, 1]])).item(), 4)
    0.3125

    Source: Sudre et al., Generalised Dice overlap as a deep learning loss function (2017).
    """
    name = "generalized_dice"
    require_choice(name, "empty", empty, ("penalize", "skip"))
    c = counts(
        name, prediction, target, class_dim, multilabel, mask, class_weight, weight, ignore_index, check, over, group
    )
    present = c.labelled > 0
    share = torch.where(present, c.labelled.masked_fill(~present, 1.0) ** -2, 0.0)
    if empty == "penalize":
        largest = share.amax(1, keepdim=True)
        share = torch.where(present, share, largest.masked_fill(largest == 0, 1.0))
    if c.class_weight is not None:
        share = share * c.class_weight.to(share.dtype)
    either = c.predicted + c.labelled
    wrong = (share * (either - 2 * c.both)).sum(1)
    # With nothing labelled at all, what was predicted in vain is counted against one pixel, as in `dice`.
    nothing = (~present).all(1).to(share.dtype)
    counted = c.counted.any(1) if empty == "penalize" else c.counted.any(1) & present.any(1)
    values = select(quotient(wrong, (share * either).sum(1) + nothing), counted)
    weights = counted.to(values.dtype)
    return reduce(name, values, weights, reduction=reduction, check=c.read, group=group, whole=over == "batch")


@loss("overlap", "1 - |P and T| / |P or T|", "0..1", "the score itself is intersection over union")
def jaccard(
    prediction: Tensor | Distribution,
    target: Tensor,
    *,
    class_dim: int = 1,
    multilabel: bool = False,
    over: Over = "image",
    empty: Empty = "penalize",
    smooth: NotNegative = 0.0,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """1 - |P and T| / |P or T| for each class of each image; range 0..1. Dice D and Jaccard J: D = 2J / (1 + J).

    >>> import torch
    >>> logits = torch.tensor([[[9.0, 9.0, -9.0, -9.0], [-9.0, -9.0, 9.0, 9.0]]]) * 9
    >>> jaccard(logits, torch.tensor([[0, 0, 0, 1]]), reduction="none").tolist()
    [[0.3333333432674408, 0.5]]

    Source: P. Jaccard (1901); as a loss: Rahman and Wang, Optimizing intersection-over-union (2016).
    """
    c = counts(
        "jaccard",
        prediction,
        target,
        class_dim,
        multilabel,
        mask,
        class_weight,
        weight,
        ignore_index,
        check,
        over,
        group,
    )
    return overlap("jaccard", c, 1.0, 1.0, 1.0, smooth, empty, over, reduction, group)


@loss("overlap", "1 - TP / (TP + a FP + b FN)", "0..1", "misses and false alarms that cost differently")
def tversky(
    prediction: Tensor | Distribution,
    target: Tensor,
    *,
    false_positives: NotNegative = 0.3,
    false_negatives: NotNegative = 0.7,
    class_dim: int = 1,
    multilabel: bool = False,
    over: Over = "image",
    empty: Empty = "penalize",
    smooth: NotNegative = 0.0,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """1 - TP / (TP + a FP + b FN) with a = `false_positives`, b = `false_negatives`; range 0..1.

    a = b = 1/2 is `dice`, a = b = 1 is `jaccard`; a small a finds more at the price of false alarms.

    Args:
        false_positives: a, what a pixel predicted in vain costs; at least 0.
        false_negatives: b, what a missed pixel costs; at least 0.

    >>> import torch
    >>> logits = torch.tensor([[[9.0, 9.0, -9.0, -9.0], [-9.0, -9.0, 9.0, 9.0]]]) * 9
    >>> [round(v, 4) for v in tversky(logits, torch.tensor([[0, 0, 0, 1]]), reduction="none")[0].tolist()]
    [0.2593, 0.2308]

    Source: Salehi et al., Tversky loss function for image segmentation (2017).
    """
    return focal_tversky_of(
        "tversky", prediction, target, false_positives, false_negatives, 1.0, class_dim, multilabel, over, empty,
        smooth, mask, class_weight, weight, ignore_index, reduction, check, group,
    )  # fmt: skip


@loss("overlap", "tversky^g", "0..1", "tversky, with more or less weight on nearly solved images")
def focal_tversky(
    prediction: Tensor | Distribution,
    target: Tensor,
    *,
    false_positives: NotNegative = 0.3,
    false_negatives: NotNegative = 0.7,
    gamma: Positive = 0.75,
    class_dim: int = 1,
    multilabel: bool = False,
    over: Over = "image",
    empty: Empty = "penalize",
    smooth: NotNegative = 0.0,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """(1 - TP / (TP + a FP + b FN))^gamma; range 0..1. A gamma below 1 keeps a steep slope for good predictions.

    At a perfect prediction the gradient is 0 for every gamma.

    Args:
        false_positives: a, what a pixel predicted in vain costs; at least 0.
        false_negatives: b, what a missed pixel costs; at least 0.
        gamma: the power; above 0; below 1 stresses nearly solved images, above 1 hard ones.

    >>> import torch
    >>> logits = torch.tensor([[[9.0, 9.0, -9.0, -9.0], [-9.0, -9.0, 9.0, 9.0]]]) * 9
    >>> [round(v, 4) for v in focal_tversky(logits, torch.tensor([[0, 0, 0, 1]]), reduction="none")[0].tolist()]
    [0.3633, 0.333]

    Source: Abraham and Khan, A novel focal Tversky loss function (2019), whose 1/gamma is this gamma.
    """
    return focal_tversky_of(
        "focal_tversky", prediction, target, false_positives, false_negatives, gamma, class_dim, multilabel, over,
        empty, smooth, mask, class_weight, weight, ignore_index, reduction, check, group,
    )  # fmt: skip


def focal_tversky_of(
    name: str,
    prediction: Tensor | Distribution,
    target: Tensor,
    false_positives: NotNegative,
    false_negatives: NotNegative,
    gamma: Positive,
    class_dim: int,
    multilabel: bool,
    over: Over,
    empty: Empty,
    smooth: NotNegative,
    mask: Tensor | None,
    class_weight: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | None,
    reduction: Reduction,
    check: bool | None,
    group: Group | None,
) -> Tensor:
    for said, value in (("false_positives", false_positives), ("false_negatives", false_negatives)):
        require_between(name, said, value, 0.0, math.inf)
    if not 0 < gamma < math.inf:
        raise LossInputError(f"{name}: gamma must be positive and finite, got {gamma:g}")
    c = counts(
        name, prediction, target, class_dim, multilabel, mask, class_weight, weight, ignore_index, check, over, group
    )
    return overlap(name, c, false_positives, false_negatives, gamma, smooth, empty, over, reduction, group)
