"""Margins between several scores: the label's class above the others, one of two above the other, near and far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.distribution import safe_power, safe_sqrt
from nucleate.losses.margin import signs
from nucleate.losses.options import Labels, Normalize, NotNegative, Reduction
from nucleate.losses.reduction import held, reduce, select, times
from nucleate.losses.registry import POSITION_WEIGHT, loss
from nucleate.losses.targets import (
    class_axis,
    class_target,
    class_weights,
    hard_target,
    labelled,
    position_weights,
    positions_of,
    selection,
    separate_weights,
    weigh,
)
from nucleate.losses.validation import (
    checking,
    require_between,
    require_choice,
    require_floating,
    require_mask,
    require_shape,
    require_weights,
    shape,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["margin_ranking", "multiclass_hinge", "triplet_margin"]


@loss("margin", "max(0, m + s_j - s_y)", "0..inf", "several classes by margin", renamed=POSITION_WEIGHT)
def multiclass_hinge(
    logits: Tensor,
    target: Tensor,
    *,
    kind: Literal["crammer-singer", "weston-watkins"] = "crammer-singer",
    margin: NotNegative = 1.0,
    class_dim: int = 1,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    normalize: Normalize = "weight",
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """How far the label's score y is from leading by `margin`; range 0..inf.

    "crammer-singer": max(0, margin + max_{j != y} s_j - s_y), the strongest rival; "weston-watkins":
    sum_{j != y} max(0, margin + s_j - s_y), every rival.

    Args:
        kind: "crammer-singer" takes the strongest rival, "weston-watkins" the sum over all.
        logits: raw scores with the classes along `class_dim`.
        target: class indices or one-hot rows.
        margin: by how much the label's score should lead; at least 0.
        mask: boolean, one value for each position; True selects.
        weight: one weight for each position; finite, at least 0.

    >>> import torch
    >>> scores, label = torch.tensor([[2.0, 1.5, 1.25]]), torch.tensor([0])
    >>> [multiclass_hinge(scores, label, kind=kind).item() for kind in ("crammer-singer", "weston-watkins")]
    [0.5, 0.75]

    Source: Crammer and Singer (2001), On the algorithmic implementation of multiclass kernel-based vector machines;
    Weston and Watkins (1999), Support vector machines for multi-class pattern recognition.
    """
    name = "multiclass_hinge"
    require_choice(name, "kind", kind, ("crammer-singer", "weston-watkins"))
    require_choice(name, "normalize", normalize, ("weight", "count"))
    require_between(name, "margin", margin, 0.0, math.inf)
    read = checking(check, logits)
    dim, classes, positions = class_axis(name, logits, class_dim)
    class_weight, weight = separate_weights(name, class_weight, weight, classes, positions)
    w = class_weights(name, class_weight, logits, dim, read)
    each = position_weights(name, weight, positions, read)
    t = class_target(
        name, logits, target, class_dim=dim, mask=mask, ignore_index=ignore_index, read=read, weight=each,
        class_weight=w,
    )  # fmt: skip
    index = hard_target(name, t, read)
    scores = select(held(logits), t.selected_rows)
    rows = index.unsqueeze(t.dim)
    gaps = margin + scores - scores.gather(t.dim, rows)
    own = torch.zeros_like(gaps, dtype=torch.bool).scatter(t.dim, rows, 1)
    gaps = gaps.masked_fill(own, -torch.inf)
    values = F.relu(gaps.amax(t.dim)) if kind == "crammer-singer" else F.relu(gaps).sum(t.dim)
    values = values if t.share is None else times(t.share, values)
    values, weights = weigh(values, t.share, t.selected, each, normalize)
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)


@loss("margin", "max(0, m - y (a - b))", "0..inf", "which of two ranks higher")
def margin_ranking(
    first: Tensor,
    second: Tensor,
    target: Tensor,
    *,
    margin: float = 0.0,
    labels: Labels = "binary",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """max(0, margin - y (first - second)): y = +1 wants `first` above `second`, -1 below; range 0..inf.

    All tensors have one shape; `labels` says how `target` is written, and `ignore_index` what leaves an
    element out, as in `hinge`.

    Args:
        first: scores of the one, any shape.
        second: scores of the other, the same shape.
        target: which of the two should rank higher, written as `labels` says, the same shape.
        margin: by how much; any number.

    >>> import torch
    >>> margin_ranking(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([1]), margin=0.5).item()
    2.5

    Source: Herbrich et al., Large margin rank boundaries for ordinal regression (2000).
    """
    name = "margin_ranking"
    for said, x in (("first", first), ("second", second)):
        require_floating(name, said, x)
    for said, x in (("second", second), ("target", target)):
        require_shape(name, said, x, shape(first), "first")
    if mask is not None:
        require_mask(name, mask, shape(first), "first")
    read = checking(check, first)
    if weight is not None:
        require_weights(name, "weight", weight, shape(first), "first", read)
    mask = selection(labelled(name, target, mask, ignore_index), weight, [first, second])
    gap = select(held(first), mask) - select(held(second), mask)
    y = signs(name, target, labels, mask, read, gap)
    values, weights = weigh(F.relu(margin - y * gap), None, mask, weight, "weight")
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)


@loss("margin", "max(0, m + d(a, p) - d(a, n))", "0..inf", "nearer to the like than to the unlike")
def triplet_margin(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 1.0,
    power: float = 2.0,
    swap: bool = False,
    dim: int = 1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """max(0, margin + d(anchor, positive) - d(anchor, negative)), d the `power`-norm along `dim`; range 0..inf.

    The three tensors have one shape, features along `dim`; `mask` and `weight` have that shape without `dim`.
    `swap` takes the nearer of anchor and positive to the negative. The gradient is 0 at distance 0.

    Args:
        anchor: embeddings with their features along `dim`.
        positive: what should be near, the same shape.
        negative: what should be far, the same shape.
        margin: by how much farther; any number.
        power: the norm's power p, at least 1; 2 is the Euclidean distance.
        swap: take the nearer of anchor and positive to the negative.
        dim: the axis of the features.
        mask: boolean, the shape without `dim`; True selects.
        weight: one weight for each triplet, the shape without `dim`.

    >>> import torch
    >>> a, p, n = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    >>> triplet_margin(a, p, n).item()
    4.0

    Source: Schroff et al., FaceNet (2015); the swap: Balntas et al., Learning shallow convolutional feature
    descriptors with triplet losses (2016).
    """
    name = "triplet_margin"
    if not 1 <= power < math.inf:
        raise LossInputError(f"{name}: power must be finite and at least 1, got {power:g}")
    for said, x in (("anchor", anchor), ("positive", positive), ("negative", negative)):
        require_floating(name, said, x)
        require_shape(name, said, x, shape(anchor), "the anchor")
    if not -anchor.ndim <= dim < anchor.ndim:
        raise LossInputError(f"{name}: dim={dim} is not a dimension of the anchor of shape {shape(anchor)}")
    positions = positions_of(anchor, dim % anchor.ndim)
    if mask is not None:
        require_mask(name, mask, positions, "the anchor without its features")
    read = checking(check, anchor)
    each = position_weights(name, weight, positions, read)
    mask = selection(mask, each, [anchor, positive, negative], dim)
    rows = None if mask is None else mask.unsqueeze(dim)
    a, p, n = (select(held(x), rows) for x in (anchor, positive, negative))
    near, far = _distance(a - p, power, dim), _distance(a - n, power, dim)
    far = torch.minimum(far, _distance(p - n, power, dim)) if swap else far
    values, weights = weigh(F.relu(margin + near - far), None, mask, each, "weight")
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)


def _distance(gap: Tensor, power: float, dim: int) -> Tensor:
    """The norm with a zero gradient at 0; scaled by its largest part so that no square overflows or vanishes."""
    scale = gap.detach().abs().amax(dim, keepdim=True)
    scale = scale.masked_fill((scale == 0) | scale.isinf(), 1.0)
    x = gap / scale
    norm = safe_sqrt(x.square().sum(dim)) if power == 2 else safe_power(safe_power(x.abs(), power).sum(dim), 1 / power)
    return norm * scale.squeeze(dim)
