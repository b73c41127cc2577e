"""Predicted and labelled regions as probabilities, and the sums over them that every overlap loss is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.distributed import sum_across
from nucleate.losses.distribution import Distribution, Logits, LogProbabilities, distribution
from nucleate.losses.kernels import kernels
from nucleate.losses.kernels.memory import common_layout
from nucleate.losses.options import Over
from nucleate.losses.reduction import held, select
from nucleate.losses.targets import (
    ClassTarget,
    class_axis,
    class_target,
    class_weights,
    position_weights,
    positions_of,
    separate_weights,
)
from nucleate.losses.validation import (
    checking,
    require_choice,
    require_mask,
    require_range,
    require_shape,
    shape,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True, slots=True)
class Region:
    """Prediction and target as probabilities, 0 where not selected."""

    p: Tensor
    t: Tensor
    target: ClassTarget
    read: bool


def regions(
    name: str,
    prediction: Tensor | Distribution,
    target: Tensor,
    class_dim: int,
    multilabel: bool,
    mask: Tensor | None,
    ignore_index: int | None,
    check: bool | None,
) -> Region:
    """Check the arguments of an overlap loss and select."""
    said = distribution(name, "prediction", prediction)
    x = said.tensor
    read = checking(check, x)
    if multilabel:
        target_of = _yes_or_no(name, x, target, class_dim, mask, ignore_index, read)
    else:
        target_of = class_target(name, x, target, class_dim=class_dim, mask=mask, ignore_index=ignore_index, read=read)
    rows, dim = target_of.selected_rows, target_of.dim
    said = said.selected(rows, dim)
    if not multilabel:
        if read:
            said.require_valid(name, "prediction", dim)
        p = said.probabilities(dim)
    elif isinstance(said, Logits):
        p = held(said.tensor).sigmoid()
    else:
        p = held(said.tensor).exp() if isinstance(said, LogProbabilities) else held(said.tensor)
        if read:
            require_range(name, "prediction", p, 0.0, 1.0, "raw scores are said with Logits(x)")
    return Region(select(p, rows), target_of.dense(p).to(p.dtype), target_of, read)


def _yes_or_no(
    name: str,
    x: Tensor,
    target: Tensor,
    class_dim: int,
    mask: Tensor | None,
    ignore_index: int | None,
    read: bool,
) -> ClassTarget:
    dim, classes, positions = class_axis(name, x, class_dim, fewest=1, name="prediction")
    require_shape(name, "target", target, shape(x), "the prediction, as multilabel=True asks")
    if ignore_index is not None:
        raise LossInputError(f"{name}: ignore_index={ignore_index} names a class index; with multilabel use mask=")
    if mask is not None:
        require_mask(name, mask, positions, "the positions of the prediction")
    soft = select(held(target) if target.is_floating_point() else target.to(held(x).dtype), _rows(mask, dim))
    if read:
        require_range(name, "target", soft, 0.0, 1.0, "labels are 0, 1 or between")
    return ClassTarget(dim, classes, positions, None, soft, mask)


def _rows(mask: Tensor | None, dim: int) -> Tensor | None:
    return None if mask is None else mask.unsqueeze(dim)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of each image (or the batch) and class, shape (N or 1, C): overlap, predicted and labelled pixels.

    `counted` is False where no position of the image is selected.
    """

    both: Tensor
    predicted: Tensor
    labelled: Tensor
    counted: Tensor
    class_weight: Tensor | None
    read: bool


