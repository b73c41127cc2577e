"""Losses on the shape of regions: their centre lines, and how far wrong pixels lie from the contours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.boundary import signed_distance
from nucleate.losses.distributed import sum_across
from nucleate.losses.distribution import Distribution, distribution, safe_power
from nucleate.losses.options import Empty, NotNegative, Over, Positive, Reduction
from nucleate.losses.reduction import quotient, reduce, select
from nucleate.losses.regions import regions
from nucleate.losses.registry import loss
from nucleate.losses.targets import class_axis, class_weights, selection
from nucleate.losses.validation import (
    require_between,
    require_choice,
    require_floating,
    require_positive,
    require_shape,
    shape,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["cl_dice", "hausdorff_dt"]


@loss("overlap", "1 - dice of regions and centre lines", "0..1", "vessels, fibres: what must stay connected")
def cl_dice(
    prediction: Tensor | Distribution,
    target: Tensor,
    *,
    iterations: int = 3,
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
    """1 - 2 P S / (P + S) for each class of each image, P = |K(p) t| / |K(p)|, S = |K(t) p| / |K(t)|; range 0..1.

    K is the soft skeleton: what the opening of a region removes, after 0, 1, ... `iterations` erosions. So P is the
    share of the predicted centre line that lies in the labelled region, and S the share of the labelled centre line
    that was found: a gap costs as much in a thin branch as in a thick one. A centre line alone says nothing about
    width: take it together with `dice`. It is for structures that are thin; nuclei are not.

    Args:
        prediction: logits (N, C, pixels...), or Probabilities(p), LogProbabilities(l); one, two or three axes of
            pixels, as many as are there.
        target: class indices (N, pixels...), or one-hot or soft labels in the prediction's shape.
        iterations: at least the largest radius in pixels of what is labelled.
        class_dim: the axis of the classes, not the first.
        over: "image", one value for each image and class, or "batch", one value for each class of all images (and of
            all ranks of `group`).
        empty: for a class without a labelled pixel: "penalize" counts the predicted centre line, a pixels long, with
            a / (a + 2); "skip" leaves it out of the mean.
        smooth: pixels added to numerator and denominator of P and S; 1 in the paper's code.
        mask: boolean, the shape of the positions; True selects. What is not selected is background in both.
        class_weight: one weight for each class, (C,); 0 leaves a class, such as background, out.
        weight: one weight for each position, of its part in the sums |...|; 0 is not selected.
        reduction: "mean" over images and classes by class weight, "sum", "none" for (N, C), (1, C) over the batch,
            or "pair" for (total, weight).

    A line of six pixels in a strip of background, found in halves, with a gap of two:

    >>> import torch
    >>> from nucleate import losses
    >>> line = torch.zeros(1, 1, 3, 6)
    >>> line[0, 0, 1] = 1
    >>> found = line.clone()
    >>> found[..., 2:4] = 0
    >>> round(cl_dice(losses.Probabilities(found), line, multilabel=True).item(), 4)  # P = 1, S = 2 / 3
    0.2

    Source: Shit et al., clDice: a novel topology-preserving loss function for tubular structure segmentation (2021).
    """
    name = "cl_dice"
    require_choice(name, "empty", empty, ("penalize", "skip"))
    require_between(name, "smooth", smooth, 0.0, math.inf)
    require_between(name, "iterations", iterations, 0, math.inf)
    f = _fields(name, prediction, target, class_dim, multilabel, mask, weight, ignore_index, check)
    found, labelled = soft_skeleton(f.p, iterations), soft_skeleton(f.t, iterations)
    parts = (found * f.t, found, labelled * f.p, labelled, torch.ones_like(f.p))
    hit, of_found, met, of_labelled, amount = _sums(name, [x * f.weight for x in parts], over, group)
    present = of_labelled > 0
    # Without a labelled centre line S would be 0 / 0: one pixel more than was found in each, as `dice` does.
    more = torch.where(present, hit.new_full((), smooth), max(smooth, 1.0))
    precision, sensitivity = quotient(hit + more, of_found + more), quotient(met + more, of_labelled + more)
    values = 1 - quotient(2 * precision * sensitivity, precision + sensitivity)
    counted = (amount > 0) if empty == "penalize" else (amount > 0) & present
    return _finish(name, values, counted, class_weight, f.read, reduction, over, group)


def soft_skeleton(x: Tensor, iterations: int) -> Tensor:
    """The soft centre lines of regions (N, C, pixels...), 0..1.

    An erosion takes the least value of a pixel and its neighbours along the axes, a dilation the largest of all
    neighbours; what lies outside the image does not count. An opening is both, and removes what is thin.
    """
    skeleton = torch.zeros_like(x)
    for _ in range(iterations + 1):
        eroded = _eroded(x)
        removed = (x - _dilated(eroded)).clamp(min=0)
        skeleton = skeleton + removed * (1 - skeleton)
        x = eroded
    return skeleton


def _eroded(x: Tensor) -> Tensor:
    least = x
    for axis in range(2, x.ndim):
        least = torch.minimum(least, _of_three(x, axis, torch.minimum))
    return least


def _dilated(x: Tensor) -> Tensor:
    for axis in range(2, x.ndim):
        x = _of_three(x, axis, torch.maximum)
    return x


def _of_three(x: Tensor, axis: int, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`pick` of each pixel and its two neighbours along an axis."""
    n = x.shape[axis]
    if n < 2:
        return x
    two = pick(x.narrow(axis, 0, n - 1), x.narrow(axis, 1, n - 1))
    three = pick(two.narrow(axis, 0, n - 2), two.narrow(axis, 1, n - 2))
    return torch.cat((two.narrow(axis, 0, 1), three, two.narrow(axis, n - 2, 1)), axis)


