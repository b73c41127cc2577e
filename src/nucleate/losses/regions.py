"""Predicted and labelled regions as probabilities, and the sums over them that every overlap loss is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.distributed import sum_across
from nucleate.losses.distribution import Distribution, Logits, LogProbabilities, distribution, warn_of_simplex
from nucleate.losses.kernels import kernels
from nucleate.losses.kernels.memory import common_layout
from nucleate.losses.options import Over
from nucleate.losses.reduction import held, select
from nucleate.losses.targets import (
    class_axis,
    class_target,
    class_weights,
    labelled,
    position_weights,
    positions_of,
    selection,
    separate_weights,
)
from nucleate.losses.validation import (
    checking,
    require_choice,
    require_mask,
    require_range,
    require_shape,
    require_tensor,
    shape,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group


@dataclass(frozen=True, slots=True)
class Region:
    """Prediction and target as probabilities with classes along `dim`, 0 where not selected.

    `rows` is what is selected, with a class axis of length 1, or of all classes where each has a mask of its own;
    `class_weight` is shaped to broadcast along the classes.
    """

    p: Tensor
    t: Tensor
    rows: Tensor | None
    dim: int
    class_weight: Tensor | None
    weight: Tensor | None
    read: bool


def regions(
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
) -> Region:
    """Check the arguments of an overlap loss and select."""
    said = distribution(name, "prediction", prediction)
    x = said.tensor
    read = checking(check, x)
    w, each = weights_of(name, x, target, class_dim, multilabel, class_weight, weight, read)
    if multilabel:
        return _yes_or_no(name, said, target, class_dim, mask, w, each, ignore_index, read)
    t = class_target(name, x, target, class_dim=class_dim, mask=mask, ignore_index=ignore_index, read=read, weight=each)
    said = said.selected(t.selected_rows, t.dim)
    if read:
        said.require_valid(name, "prediction", t.dim)
    p = said.probabilities(t.dim)
    return Region(select(p, t.selected_rows), t.dense(p).to(p.dtype), t.selected_rows, t.dim, w, each, read)


def weights_of(
    name: str,
    x: Tensor,
    target: Tensor,
    class_dim: int,
    multilabel: bool,
    class_weight: Tensor | None,
    weight: Tensor | None,
    read: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The weights of classes, shaped to broadcast, and of positions, checked."""
    require_tensor(name, "target", target)
    if not multilabel:
        require_classes(name, x, target, class_dim)
    dim, classes, positions = class_axis(name, x, class_dim, fewest=1, name="prediction")
    class_weight, weight = separate_weights(name, class_weight, weight, classes, positions)
    return class_weights(name, class_weight, x, dim, read), position_weights(name, weight, positions, read)


def require_classes(name: str, x: Tensor, target: Tensor, class_dim: int) -> None:
    """Of one channel there is no other class: it is a yes or no, and that has to be said."""
    if -x.ndim <= class_dim < x.ndim and x.shape[class_dim] == 1:
        raise LossInputError(
            f"{name}: prediction of shape {shape(x)} holds 1 class along dimension {class_dim % x.ndim}; for yes or no "
            f"at each pixel pass multilabel=True with a target of the same shape {shape(x)}, "
            + ("as it is" if shape(target) == shape(x) else f"not {shape(target)}: target.unsqueeze({class_dim})")
        )


