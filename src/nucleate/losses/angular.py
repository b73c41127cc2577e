"""Cross entropy of cosines with a margin: each embedding must lie nearer to its class than it would have to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.distribution import safe_sqrt
from nucleate.losses.embeddings import product, unit
from nucleate.losses.options import Angle, Normalize, NotNegative, Positive, Reduction
from nucleate.losses.reduction import held, reduce, select
from nucleate.losses.registry import loss
from nucleate.losses.targets import class_target, class_weights, hard_target, selection, weigh, without_zeros
from nucleate.losses.validation import (
    checking,
    require_between,
    require_choice,
    require_floating,
    require_positive,
    shape,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["arcface", "cosface"]


@loss("contrastive", "cross_entropy(s (cos - m [own class]))", "0..inf", "classes far apart in angle", module="CosFace")
def cosface(
    features: Tensor,
    projection: Tensor,
    target: Tensor,
    *,
    scale: Positive = 64.0,
    margin: NotNegative = 0.35,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    normalize: Normalize = "weight",
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """Cross entropy of the scores s cos_c, less s m for the class y of the row; range 0..inf.

    cos_c is the cosine of a row of `features` and the vector of class c, so that lengths do not count. With a margin
    of 0 it is the cross entropy of scaled cosines.

    Args:
        features: (N, D), one embedding a row.
        projection: (C, D), the vector of each class; learnt.
        target: (N,), class indices of any integer type, or one-hot rows (N, C).
        scale: s, above 0: how sure the cosines, -1..1, may become.
        margin: m, at least 0; a cosine.
        weight: one weight for each row, (N,); a row of weight 0 is not selected.

    >>> import torch
    >>> x, classes = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> round(cosface(x, classes, torch.tensor([0]), scale=2.0, margin=0.5).item(), 4)  # log(1 + e^-1)
    0.3133

    Source: Wang et al., CosFace: large margin cosine loss for deep face recognition (2018).
    """
    require_between("cosface", "margin", margin, 0.0, math.inf)

    def own(x: Tensor, vector: Tensor) -> Tensor:
        return (x * vector).sum(1) - margin

    return _with_margin(
        "cosface", features, projection, target, own, scale, mask, class_weight, weight, ignore_index, normalize,
        reduction, check, group,
    )  # fmt: skip


@loss("contrastive", "cross_entropy(s cos(angle + m [own class]))", "0..inf", "the same, in radians", module="ArcFace")
def arcface(
    features: Tensor,
    projection: Tensor,
    target: Tensor,
    *,
    scale: Positive = 64.0,
    margin: Angle = 0.5,
    easy_margin: bool = False,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    normalize: Normalize = "weight",
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """Cross entropy of the scores s cos(a_c), and s cos(a_y + m) for the class y of the row; range 0..inf.

    a_c is the angle between a row of `features` and the vector of class c. Beyond a_y = pi - m the cosine of a_y + m
    would rise again; there the score is s (cos(a_y) - m sin(m)), which falls with the angle to the end. With
    `easy_margin` the margin holds for angles below pi / 2 alone, and the score is s cos(a_y) beyond. The sine is
    computed as a length, not as sqrt(1 - cos^2), so that it is exact and its slope finite for parallel rows, too.

    Args:
        features: (N, D), one embedding a row.
        projection: (C, D), the vector of each class; learnt.
        target: (N,), class indices of any integer type, or one-hot rows (N, C).
        scale: s, above 0: how sure the cosines, -1..1, may become.
        margin: m in radians, 0..pi / 2.
        easy_margin: no margin for a row at more than a right angle to its class, for a start that is hard otherwise;
            the score then jumps up by s sin(m) at the right angle.
        weight: one weight for each row, (N,); a row of weight 0 is not selected.

    >>> import torch
    >>> x, classes = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> round(arcface(x, classes, torch.tensor([0]), scale=2.0, margin=torch.pi / 3).item(), 4)  # log(1 + e^-1)
    0.3133

    Source: Deng et al., ArcFace: additive angular margin loss for deep face recognition (2019).
    """
    require_between("arcface", "margin", margin, 0.0, math.pi / 2)
    last = 0.0 if easy_margin else -math.cos(margin)  # the cosine of the last angle that the margin is added to
    beyond = 0.0 if easy_margin else margin * math.sin(margin)

    def own(x: Tensor, vector: Tensor) -> Tensor:
        cosine = (x * vector).sum(1)
        sine = safe_sqrt((vector - cosine.unsqueeze(1) * x).square().sum(1))
        moved = math.cos(margin) * cosine - math.sin(margin) * sine
        return torch.where(cosine >= last, moved, cosine - beyond)

    return _with_margin(
        "arcface", features, projection, target, own, scale, mask, class_weight, weight, ignore_index, normalize,
        reduction, check, group,
    )  # fmt: skip


def _with_margin(
    name: str,
    features: Tensor,
    projection: Tensor,
    target: Tensor,
    own: Callable[[Tensor, Tensor], Tensor],
    scale: Positive,
    mask: Tensor | None,
    class_weight: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | None,
    normalize: Normalize,
    reduction: Reduction,
    check: bool | None,
    group: Group | None,
) -> Tensor:
    """Cross entropy of scaled cosines; own(rows, their class vectors) is the cosine of a row's own class, moved."""
    require_positive(name, "scale", scale)
    require_choice(name, "normalize", normalize, ("weight", "count"))
    require_floating(name, "features", features)
    require_floating(name, "projection", projection)
    if features.ndim != 2 or projection.ndim != 2 or projection.shape[1] != features.shape[1]:
        raise LossInputError(
            f"{name}: features and projection must have shapes (N, D) and (classes, D), got {shape(features)} and "
            f"{shape(projection)}"
        )
    read = checking(check, features)
    # One row stands for the scores, whose classes are all that is needed to check a target.
    outline = features.new_empty(()).expand(len(features), len(projection))
    chosen = without_zeros(name, mask, weight, (len(features),), read, [features], 1)
    t = class_target(name, outline, target, class_dim=1, mask=chosen, ignore_index=ignore_index, read=read)
    index = hard_target(name, t, read)
    each = class_weights(name, class_weight, outline, 1, read)
    each = None if each is None else each.flatten()[index]
    selected = selection(t.selected, each, [features], 1)
    kind = torch.promote_types(held(features).dtype, held(projection).dtype)
    x = unit(select(features.to(kind), None if selected is None else selected.unsqueeze(1), fill=1.0))
    vectors = unit(projection.to(kind))
    cosines = product(x, vectors)
    moved = cosines.scatter(1, index.unsqueeze(1), own(x, vectors[index]).unsqueeze(1))
    values = F.cross_entropy(scale * moved, index, reduction="none")
    values = values if each is None else values * each
    pair = weigh(values, each, selected, weight, normalize)
    return reduce(name, *pair, reduction=reduction, check=read, group=group)