def counts(
    name: str,
    prediction: Tensor | Distribution,
    target: Tensor,
    class_dim: int,
    multilabel: bool,
    mask: Tensor | None,
    class_weight: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | None,
    check: bool | None,
    over: Over,
    group: ProcessGroup | None,
) -> Counts:
    """The sums from which every overlap is made; over="batch" adds the images, and the ranks of `group`."""
    require_choice(name, "over", over, ("image", "batch"))
    logits = prediction.tensor if isinstance(prediction, Logits) else prediction
    x = distribution(name, "prediction", prediction).tensor
    read = checking(check, x)
    dim, classes, positions = class_axis(name, x, class_dim, fewest=1 if multilabel else 2, name="prediction")
    class_weight, weight = separate_weights(name, class_weight, weight, classes, positions)
    class_weights(name, class_weight, x, dim, read)
    each = position_weights(name, weight, positions, read)
    if each is not None:
        if mask is not None:
            require_mask(name, mask, positions, "the positions of the prediction")
        mask = each > 0 if mask is None else mask & (each > 0)

    def plain(x: Tensor | Distribution, over: Over) -> tuple[list[Tensor], Tensor]:
        r = regions(name, x, target, class_dim, multilabel, mask, ignore_index, check)
        return _sums(name, r, each, over)

    made = None
    if (
        isinstance(logits, Tensor)
        and weight is None
        and _fits(logits, target, class_dim, multilabel, mask, ignore_index)
    ):
        made = _fast(
            logits, target, mask, ignore_index, over, multilabel, lambda x: torch.stack(plain(x, "image")[0][:2], 1)
        )
    if made is None:
        (both, predicted, labelled), pixels = plain(prediction, over)
    else:
        both, predicted, labelled, pixels = made
    if over == "batch":
        both, predicted, labelled = sum_across(torch.stack((both, predicted, labelled)), group).unbind()
        pixels = sum_across(pixels, group)
    return Counts(both, predicted, labelled, (pixels > 0).expand_as(predicted), class_weight, read)


def _sums(name: str, r: Region, weight: Tensor | None, over: Over) -> tuple[list[Tensor], Tensor]:
    """Overlap, predicted and labelled of (N or 1, C), and the selected pixels (N or 1, 1)."""
    dim = r.target.dim
    if r.p.ndim < 2 or (over == "image" and (dim == 0 or r.p.ndim < 3)):
        raise LossInputError(
            f"{name}: over={over!r} cannot tell classes, images and pixels apart in a prediction of shape "
            f"{shape(r.p)} with classes along dimension {dim}; give (N, C, pixels...), or (pixels, C) over='batch'"
        )
    # For hard labels this is p t. For soft ones p t would be largest at p = 1; the overlap is the smaller of the two.
    both = torch.where((r.p <= r.t) & (r.t > 0), r.p, r.t)
    selected = torch.ones_like(r.p.select(dim, 0)) if r.target.selected is None else r.target.selected.to(r.p.dtype)
    axes = [a for a in range(r.p.ndim) if a != dim and (over == "batch" or a != 0)]
    each = (both, r.p, r.t) if weight is None else (x * weight.unsqueeze(dim).to(x.dtype) for x in (both, r.p, r.t))
    sums = [x.sum(axes) for x in each]
    if over == "batch":
        return [x.unsqueeze(0) for x in sums], selected.sum().reshape(1, 1)
    return sums, selected.flatten(1).sum(1, keepdim=True)


def _fits(
    logits: Tensor, target: Tensor, class_dim: int, multilabel: bool, mask: Tensor | None, ignore_index: int | None
) -> bool:
    """Whether this is logits (N, C, pixels...) with class indices, or with a yes or no for each of several labels.

    And nothing to say about shapes and types.
    """
    if logits.ndim < 3 or class_dim not in (1, 1 - logits.ndim) or target.is_complex():
        return False
    positions = positions_of(logits, 1)
    if multilabel:
        fits = target.shape == logits.shape and ignore_index is None
    else:
        fits = target.shape == positions and not target.is_floating_point()
    return fits and (mask is None or (mask.dtype == torch.bool and mask.shape == positions))


def _fast(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    ignore_index: int | None,
    over: Over,
    multilabel: bool,
    twin: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """The same sums from the kernel, or None."""
    if multilabel:
        layout = common_layout([logits], 1, [target, mask], tiles=4, by_image=True, fewest=1)
        module = None if layout is None else kernels("sigmoid_overlap")
        found = None if module is None else module.region_counts(layout, logits, target, mask, twin)
    else:
        layout = common_layout([logits], 1, [target, mask], by_image=True)
        module = None if layout is None else kernels("overlap")
        found = None if module is None else module.region_counts(layout, logits, target, mask, ignore_index, twin)
    if found is None:
        return None
    pair, labelled, selected = found
    sums = (*pair.unbind(1), labelled, selected.unsqueeze(1))
    both, predicted, labelled, pixels = (x.sum(0, keepdim=True) for x in sums) if over == "batch" else sums
    return both, predicted, labelled, pixels
