"""The last linear layer and its cross entropy in one, so that the logits of many classes are never held."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.cross_entropy import cross_entropy_of
from nucleate.losses.kernels import blocks
from nucleate.losses.options import Normalize, Reduction, Share
from nucleate.losses.reduction import finish, held
from nucleate.losses.registry import POSITION_WEIGHT, loss
from nucleate.losses.targets import class_target, class_weights, position_weights, positions_of, separate_weights
from nucleate.losses.validation import checking, require_choice, require_floating, require_shape, shape

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["linear_cross_entropy"]


@loss(
    "cross entropy",
    "cross_entropy(W x + b)",
    "0..inf",
    "so many classes that their logits do not fit",
    renamed=POSITION_WEIGHT,
)
def linear_cross_entropy(
    features: Tensor,
    projection: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    class_dim: int = 1,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: Share = 0.0,
    normalize: Normalize = "weight",
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """`cross_entropy` of the logits `projection` @ features + `bias`; range 0..inf.

    Args:
        features: (N, D), (N, D, H, W), ... with the D features along `class_dim`.
        projection: (C, D), one row for each class, as `torch.nn.Linear` holds it.
        bias: (C,), added to the logits.
        target: class indices in the shape of the features without `class_dim`, or probabilities with C there.

    >>> import torch
    >>> x, w, label = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    >>> round(linear_cross_entropy(x, w, label).item(), 4)  # log(1 + e^-2)
    0.1269

    Source: I. J. Good, Rational decisions (1952).
    """
    name = "linear_cross_entropy"
    require_floating(name, "features", features)
    require_floating(name, "projection", projection)
    if not -features.ndim <= class_dim < features.ndim:
        raise LossInputError(f"{name}: class_dim={class_dim} is not a dimension of features of shape {shape(features)}")
    dim = class_dim % features.ndim
    if projection.ndim != 2 or projection.shape[1] != features.shape[dim]:
        raise LossInputError(
            f"{name}: projection of shape {shape(projection)} must be (classes, {features.shape[dim]}) to fit features "
            f"of shape {shape(features)} along dimension {dim}"
        )
    if bias is not None:
        require_shape(name, "bias", bias, (len(projection),), "the classes")
    with torch.autocast(features.device.type, enabled=False):
        kind = torch.promote_types(held(features).dtype, held(projection).dtype)
        rows, layer = features.to(kind).movedim(dim, -1), projection.to(kind)
        offset = None if bias is None else bias.to(kind)
        class_weight, weight = separate_weights(
            name, class_weight, weight, len(projection), positions_of(features, dim)
        )
        if (
            reduction != "none"
            and label_smoothing == 0
            and blocks.suits(rows, layer, offset, (target, mask, class_weight, weight))
        ):
            result = _in_blocks(
                name, rows, layer, offset, target, mask, class_weight, weight, ignore_index, normalize, reduction,
                checking(check, features), group,
            )  # fmt: skip
            if result is not None:
                return result
        logits = F.linear(rows, layer, offset).movedim(-1, dim)
    return cross_entropy_of(
        name, logits, target, dim, mask, class_weight, weight, ignore_index, label_smoothing, normalize, reduction,
        check, group,
    )  # fmt: skip


def _in_blocks(
    name: str,
    features: Tensor,
    projection: Tensor,
    bias: Tensor | None,
    target: Tensor,
    mask: Tensor | None,
    class_weight: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | None,
    normalize: Normalize,
    reduction: Reduction,
    read: bool,
    group: ProcessGroup | None,
) -> Tensor | None:
    """The same for class indices without ever holding the logits; None for other targets. Features come last here."""
    classes, positions = len(projection), tuple(features.shape[:-1])
    if target.is_floating_point() or target.shape != positions:
        return None
    require_choice(name, "normalize", normalize, ("weight", "count"))
    # One row stands for the logits, whose classes are all that is needed to check a target.
    outline = features.new_empty(()).expand(*positions, classes)
    t = class_target(name, outline, target, class_dim=-1, mask=mask, ignore_index=ignore_index, read=read)
    w = class_weights(name, class_weight, outline, len(positions), read)
    each = position_weights(name, weight, positions, read)
    assert t.index is not None
    label = t.index.reshape(-1)
    share = None if w is None else w.flatten()[label]
    if each is not None:
        share = each.flatten().to(features.dtype) if share is None else share * each.flatten()
    rows = features.reshape(-1, features.shape[-1])
    chosen = None if t.selected is None else t.selected.reshape(-1)
    if chosen is not None:
        rows, label, share = rows[chosen], label[chosen], None if share is None else share[chosen]
    count = rows.new_full((), len(rows))
    amount = count if share is None or normalize == "count" else share.sum()
    alone = reduction == "mean" and group is None and float(amount) > 0
    total = blocks.linear_total(
        rows, projection, bias, label, share, float(1 / amount) if alone else 1.0, partial(_plain_total, label, share)
    )
    return finish(name, total, amount, reduction=reduction, check=read, group=group)


def _plain_total(
    label: Tensor, share: Tensor | None, rows: Tensor, projection: Tensor, bias: Tensor | None = None
) -> Tensor:
    values = F.cross_entropy(F.linear(rows, projection, bias), label, reduction="none")
    return (values if share is None else values * share).sum()
