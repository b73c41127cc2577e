"""Classes that have an order, such as grades: one yes or no for each threshold between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.options import Normalize, Reduction
from nucleate.losses.reduction import held, reduce, select, times
from nucleate.losses.registry import loss
from nucleate.losses.targets import class_axis, class_target, class_weights, position_weights, weigh
from nucleate.losses.validation import checking, require_choice, shape, wants_gradient

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["ordinal"]


@loss("cross entropy", "-sum_j log s(+-x_j)", "0..inf", "classes with an order, such as grades")
def ordinal(
    logits: Tensor,
    target: Tensor,
    *,
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
    """The cross entropy of C - 1 questions, is the class above j, for C classes in order; range 0..inf.

    The logit x_j says whether the class is greater than j: -sum_j [y > j] log s(x_j) + [y <= j] log s(-x_j), with s the
    sigmoid. A class that is three steps off is wrong three times, where `cross_entropy` knows no steps. The class that
    is predicted is the number of logits above 0, `(logits > 0).sum(1)`. CORAL, whose answers cannot contradict each
    other, is one score for all thresholds: logits = score.unsqueeze(1) + bias, with a learnt bias of C - 1 numbers.

    Args:
        logits: raw scores with the C - 1 thresholds along `class_dim`: (N, C - 1), (N, C - 1, H, W), ...
        target: class indices 0..C-1 of any integer type, the shape of the logits without their class axis; or
            probabilities (one-hot too) of the C classes along `class_dim`.
        class_dim: the axis of the thresholds, and of the classes of probabilities.

    >>> import torch
    >>> logits = torch.zeros(1, 3)  # grades 0, 1, 2, 3: three thresholds
    >>> round(ordinal(logits, torch.tensor([2])).item(), 4)  # 3 ln 2
    2.0794

    Source: Niu et al., Ordinal regression with multiple output CNN (2016); Cao et al., Rank consistent ordinal
    regression for neural networks with application to age estimation (2020).
    """
    name = "ordinal"
    require_choice(name, "normalize", normalize, ("weight", "count"))
    read = checking(check, logits)
    dim, thresholds, positions = class_axis(name, logits, class_dim, 1)
    # A view that has the shape of one number a class: what a target is held against.
    classes = logits.narrow(dim, 0, 1).expand(*logits.shape[:dim], thresholds + 1, *logits.shape[dim + 1 :])
    if isinstance(target, Tensor) and shape(target) not in (positions, shape(classes)):
        raise LossInputError(
            f"{name}: target has shape {shape(target)}, but logits of shape {shape(logits)}, {thresholds} thresholds "
            f"along dimension {dim}, go with class indices of shape {positions} or with probabilities of "
            f"{thresholds + 1} classes, shape {shape(classes)}"
        )
    w = class_weights(name, class_weight, classes, dim, read)
    each = position_weights(name, weight, positions, read)
    if any(x is not None and wants_gradient(x) for x in (w, each)):  # where all that stands at a position is looked at
        classes = torch.cat((logits, logits.narrow(dim, 0, 1)), dim)
    t = class_target(
        name, classes, target, class_dim=dim, mask=mask, ignore_index=ignore_index, read=read, weight=each,
        class_weight=w,
    )  # fmt: skip
    x = select(held(logits), t.selected_rows)
    if t.index is not None:
        along = [-1 if d == dim else 1 for d in range(logits.ndim)]
        above = t.index.unsqueeze(dim) > torch.arange(thresholds, device=logits.device).reshape(along)
        values = -F.logsigmoid(torch.where(above, x, -x)).sum(dim)
        values = values if t.share is None else times(t.share, values)
    else:
        assert t.soft is not None
        soft = held(t.soft) if w is None else held(t.soft) * w
        upto = soft.cumsum(dim).narrow(dim, 0, thresholds)
        above = soft.flip(dim).cumsum(dim).flip(dim).narrow(dim, 1, thresholds)
        values = -(times(above, F.logsigmoid(x)) + times(upto, F.logsigmoid(-x))).sum(dim)
    values, weights = weigh(values, t.share, t.selected, each, normalize)
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)