def _yes_or_no(
    name: str,
    said: Distribution,
    target: Tensor,
    class_dim: int,
    mask: Tensor | None,
    w: Tensor | None,
    each: Tensor | None,
    ignore_index: int | None,
    read: bool,
) -> Region:
    """Every channel by itself; what is NaN or infinite in one of weight 0 is not selected."""
    x = said.tensor
    dim, _, positions = class_axis(name, x, class_dim, fewest=1, name="prediction")
    require_shape(name, "target", target, shape(x), "the prediction, as multilabel=True asks")
    rows = mask
    if mask is not None and shape(mask) != shape(x):
        require_mask(name, mask, positions, f"the positions of the prediction, or {shape(x)}, that of the prediction")
        rows = mask.unsqueeze(dim)
    elif mask is not None:
        require_mask(name, mask, shape(x), "the prediction")
    rows = labelled(name, target, rows, ignore_index)
    rows = selection(rows, None if each is None else each.unsqueeze(dim), [x])
    if w is not None:
        kept = (w != 0) | x.isfinite()
        rows = kept if rows is None else rows & kept
    t = select(held(target) if target.is_floating_point() else target.to(held(x).dtype), rows)
    if read:
        require_range(name, "target", t, 0.0, 1.0, "labels are 0, 1 or between")
    z = held(said.selected(rows, dim).tensor)
    p = z.sigmoid() if isinstance(said, Logits) else z.exp() if isinstance(said, LogProbabilities) else z
    if read and not isinstance(said, Logits):
        require_range(name, "prediction", p, 0.0, 1.0, "raw scores are said with Logits(x)")
    return Region(select(p, rows), t.to(p.dtype), rows, dim, w, each, read)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of each image (or the batch) and class, shape (N or 1, C): overlap, predicted and labelled pixels.

    `counted` is False where no position of the image is selected; `weight` is the weight of each class, where given.
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
    group: Group | None,
) -> Counts:
    """The sums from which every overlap is made; over="batch" adds the images, and the ranks of `group`."""
    require_choice(name, "over", over, ("image", "batch"))
    logits = prediction.tensor if isinstance(prediction, Logits) else prediction
    x = distribution(name, "prediction", prediction).tensor
    read = checking(check, x)
    w, each = weights_of(name, x, target, class_dim, multilabel, class_weight, weight, read)
    w = None if w is None else w.flatten()
    if mask is not None:
        require_tensor(name, "mask", mask)

    def plain(x: Tensor | Distribution, over: Over) -> tuple[list[Tensor], Tensor]:
        r = regions(name, x, target, class_dim, multilabel, mask, w, each, ignore_index, check)
        return _sums(name, r, over)

    made = None
    if isinstance(logits, Tensor) and each is None and _fits(logits, target, class_dim, multilabel, mask, ignore_index):
        made = _fast(
            logits, target, mask, ignore_index, over, multilabel, lambda x: torch.stack(plain(x, "image")[0][:2], 1)
        )
    if made is None:
        (both, predicted, labelled), pixels = plain(prediction, over)
    else:
        both, predicted, labelled, pixels = made
    if read and not multilabel:
        warn_of_simplex(name, "prediction", prediction, class_dim)
    if over == "batch":
        both, predicted, labelled = sum_across(torch.stack((both, predicted, labelled)), group).unbind()
        pixels = sum_across(pixels, group)
    counted = (pixels > 0).expand_as(predicted)
    if w is None:
        return Counts(both, predicted, labelled, counted, None, read)
    both, predicted = (x.masked_fill((w == 0) & ~x.isfinite(), 0.0) for x in (both, predicted))
    return Counts(both, predicted, labelled, counted, w, read)


def _sums(name: str, r: Region, over: Over) -> tuple[list[Tensor], Tensor]:
    """Overlap, predicted and labelled of (N or 1, C), and the selected pixels (N or 1, C or 1)."""
    dim = r.dim
    require_images(name, r.p, dim, over)
    # For hard labels this is p t. For soft ones p t would be largest at p = 1; the overlap is the smaller of the two.
    both = torch.where((r.p <= r.t) & (r.t > 0), r.p, r.t)
    axes = [a for a in range(r.p.ndim) if a != dim and (over == "batch" or a != 0)]
    chosen = torch.ones_like(r.p.narrow(dim, 0, 1)) if r.rows is None else r.rows.to(r.p.dtype)
    found = [both, r.p, r.t]
    if r.weight is not None:
        each = r.weight.unsqueeze(dim).to(r.p.dtype)
        found, chosen = [x * each for x in found], chosen * (each != 0)
    sums, pixels = [x.sum(axes) for x in found], chosen.sum(axes)
    if over == "batch":
        return [x.unsqueeze(0) for x in sums], pixels.unsqueeze(0)
    return sums, pixels


def require_images(name: str, x: Tensor, dim: int, over: Over) -> None:
    """A prediction has classes, pixels and, where each image is taken by itself, images before them."""
    if x.ndim < 2 or (over == "image" and (dim == 0 or x.ndim < 3)):
        raise LossInputError(
            f"{name}: over={over!r} cannot tell classes, images and pixels apart in a prediction of shape "
            f"{shape(x)} with classes along dimension {dim}; give (N, C, pixels...), or (pixels, C) over='batch'"
        )


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
