"""Focal losses: cross entropy that looks away from what is already right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.losses.binary import yes_or_no
from nucleate.losses.kernels import kernels
from nucleate.losses.kernels.memory import common_layout
from nucleate.losses.options import Normalize, NotNegative, Reduction, Share
from nucleate.losses.reduction import REDUCTIONS, finish, held, reduce, select, times
from nucleate.losses.registry import POSITION_WEIGHT, loss
from nucleate.losses.targets import (
    ClassTarget,
    class_axis,
    class_target,
    class_weights,
    of_indices,
    position_weights,
    separate_weights,
    weigh,
)
from nucleate.losses.validation import checking, require_between, require_choice, require_tensor

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["focal", "sigmoid_focal"]


@loss(
    "cross entropy",
    "-sum w t (1 - q)^g log q",
    "0..inf",
    "most pixels are easy and drown the hard ones",
    renamed=POSITION_WEIGHT,
)
def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: NotNegative = 2.0,
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
    """Cross entropy that looks away from what is already right: -sum_c w_c t_c (1 - q_c)^gamma log q_c; 0..inf.

    q is softmax(logits); gamma = 0 gives `cross_entropy`. Any gamma >= 0 has a finite gradient, also below 1 where
    q reaches 1, because 1 - q is the sum of the other probabilities and is held as a logarithm.
    `sigmoid_focal` is for yes and no.

    Args:
        gamma: how strongly easy positions are looked away from; at least 0.

    >>> import torch
    >>> logits = torch.tensor([[0.228, 0.619, 0.153]]).log()
    >>> round(focal(logits, torch.tensor([1]), gamma=2.0).item(), 4)  # 0.381^2 * 0.4797
    0.0696

    Source: Lin et al., Focal loss for dense object detection (2017).
    """
    name = "focal"
    require_choice(name, "normalize", normalize, ("weight", "count"))
    require_choice(name, "reduction", reduction, REDUCTIONS)
    require_between(name, "gamma", gamma, 0.0, math.inf)
    read = checking(check, logits)
    require_tensor(name, "target", target)
    dim, classes, positions = class_axis(name, logits, class_dim)
    class_weight, weight = separate_weights(name, class_weight, weight, classes, positions)
    w = class_weights(name, class_weight, logits, dim, read)
    each = position_weights(name, weight, positions, read)

    def plain(x: Tensor) -> tuple[Tensor, Tensor | None]:
        t = class_target(
            name, x, target, class_dim=dim, mask=mask, ignore_index=ignore_index, read=read, weight=each,
            class_weight=w,
        )  # fmt: skip
        return weigh(_focused(x, t, w, gamma), t.share, t.selected, each, normalize)

    pair = None
    if reduction != "none" and of_indices(logits, target, dim, mask):
        layout = common_layout([logits], dim, (target, mask, class_weight, each))
        module = None if layout is None else kernels("focal")
        if module is not None:
            pair = module.fused_total(
                gamma, layout, ignore_index, logits, target, dim, mask, class_weight, each, 0.0, normalize,
                reduction == "mean" and group is None, lambda x: plain(x)[0].sum(),
            )  # fmt: skip
    if pair is not None:
        return finish(name, *pair, reduction=reduction, check=read, group=group)
    return reduce(name, *plain(logits), reduction=reduction, check=read, group=group)


def _focused(logits: Tensor, t: ClassTarget, w: Tensor | None, gamma: float) -> Tensor:
    """sum_c w_c t_c (1 - q_c)^gamma (-log q_c) at each position."""
    log_q = F.log_softmax(select(held(logits), t.selected_rows), t.dim)
    log_other = log_complement(log_q, t.dim)
    if t.index is not None:
        rows = t.index.unsqueeze(t.dim)
        log_q, log_other = (x.gather(t.dim, rows).squeeze(t.dim) for x in (log_q, log_other))
        values = -times(torch.exp(gamma * log_other), log_q)
        return values if t.share is None else times(t.share, values)
    assert t.soft is not None
    soft = t.soft if w is None else t.soft * w
    # A class with no share in the target is taken out first: the slope of the factor would be 0 * log 0.
    return (soft * torch.exp(gamma * log_other) * -log_q.masked_fill((soft == 0) & log_q.isinf(), 0)).sum(t.dim)


def log_complement(log_q: Tensor, dim: int) -> Tensor:
    """log(1 - q) from log q along the class axis, without cancellation and with a finite gradient everywhere.

    Only the most probable class can come near 1; for it the other classes are summed. The rest are at most 1/2.
    """
    lowest = -1e30  # instead of -inf, whose differences are NaN; its exponential is 0 all the same
    top = torch.zeros_like(log_q, dtype=torch.bool).scatter(dim, log_q.detach().argmax(dim, keepdim=True), 1)
    others = torch.logsumexp(log_q.clamp(min=lowest).masked_fill(top, lowest), dim, keepdim=True)
    return torch.where(top, others, torch.log1p(-log_q.exp().masked_fill(top, 0.0)))


@loss(
    "cross entropy",
    "-a t (1 - p)^g log p - (1 - a) (1 - t) p^g log(1 - p)",
    "0..inf",
    "yes or no where nearly all is an easy no: detection, rare labels",
)
def sigmoid_focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: NotNegative = 2.0,
    alpha: Share | None = 0.25,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    normalize: Normalize = "weight",
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The focal loss of yes and no, -a t (1 - p)^g log p - (1 - a) (1 - t) p^g log(1 - p), p = sigmoid(x); 0..inf.

    With gamma = 0 and alpha = None it is `binary_cross_entropy`. The paper divides the sum by the number of yes:
    sigmoid_focal(..., reduction="sum") / target.sum().

    Args:
        logits: raw scores x, any shape.
        target: the probability of yes in 0..1 (or bool, or 0 and 1 of an integer type), the same shape.
        gamma: how strongly easy answers are looked away from; at least 0.
        alpha: what a yes weighs, in 0..1; a no weighs 1 - alpha. None weighs both 1.
        mask: boolean, the same shape; True selects.
        weight: one weight for each element, the same shape; an element of weight 0 is not selected.
        ignore_index: a label in `target`, of an integer type, that leaves its element out.
        normalize: what "mean" divides by: "weight", the sum of `weight`, or "count", the number of selected elements.

    >>> import torch
    >>> round(sigmoid_focal(torch.zeros(1), torch.ones(1)).item(), 4)  # 0.25 * 0.5^2 * ln 2
    0.0433

    Source: Lin et al., Focal loss for dense object detection (2017).
    """
    name = "sigmoid_focal"
    if alpha is not None:
        require_between(name, "alpha", alpha, 0.0, 1.0)
    yes, no = (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)
    return yes_or_no(
        name, logits, target, yes, no, gamma, 0.0, mask, weight, ignore_index, normalize, reduction, check, group
    )
