"""The last linear layer and its cross entropy in one, so that the logits of many classes are never held."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.cross_entropy import cross_entropy_of, weighed_surprisal
from nucleate.losses.kernels import blocks, row_blocks
from nucleate.losses.options import Normalize, Reduction, Share
from nucleate.losses.reduction import REDUCTIONS, finish, held, reduce, select
from nucleate.losses.registry import POSITION_WEIGHT, loss
from nucleate.losses.targets import (
    class_target,
    class_weights,
    position_weights,
    positions_of,
    selection,
    separate_weights,
    without_label,
)
from nucleate.losses.validation import (
    checking,
    full_precision,
    require_between,
    require_choice,
    require_floating,
    require_mask,
    require_shape,
    require_tensor,
    shape,
    wants_gradient,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

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
    group: Group | None = None,
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
        require_floating(name, "bias", bias)
        require_shape(name, "bias", bias, (len(projection),), "the classes")
    require_tensor(name, "target", target)
    positions = positions_of(features, dim)
    read = checking(check, features)
    if mask is not None:
        require_mask(name, mask, positions, "the positions of the features")
    class_weight, weight = separate_weights(name, class_weight, weight, len(projection), positions)
    position_weights(name, weight, positions, read)
    selected = selection(mask, weight, [features], dim)
    if ignore_index is not None and target.shape == positions:
        selected = without_label(target, selected, ignore_index)
    # A label whose class weighs 0 is not selected, unless a gradient by the weight of its class is wanted.
    if class_weight is not None and not wants_gradient(class_weight) and target.ndim < features.ndim:
        outline = features.new_zeros(()).expand(*positions, len(projection)).movedim(-1, dim)
        w = class_weights(name, class_weight, outline, dim, read)
        selected = class_target(
            name, outline, target, class_dim=dim, mask=selected, ignore_index=ignore_index, read=read, class_weight=w,
            smoothing=label_smoothing,
        ).selected  # fmt: skip
    with full_precision(features):
        kind = torch.promote_types(held(features).dtype, held(projection).dtype)
        rows, layer = features.to(kind).movedim(dim, -1), projection.to(kind)
        offset = None if bias is None else bias.to(kind)
        if row_blocks.suits(rows, layer, (offset, target, selected, class_weight, weight)):
            return _in_blocks(
                name, rows, layer, offset, target, dim, selected, class_weight, weight, ignore_index,
                label_smoothing, normalize, reduction, read, group,
            )  # fmt: skip
        if selected is not None:  # what is left out may hold anything, and must not reach the layer's gradient
            rows = select(rows, selected.unsqueeze(-1))
        logits = F.linear(rows, layer, offset).movedim(-1, dim)
    return cross_entropy_of(
        name, logits, target, dim, selected, class_weight, weight, ignore_index, label_smoothing, normalize,
        reduction, check, group,
    )  # fmt: skip


def _in_blocks(
    name: str,
    features: Tensor,
    projection: Tensor,
    bias: Tensor | None,
    target: Tensor,
    dim: int,
    selected: Tensor | None,
    class_weight: Tensor | None,
    each: Tensor | None,
    ignore_index: int | None,
    smoothing: float,
    normalize: Normalize,
    reduction: Reduction,
    read: bool,
    group: Group | None,
) -> Tensor:
    """The same without ever holding the logits. Features come last here; `dim` is where a target has its classes."""
    require_choice(name, "normalize", normalize, ("weight", "count"))
    require_choice(name, "reduction", reduction, REDUCTIONS)
    require_between(name, "label_smoothing", smoothing, 0.0, 1.0)
    positions, classes = tuple(features.shape[:-1]), len(projection)
    # One number stands for the logits, whose shape is all that is needed to check a target.
    outline = features.new_empty(()).expand(*positions, classes)
    w = class_weights(name, class_weight, outline, len(positions), read)
    soft = target.ndim == features.ndim and ignore_index is None
    if soft:
        require_shape(name, "target", target, shape(outline.movedim(-1, dim)), "the logits")
        target = target.movedim(dim, -1)
        for part in row_blocks.parts(positions, classes, features.device) if read else ():
            among = None if selected is None else selected[part]
            class_target(name, outline[part], target[part], class_dim=-1, mask=among, ignore_index=None, read=True)
    else:
        t = class_target(name, outline, target, class_dim=-1, mask=selected, ignore_index=ignore_index, read=read)
        assert t.index is not None
        target = t.index
        differentiable = any(x is not None and x.requires_grad for x in (class_weight, each))
        if not (reduction == "none" or smoothing or differentiable) and blocks.suits(features, projection, bias):
            return _by_index(
                name, features, projection, bias, target, selected, w, each, normalize, reduction, read, group
            )
    if selected is not None:  # what is left out may hold anything
        features = select(features, selected.unsqueeze(-1))
    values = partial(_surprisals, name, smoothing, normalize)
    shared = bias, None if w is None else w.flatten()
    expected = None if reduction == "none" else features.new_ones(positions)
    found = row_blocks.over_products(features, projection, values, (target, selected, each), shared, expected)
    total, amount = found.unbind(-1)
    learnt = any(x is not None and x.requires_grad for x in (target, class_weight, each))
    return reduce(name, total, amount if learnt else amount.detach(), reduction=reduction, check=read, group=group)


def _surprisals(
    name: str,
    smoothing: float,
    normalize: Normalize,
    scores: Tensor,
    target: Tensor,
    selected: Tensor | None,
    each: Tensor | None,
    bias: Tensor | None,
    w: Tensor | None,
) -> Tensor:
    """The weighted value of each row, and its weight."""
    logits = scores if bias is None else scores + bias
    values, weights = weighed_surprisal(
        name, logits, target, logits.ndim - 1, selected, w, each, None, smoothing, normalize, False
    )
    return torch.stack((values, torch.ones_like(values) if weights is None else weights), -1)


def _by_index(
    name: str,
    features: Tensor,
    projection: Tensor,
    bias: Tensor | None,
    target: Tensor,
    selected: Tensor | None,
    w: Tensor | None,
    each: Tensor | None,
    normalize: Normalize,
    reduction: Reduction,
    read: bool,
    group: Group | None,
) -> Tensor:
    """The sum over class indices, with constant weights: the gradient is made along with the value."""
    rows, label = features.reshape(-1, features.shape[-1]), target.reshape(-1)
    chosen = None if selected is None else selected.reshape(-1)
    share = None if each is None else each.flatten().to(features.dtype)
    if chosen is not None:
        rows, label, share = rows[chosen], label[chosen], None if share is None else share[chosen]
    if w is not None:
        share = w.flatten()[label] if share is None else share * w.flatten()[label]
    count = rows.new_full((), len(rows))
    amount = count if share is None or normalize == "count" else share.sum()
    alone = reduction == "mean" and group is None and rows.device.type == "cpu" and float(amount) > 0
    total = blocks.linear_total(
        rows, projection, bias, label, share, float(1 / amount) if alone else 1.0, partial(_plain_total, label, share)
    )
    return finish(name, total, amount, reduction=reduction, check=read, group=group)


def _plain_total(
    label: Tensor, share: Tensor | None, rows: Tensor, projection: Tensor, bias: Tensor | None = None
) -> Tensor:
    values = F.cross_entropy(F.linear(rows, projection, bias), label, reduction="none")
    return (values if share is None else values * share).sum()
