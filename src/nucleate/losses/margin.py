"""Margin losses: a raw score against a label of two values, by how well their signs agree.

Every function of one score s and a label is a function of the margin z = y s, with y = -1 or +1. The labels are
said: labels="binary" (the default) means {0, 1} or bool, labels="signed" means {-1, +1}; the other kind is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.options import Labels, Reduction
from nucleate.losses.reduction import held, reduce, select
from nucleate.losses.registry import loss
from nucleate.losses.targets import labelled, selection, weigh
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
    from nucleate.parallel.communicator import Group

__all__ = [
    "exponential",
    "hinge",
    "logistic",
    "modified_huber",
    "perceptron",
    "ramp",
    "smoothed_hinge",
    "squared_hinge",
    "zero_one",
]


def signs(loss: str, target: Tensor, labels: Labels, selected: Tensor | None, read: bool, like: Tensor) -> Tensor:
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


class MarginLoss(Protocol):
    """How every function of this family is called, but those of several scores."""

    __name__: str

    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = "binary",
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check: bool | None = None,
        group: Group | None = None,
    ) -> Tensor: ...


def _of_margin(function: Callable[[Tensor], Tensor]) -> MarginLoss:
    """The loss of a score and a label whose value at the margin z is `function`."""
    name = function.__name__

    def of_score(
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = "binary",
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check: bool | None = None,
        group: Group | None = None,
    ) -> Tensor:
        require_floating(name, "score", score)
        require_shape(name, "target", target, shape(score), "the score")
        if mask is not None:
            require_mask(name, mask, shape(score), "the score")
        read = checking(check, score)
        if weight is not None:
            require_weights(name, "weight", weight, shape(score), "the score", read)
        mask = selection(labelled(name, target, mask, ignore_index), weight, [score])
        s = select(held(score), mask)
        z = signs(name, target, labels, mask, read, s) * s
        values, weights = weigh(function(z), None, mask, weight, "weight")
        return reduce(name, values, weights, reduction=reduction, check=read, group=group)

    of_score.__name__, of_score.__qualname__, of_score.__doc__ = name, name, function.__doc__
    return of_score


@loss("margin", "max(0, 1 - z)", "0..inf", "a margin is enough; support vectors")
@_of_margin
def hinge(z: Tensor) -> Tensor:
    """max(0, 1 - z): 0 once the margin is 1; range 0..inf; slope 0 at its kink.

    z = y s for the score s and the label's sign y.

    >>> import torch
    >>> hinge(torch.tensor([0.5]), torch.tensor([1])).item()
    0.5

    Source: Cortes and Vapnik, Support-vector networks (1995).
    """
    return F.relu(1 - z)


@loss("margin", "max(0, 1 - z)^2", "0..inf", "hinge without a kink; outliers weigh more")
@_of_margin
def squared_hinge(z: Tensor) -> Tensor:
    """max(0, 1 - z)^2: the hinge without its kink; range 0..inf.

    z = y s for the score s and the label's sign y.

    >>> import torch
    >>> squared_hinge(torch.tensor([0.5]), torch.tensor([1])).item()
    0.25

    Source: Lee and Mangasarian, SSVM: a smooth support vector machine (2001).
    """
    return F.relu(1 - z).square()


@loss("margin", "(1 - z)^2 / 2 between 0 and 1, linear below", "0..inf", "hinge with a continuous gradient")
@_of_margin
def smoothed_hinge(z: Tensor) -> Tensor:
    """1/2 - z below 0, (1 - z)^2 / 2 from 0 to 1, then 0; range 0..inf.

    z = y s for the score s and the label's sign y.

    >>> import torch
    >>> smoothed_hinge(torch.tensor([-1.0]), torch.tensor([1])).item()
    1.5

    Source: J. D. M. Rennie, Smooth hinge classification (2005).
    """
    return torch.where(z < 0, 0.5 - z, F.relu(1 - z.clamp(min=0)).square() / 2)


@loss("margin", "max(0, 1 - z)^2, -4 z below -1", "0..inf", "smooth, and linear for outliers")
@_of_margin
def modified_huber(z: Tensor) -> Tensor:
    """-4 z below -1, then max(0, 1 - z)^2; range 0..inf; outliers count linearly.

    z = y s for the score s and the label's sign y.

    >>> import torch
    >>> modified_huber(torch.tensor([-2.0]), torch.tensor([1])).item()
    8.0

    Source: T. Zhang, Solving large scale linear prediction problems using SGD (2004).
    """
    return torch.where(z < -1, -4 * z, F.relu(1 - z.clamp(min=-1)).square())


@loss("margin", "log(1 + exp(-z))", "0..inf", "probabilities from one score")
@_of_margin
def logistic(z: Tensor) -> Tensor:
    """log(1 + exp(-z)), the cross entropy of one score; range 0..inf; exact at any z.

    z = y s for the score s and the label's sign y.

    >>> import torch
    >>> logistic(torch.tensor([-10000.0]), torch.tensor([1])).item()
    10000.0

    Source: D. R. Cox, The regression analysis of binary sequences (1958).
    """
    return -F.logsigmoid(z)


@loss("margin", "exp(-z)", "0..inf", "boosting; clean labels only")
@_of_margin
def exponential(z: Tensor) -> Tensor:
    """exp(-z), as in boosting; range 0..inf; above float32's largest number for z below -88.

    z = y s for the score s and the label's sign y.

    >>> import torch
    >>> exponential(torch.tensor([0.0]), torch.tensor([1])).item()
    1.0

    Source: Freund and Schapire, A decision-theoretic generalization of on-line learning (1997).
    """
    return torch.exp(-z)


@loss("margin", "max(0, -z)", "0..inf", "only the sign matters")
@_of_margin
def perceptron(z: Tensor) -> Tensor:
    """max(0, -z): 0 as soon as the sign is right; range 0..inf.

    z = y s for the score s and the label's sign y.

    >>> import torch
    >>> perceptron(torch.tensor([-2.0]), torch.tensor([1])).item()
    2.0

    Source: F. Rosenblatt, The perceptron (1958).
    """
    return F.relu(-z)


@loss("margin", "min(1, max(0, 1 - z))", "0..1", "labels with gross errors")
@_of_margin
def ramp(z: Tensor) -> Tensor:
    """min(1, max(0, 1 - z)): a hinge that an outlier cannot dominate; range 0..1; not convex.

    z = y s for the score s and the label's sign y.

    >>> import torch
    >>> ramp(torch.tensor([-5.0]), torch.tensor([1])).item()
    1.0

    Source: Collobert et al., Trading convexity for scalability (2006).
    """
    return F.relu(1 - z.clamp(min=0))  # the difference of two hinges would round to 0 far below


@loss("margin", "z <= 0", "0..1", "the share that is wrong; a measure without gradient")
@_of_margin
def zero_one(z: Tensor) -> Tensor:
    """1 where z <= 0, else 0: the share that is wrong; range 0..1; a score of 0 decides nothing and is wrong.

    It has no slope and so no gradient: for measuring, not for training.

    >>> import torch
    >>> zero_one(torch.tensor([3.0, -0.1, 0.0, 2.0]), torch.tensor([1, 1, 1, 1])).item()
    0.5

    Source: V. N. Vapnik, The nature of statistical learning theory (1995).
    """
    # A NaN stays NaN instead of being counted as right.
    return torch.where(z.isnan(), z, (z <= 0).to(z.dtype)).detach()
