"""Margin losses: a raw score against a label of two values, by how well their signs agree.

Every function of one score s and a label is a function of the margin z = y s, with y = -1 or +1. The labels are
said: labels="binary" (the default) means {0, 1} or bool, labels="signed" means {-1, +1}; the other kind is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.reduction import held, reduce, select
from nucleate.losses.targets import weigh
from nucleate.losses.validation import (
    checking,
    require_choice,
    require_floating,
    require_mask,
    require_shape,
    require_weights,
    shape,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def signs(loss: str, target: Tensor, labels: str, selected: Tensor | None, read: bool, like: Tensor) -> Tensor:
    """The labels as -1 and +1, converted from what was said, never guessed from what the batch holds."""
    require_choice(loss, "labels", labels, ("binary", "signed"))
    low = 0 if labels == "binary" else -1
    y = select(target.to(like.dtype), selected, 1.0)
    if read and not (labels == "binary" and _whole_from_0_to_1(target, y)):
        wrong = y[(y != low) & (y != 1)]
        if wrong.numel():
            other = "signed" if labels == "binary" else "binary"
            raise LossInputError(
                f"{loss}: labels={labels!r} means {low} and 1, but target holds {float(wrong[0].detach()):g}; "
                f"say labels={other!r} if that is what they are"
            )
    return 2 * y - 1 if labels == "binary" else y


def _whole_from_0_to_1(target: Tensor, y: Tensor) -> bool:
    """Whether that is so at a glance: of integers the least and the greatest tell."""
    if target.is_floating_point() or not y.numel():
        return False
    least, greatest = y.detach().aminmax()
    return bool(least >= 0) and bool(greatest <= 1)


def _of_margin(
    name: str,
    of: Callable[[Tensor], Tensor],
    score: Tensor,
    target: Tensor,
    labels: str,
    mask: Tensor | None,
    weight: Tensor | None,
    reduction: str,
    check: bool | None,
    group: ProcessGroup | None,
) -> Tensor:
    require_floating(name, "score", score)
    require_shape(name, "target", target, shape(score), "the score")
    if mask is not None:
        require_mask(name, mask, shape(score), "the score")
    read = checking(check, score)
    if weight is not None:
        require_weights(name, "weight", weight, shape(score), "the score", read)
    s = select(held(score), mask)
    z = signs(name, target, labels, mask, read, s) * s
    values, weights = weigh(of(z), None, mask, weight, "weight")
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)


def hinge(
    score: Tensor,
    target: Tensor,
    *,
    labels: str = "binary",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """max(0, 1 - z): 0 once the margin is 1; range 0..inf; slope 0 at its kink.

    z = y s for the score s and the label's sign y; `labels` says how `target` is written; `mask` (boolean) selects,
    `weight` weighs. All have the shape of `score`. The mean divides by the sum of the weights.

    >>> import torch
    >>> hinge(torch.tensor([0.5]), torch.tensor([1])).item()
    0.5

    Source: Cortes and Vapnik, Support-vector networks (1995).
    """

    def of(z: Tensor) -> Tensor:
        return F.relu(1 - z)

    return _of_margin("hinge", of, score, target, labels, mask, weight, reduction, check, group)


def squared_hinge(
    score: Tensor,
    target: Tensor,
    *,
    labels: str = "binary",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """max(0, 1 - z)^2: the hinge without its kink; range 0..inf.

    z = y s for the score s and the label's sign y; arguments as in `hinge`.

    >>> import torch
    >>> squared_hinge(torch.tensor([0.5]), torch.tensor([1])).item()
    0.25

    Source: Lee and Mangasarian, SSVM: a smooth support vector machine (2001).
    """

    def of(z: Tensor) -> Tensor:
        return F.relu(1 - z).square()

    return _of_margin("squared_hinge", of, score, target, labels, mask, weight, reduction, check, group)


def smoothed_hinge(
    score: Tensor,
    target: Tensor,
    *,
    labels: str = "binary",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """1/2 - z below 0, (1 - z)^2 / 2 from 0 to 1, then 0; range 0..inf.

    z = y s for the score s and the label's sign y; arguments as in `hinge`.

    >>> import torch
    >>> smoothed_hinge(torch.tensor([-1.0]), torch.tensor([1])).item()
    1.5

    Source: J. D. M. Rennie, Smooth hinge classification (2005).
    """

    def of(z: Tensor) -> Tensor:
        return torch.where(z < 0, 0.5 - z, F.relu(1 - z).square() / 2)

    return _of_margin("smoothed_hinge", of, score, target, labels, mask, weight, reduction, check, group)


def modified_huber(
    score: Tensor,
    target: Tensor,
    *,
    labels: str = "binary",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """-4 z below -1, then max(0, 1 - z)^2; range 0..inf; outliers count linearly.

    z = y s for the score s and the label's sign y; arguments as in `hinge`.

    >>> import torch
    >>> modified_huber(torch.tensor([-2.0]), torch.tensor([1])).item()
    8.0

    Source: T. Zhang, Solving large scale linear prediction problems using SGD (2004).
    """

    def of(z: Tensor) -> Tensor:
        return torch.where(z < -1, -4 * z, F.relu(1 - z.clamp(min=-1)).square())

    return _of_margin("modified_huber", of, score, target, labels, mask, weight, reduction, check, group)


def logistic(
    score: Tensor,
    target: Tensor,
    *,
    labels: str = "binary",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """log(1 + exp(-z)), the cross entropy of one score; range 0..inf; exact at any z.

    z = y s for the score s and the label's sign y; arguments as in `hinge`.

    >>> import torch
    >>> logistic(torch.tensor([-10000.0]), torch.tensor([1])).item()
    10000.0

    Source: D. R. Cox, The regression analysis of binary sequences (1958).
    """

    def of(z: Tensor) -> Tensor:
        return -F.logsigmoid(z)

    return _of_margin("logistic", of, score, target, labels, mask, weight, reduction, check, group)


def exponential(
    score: Tensor,
    target: Tensor,
    *,
    labels: str = "binary",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """exp(-z), as in boosting; range 0..inf; above float32's largest number for z below -88.

    z = y s for the score s and the label's sign y; arguments as in `hinge`.

    >>> import torch
    >>> exponential(torch.tensor([0.0]), torch.tensor([1])).item()
    1.0

    Source: Freund and Schapire, A decision-theoretic generalization of on-line learning (1997).
    """

    def of(z: Tensor) -> Tensor:
        return torch.exp(-z)

    return _of_margin("exponential", of, score, target, labels, mask, weight, reduction, check, group)


def perceptron(
    score: Tensor,
    target: Tensor,
    *,
    labels: str = "binary",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """max(0, -z): 0 as soon as the sign is right; range 0..inf.

    z = y s for the score s and the label's sign y; arguments as in `hinge`.

    >>> import torch
    >>> perceptron(torch.tensor([-2.0]), torch.tensor([1])).item()
    2.0

    Source: F. Rosenblatt, The perceptron (1958).
    """

    def of(z: Tensor) -> Tensor:
        return F.relu(-z)

    return _of_margin("perceptron", of, score, target, labels, mask, weight, reduction, check, group)


def ramp(
    score: Tensor,
    target: Tensor,
    *,
    labels: str = "binary",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """min(1, max(0, 1 - z)): a hinge that an outlier cannot dominate; range 0..1; not convex.

    z = y s for the score s and the label's sign y; arguments as in `hinge`.

    >>> import torch
    >>> ramp(torch.tensor([-5.0]), torch.tensor([1])).item()
    1.0

    Source: Collobert et al., Trading convexity for scalability (2006).
    """

    def of(z: Tensor) -> Tensor:
        return F.relu(1 - z) - F.relu(-z)

    return _of_margin("ramp", of, score, target, labels, mask, weight, reduction, check, group)


def zero_one(
    score: Tensor,
    target: Tensor,
    *,
    labels: str = "binary",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """1 where z <= 0, else 0: the share that is wrong; range 0..1; a score of 0 decides nothing and is wrong.

    It has no slope and so no gradient: for measuring, not for training. Arguments as in `hinge`.

    >>> import torch
    >>> zero_one(torch.tensor([3.0, -0.1, 0.0, 2.0]), torch.tensor([1, 1, 1, 1])).item()
    0.5
    """

    def of(z: Tensor) -> Tensor:
        # A NaN stays NaN instead of being counted as right.
        return torch.where(z.isnan(), z, (z <= 0).to(z.dtype)).detach()

    return _of_margin("zero_one", of, score, target, labels, mask, weight, reduction, check, group)