@loss(
    "overlap",
    "mean (p - t)^2 (D_t^a + D_p^a)",
    "0..inf",
    "no pixel far from the contour may be wrong",
    module="HausdorffDT",
)
def hausdorff_dt(
    prediction: Tensor | Distribution,
    target: Tensor,
    *,
    distance: Tensor | None = None,
    predicted_distance: Tensor | None = None,
    alpha: Positive = 2.0,
    class_dim: int = 1,
    multilabel: bool = False,
    over: Over = "image",
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The mean over pixels of (p - t)^2 (D_t^alpha + D_p^alpha), for each class of each image; range 0..inf.

    D_t is the distance in pixels to the contour of the labelled region, D_p to that of the predicted one, p > 1/2:
    what is wrong far from either contour costs most, as in the Hausdorff distance. No gradient flows through D_p.
    Its values grow with the size of regions, and a class without a contour has the distance 0 everywhere: take it
    together with `dice` or `cross_entropy`, with a weight that makes both alike.

    Args:
        prediction: logits (N, C, pixels...), or Probabilities(p), LogProbabilities(l).
        target: class indices (N, pixels...), or one-hot or soft labels in the prediction's shape.
        distance: D_t in the prediction's shape, as made by `signed_distance` (the sign does not count); None computes
            it from `target`, of which more than 1/2 is inside.
        predicted_distance: D_p in the same form; None computes it from the prediction. Inside vmap, compile and the
            like, where values cannot be read, both must be given.
        alpha: above 0; how much more what is further counts.
        class_dim: the axis of the classes, not the first.
        over: "image", one value for each image and class, or "batch", one value for each class of the pixels of all
            images (and of all ranks of `group`).
        mask: boolean, the shape of the positions; True selects. What is not selected is background in both.
        class_weight: one weight for each class, (C,); 0 leaves a class, such as background, out.
        weight: one weight for each position in the mean over pixels; 0 is not selected.
        reduction: "mean" over images and classes by class weight, "sum", "none" for (N, C), (1, C) over the batch,
            or "pair" for (total, weight).

    Of four pixels the two on the right are labelled, and only one was found:

    >>> import torch
    >>> from nucleate import losses
    >>> label = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    >>> found = losses.Probabilities(torch.tensor([[[0.0, 0.0, 0.0, 1.0]]]))
    >>> hausdorff_dt(found, label, multilabel=True).item()  # (1^2 + 1^2) / 4
    0.5

    Source: Karimi and Salcudean, Reducing the Hausdorff distance in medical image segmentation with convolutional
    neural networks (2019).
    """
    name = "hausdorff_dt"
    require_positive(name, "alpha", alpha)
    f = _fields(name, prediction, target, class_dim, multilabel, mask, weight, ignore_index, check)

    def power(given: Tensor | None, said: str, region: Tensor) -> Tensor:
        if given is None:
            given = signed_distance(region)
        else:
            require_floating(name, said, given)
            require_shape(name, said, given, f.shape, "the prediction")
            given = select(given.movedim(class_dim, 1), f.selected)
        return safe_power(given.to(f.p.dtype).abs(), alpha)

    away = power(distance, "distance", f.t) + power(predicted_distance, "predicted_distance", f.p)
    errors = (f.p - f.t).square() * away
    wrong, amount = _sums(name, [errors * f.weight, f.weight.expand_as(errors)], over, group)
    return _finish(name, quotient(wrong, amount), amount > 0, class_weight, f.read, reduction, over, group)


class _Fields(NamedTuple):
    """Prediction, target and weights of the pixels, all (N, C or 1, pixels...) and 0 where not selected."""

    p: Tensor
    t: Tensor
    weight: Tensor
    selected: Tensor | None
    shape: tuple[int, ...]
    read: bool


def _fields(
    name: str,
    prediction: Tensor | Distribution,
    target: Tensor,
    class_dim: int,
    multilabel: bool,
    mask: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | None,
    check: bool | None,
) -> _Fields:
    x = distribution(name, "prediction", prediction).tensor
    dim, _, _ = class_axis(name, x, class_dim, fewest=1, name="prediction")
    if dim == 0 or x.ndim < 3:
        raise LossInputError(
            f"{name}: prediction must be (N, C, pixels...), images first, got shape {shape(x)} with classes along "
            f"dimension {dim}; one image is given as prediction.unsqueeze(0)"
        )
    r = regions(name, prediction, target, class_dim, multilabel, mask, None, weight, ignore_index, check)
    p, t = (y.movedim(dim, 1) for y in (r.p, r.t))
    selected = None if r.rows is None else r.rows.movedim(dim, 1)
    each = torch.ones_like(p[:, :1]) if r.weight is None else r.weight.to(p.dtype).unsqueeze(1)
    return _Fields(p, t, select(each, selected), selected, shape(x), r.read)


def _sums(name: str, parts: list[Tensor], over: Over, group: Group | None) -> list[Tensor]:
    """Each part (N, C, pixels...) summed over the pixels, (N, C); over the batch also over images and ranks, (1, C)."""
    require_choice(name, "over", over, ("image", "batch"))
    sums = torch.stack([x.flatten(2).sum(2) for x in parts])
    return list((sums if over == "image" else sum_across(sums.sum(1, keepdim=True), group)).unbind())


def _finish(
    name: str,
    values: Tensor,
    counted: Tensor,
    class_weight: Tensor | None,
    read: bool,
    reduction: Reduction,
    over: Over,
    group: Group | None,
) -> Tensor:
    """The mean over images and classes (N, C) by class weight, of those that are `counted`."""
    w = class_weights(name, class_weight, values, 1, read)
    chosen = selection(counted, w, [values])
    weights = counted.to(values.dtype) if w is None else select(w, chosen)
    values = select(values, chosen) * weights
    return reduce(name, values, weights, reduction=reduction, check=read, group=group, whole=over == "batch")
