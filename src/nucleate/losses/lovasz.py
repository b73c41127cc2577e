"""Lovász losses: the Jaccard index of the errors, extended from sets to any degree of error, piecewise linear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.distributed import gather
from nucleate.losses.distribution import Distribution, distribution, warn_of_simplex
from nucleate.losses.kernels import kernels, plain_cpu_tensor
from nucleate.losses.margin import signs
from nucleate.losses.options import Empty, Labels, Over, Reduction
from nucleate.losses.reduction import held, reduce, select
from nucleate.losses.regions import require_images
from nucleate.losses.registry import loss
from nucleate.losses.targets import class_target, class_weights, hard_target, labelled, selection
from nucleate.losses.validation import (
    checking,
    require_choice,
    require_floating,
    require_mask,
    require_shape,
    shape,
    transforming,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["lovasz_hinge", "lovasz_softmax"]

_FEWEST = 1 << 13  # errors in all rows, below which torch.sort is as fast as the kernel
_MOST = 1 << 31  # pixels in a row: an index and a label share 32 bits


@loss(
    "overlap",
    "Lovász extension of 1 - Jaccard, hinge errors",
    "0..inf",
    "the best intersection over union of one class",
)
def lovasz_hinge(
    score: Tensor,
    target: Tensor,
    *,
    labels: Labels = "binary",
    over: Over = "image",
    empty: Empty = "penalize",
    mask: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The Lovász extension of 1 - Jaccard at the hinge errors max(0, 1 - y s); range 0..inf.

    Args:
        score: raw scores (N, ...), one for each pixel.
        target: labels of the same shape, {0, 1} or as `labels` says ("signed": {-1, +1}).
        over: "image" takes each image (first axis) by itself, "batch" all pixels (of all ranks) together.
        empty: an image without a positive pixel costs its largest error ("penalize") or is left out ("skip").
        mask: boolean, the shape of `score`; True selects.
        ignore_index: a label in `target`, of an integer type, that leaves its pixel out.
        reduction: "mean" over images, "sum", or "none" for (N,), (1,) over the batch.

    >>> import torch
    >>> score, label = torch.tensor([[2.0, 0.0, -2.0]]), torch.tensor([[1, 1, 0]])  # an error of 1 at one of two
    >>> lovasz_hinge(score, label).item()
    0.5

    Source: Berman et al., The Lovász-softmax loss (2018); Yu and Blaschko, The Lovász hinge (2015).
    """
    name = "lovasz_hinge"
    require_choice(name, "over", over, ("image", "batch"))
    require_choice(name, "empty", empty, ("penalize", "skip"))
    require_floating(name, "score", score)
    require_shape(name, "target", target, shape(score), "the score")
    if mask is not None:
        require_mask(name, mask, shape(score), "the score")
    if over == "image" and score.ndim < 2:
        raise LossInputError(f"{name}: over='image' needs images along the first axis, got shape {shape(score)}")
    read = checking(check, score)
    mask = labelled(name, target, mask, ignore_index)
    s = select(held(score), mask)
    y = signs(name, target, labels, mask, read, s)
    margins = torch.addcmul(s.new_ones(()), s, y, value=-1)  # 1 - s y in one pass
    errors = _flat(_select_errors(F.relu(margins), mask), over)
    positive = _flat(y > 0 if mask is None else (y > 0) & mask, over)
    if over == "batch" and group is not None:
        errors, positive = _all_pixels(errors, positive, group)
    return _weighed(name, errors, positive, None, empty, over, reduction, read, group)


@loss(
    "overlap",
    "Lovász extension of 1 - Jaccard, |t - p|",
    "0..1",
    "the best intersection over union of several classes",
    renamed={"weight": "class_weight"},
)
def lovasz_softmax(
    prediction: Tensor | Distribution,
    target: Tensor,
    *,
    class_dim: int = 1,
    over: Over = "image",
    empty: Empty = "skip",
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The Lovász extension of 1 - Jaccard at the errors |t_c - p_c|, for each class of each image; range 0..1.

    A class without a labelled pixel is left out ("skip") or costs its largest error ("penalize"). reduction="none"
    gives (N, C), or (1, C) over the batch.

    Args:
        target: class indices, or one-hot rows in the prediction's shape.

    >>> import torch
    >>> from nucleate import losses
    >>> p = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])  # 0/1 predictions: exactly 1 - Jaccard
    >>> lovasz_softmax(losses.Probabilities(p), torch.tensor([[0, 1, 1]]), reduction="none").tolist()
    [[0.5, 0.5]]

    Source: Berman et al., The Lovász-softmax loss (2018).
    """
    name = "lovasz_softmax"
    require_choice(name, "over", over, ("image", "batch"))
    require_choice(name, "empty", empty, ("penalize", "skip"))
    said = distribution(name, "prediction", prediction)
    read = checking(check, said.tensor)
    if -said.tensor.ndim <= class_dim < said.tensor.ndim and said.tensor.shape[class_dim] == 1:
        raise LossInputError(
            f"{name}: prediction of shape {shape(said.tensor)} holds 1 class along dimension "
            f"{class_dim % said.tensor.ndim}; one score a pixel is what lovasz_hinge takes, with a target of its shape"
        )
    t = class_target(name, said.tensor, target, class_dim=class_dim, mask=mask, ignore_index=ignore_index, read=read)
    require_images(name, said.tensor, t.dim, over)
    w = class_weights(name, class_weight, said.tensor, t.dim, read)
    said = said.selected(t.selected_rows, t.dim)
    if read:
        said.require_valid(name, "prediction", t.dim)
        warn_of_simplex(name, "prediction", prediction, t.dim)
    p = said.probabilities(t.dim).movedim(t.dim, 0)
    index = hard_target(name, t, read)
    classes = torch.arange(t.classes, device=index.device).reshape(-1, *[1] * index.ndim)
    own = classes == index
    errors = torch.where(own, 1 - p, p)
    errors = _select_errors(errors, None if t.selected is None else t.selected.expand_as(errors))
    positive = own if t.selected is None else own & t.selected
    pixels, hot = (_flat_classes(x, over) for x in (errors, positive))
    if over == "batch" and group is not None:
        pixels, hot = _all_pixels(pixels, hot, group)
    return _weighed(name, pixels, hot, w, empty, over, reduction, read, group)


def _select_errors(errors: Tensor, selected: Tensor | None) -> Tensor:
    """-1 where not selected: below every error, so sorted last and then cut off by the hinge at 0."""
    return select(errors, selected, -1.0)


def _flat(x: Tensor, over: Over) -> Tensor:
    return x.reshape(1, -1) if over == "batch" else x.flatten(1)


def _flat_classes(x: Tensor, over: Over) -> Tensor:
    """(C, N, ...) to (N, C, pixels) or, over the batch, (1, C, pixels)."""
    return x.flatten(1).unsqueeze(0) if over == "batch" else x.flatten(2).movedim(0, 1)


def _all_pixels(errors: Tensor, positive: Tensor, group: Group) -> tuple[Tensor, Tensor]:
    """The pixels of every rank along the last axis."""
    rows = (x.movedim(-1, 0) for x in (errors, positive.to(errors.dtype)))
    gathered = [gather(x, group, replicated=True).movedim(0, -1) for x in rows]
    return gathered[0], gathered[1] > 0


def lovasz_extension(errors: Tensor, positive: Tensor) -> Tensor:
    """sum_i e_(i) (J_i - J_(i-1)) along the last axis, errors in falling order, J_i the Jaccard loss of the first i.

    The steps of J are computed as products, not as differences of numbers near 1, which would lose every digit for
    an image of a million pixels; counts are integers for the same reason.
    """
    if not errors.shape[-1]:
        return errors.sum(-1)
    fits = errors.dtype == torch.float32 and not transforming()
    fits = fits and errors.numel() >= _FEWEST and errors.shape[-1] < _MOST
    module = kernels("lovasz") if fits and plain_cpu_tensor(errors) and plain_cpu_tensor(positive) else None
    if module is not None:
        value: Tensor = module.extension(errors, positive)
        if not bool(value.isnan().any()):  # of a NaN the kernel gives no slopes
            return value
    ordered, order = errors.sort(dim=-1, descending=True)
    hot = positive.gather(-1, order)
    found = hot.cumsum(-1)
    total = found[..., -1:]
    steps = torch.arange(1, errors.shape[-1] + 1, device=errors.device)
    union = total + steps - found
    before = union - (~hot).long()
    left = (total - found).to(errors.dtype)
    # A positive takes one from the intersection; a negative adds one to the union. Before the first pixel of an
    # image without positives both are empty and the loss steps from 0 to 1.
    grown = torch.where(before == 0, 1.0, left / (union * before.clamp(min=1)).to(errors.dtype))
    slope = torch.where(hot, 1.0 / union.to(errors.dtype), grown)
    return (F.relu(ordered) * slope).sum(-1)


def _weighed(
    name: str,
    errors: Tensor,
    positive: Tensor,
    w: Tensor | None,
    empty: Empty,
    over: Over,
    reduction: Reduction,
    read: bool,
    group: Group | None,
) -> Tensor:
    # Where a pixel is selected: the largest error is at least 0, or NaN.
    counted = ~(errors.detach().amax(-1) < 0) if errors.shape[-1] else positive.any(-1)
    if empty == "skip":
        counted = counted & positive.any(-1)
    values, weights = lovasz_extension(errors, positive), counted.to(errors.dtype)
    if w is not None:
        w = w.flatten().to(errors.dtype).expand_as(values)
        weights = weights * w
        values = select(values, selection(None, w, [values])) * w
    values = select(values, counted)
    return reduce(name, values, weights, reduction=reduction, check=read, group=group, whole=over == "batch")
