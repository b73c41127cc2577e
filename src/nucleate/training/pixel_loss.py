"""What `nucleate train --loss` takes: the losses of the catalogue that fit pixel classes, and sums of them.

Nothing says so of a loss; it is tried, so that one that enters the catalogue is found here. A loss of one of the
`FAMILIES` that takes a prediction, a target and a mask fits in one of two ways:

    by class       it takes the logits of the classes and class indices
    by yes or no   it takes one score a pixel: for each class but the background, the log-odds that a pixel is of
                   it; with two classes they are the difference of the logits

and only where a step downhill leads towards the labels. Measures have no slope, and there are losses whose logits mean
something else than softmax makes of them.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nucleate import losses
from nucleate.errors import InputError, LossInputError
from nucleate.losses.reduction import held, select
from nucleate.postprocess.targets import Targets

FAMILIES = ("cross entropy", "margin", "overlap")
"""Of the catalogue, those whose targets are classes."""

MARGIN = 4.0
"""The log-odds at which a margin of 1 is reached: a probability of 0.982. At log-odds of 1 it would be 0.731, which is
below every threshold for being sure of a nucleus, and nothing would be found."""


@dataclass(frozen=True, slots=True)
class PixelLoss:
    """A loss of the catalogue as it is used for the classes of pixels.

    Args:
        function: The loss.
        yes_or_no: Whether it takes one score a pixel instead of the logits of all classes.
        weighted: Whether it takes a weight for each pixel. If not, known pixels count alike.
        regions: Whether its mean is over the classes of images, or some pixels of each, and not over all pixels.
        unit: Logits are divided by it.
    """

    function: Callable[..., Tensor]
    yes_or_no: bool
    weighted: bool
    regions: bool
    unit: float

    def total(self, logits: Tensor, targets: Targets) -> Tensor:
        """The sum over images and pixels, of logits (N, C, H, W)."""
        return self._apply(logits, targets, "sum")

    def weight(self, targets: Targets, classes: int) -> float:
        """What the total is divided by for a mean; it depends on the targets alone."""
        if self.weighted and not self.regions:
            return (classes - 1 if self.yes_or_no else 1) * float((targets.weight * targets.known).sum())
        n, *size = targets.classes.shape
        with torch.no_grad():
            zeros = torch.zeros(n, classes, *size, device=targets.weight.device)
            return float(self._apply(zeros, targets, "pair")[1])

    def _apply(self, x: Tensor, targets: Targets, reduction: str) -> Tensor:
        labels, known, weight = targets.classes, targets.known, targets.weight
        if self.unit != 1:
            x = x / self.unit
        if self.yes_or_no:
            kinds = torch.arange(1, x.shape[1], device=x.device)[:, None, None]
            labels = (labels.unsqueeze(1) == kinds).flatten(0, 1)
            known, weight = (one.unsqueeze(1).expand(-1, len(kinds), -1, -1).flatten(0, 1) for one in (known, weight))
            x = _log_odds(select(held(x), targets.known.unsqueeze(1))).flatten(0, 1)
        options: dict[str, Any] = {"weight": weight} if self.weighted else {}
        if self.regions and "normalize" in inspect.signature(self.function).parameters:
            options["normalize"] = "count"  # which pixels count depends on the logits, how many does not
        return self.function(x, labels, mask=known, **options, reduction=reduction, check=False)


def _log_odds(logits: Tensor) -> Tensor:
    """Of each class but the first against all others together: log p - log(1 - p)."""
    others = [torch.cat([logits[:, :c], logits[:, c + 1 :]], 1) for c in range(1, logits.shape[1])]
    return logits[:, 1:] - torch.stack([one.logsumexp(1) for one in others], 1)


def _of(entry: losses.Entry) -> PixelLoss | None:
    """How the loss takes pixel classes, if it does."""
    parameters = inspect.signature(entry.function).parameters
    first, *others = (name for name, parameter in parameters.items() if parameter.default is parameter.empty)
    if entry.kind not in FAMILIES or others != ["target"] or "mask" not in parameters:
        return None
    unit = MARGIN if entry.kind == "margin" or first == "score" else 1.0
    for yes_or_no in (False, True):
        made = PixelLoss(entry.function, yes_or_no, "weight" in parameters, "over" in parameters, unit)
        if _leads_to_the_labels(made):
            return made
    return None


def _leads_to_the_labels(loss: PixelLoss) -> bool:
    """Tried on a small image, a little right and a little wrong; in float64, for which nothing is compiled."""
    right = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    right[:, 1, 2:6, 2:6] = 1.0
    right[:, 0] = 1 - right[:, 1]
    plane = torch.ones(1, 8, 8)
    targets = Targets(right[:, 1].long(), plane > 0, plane[None], plane[None], plane[None], plane)
    slope = torch.zeros_like(right)
    for sign in (-0.1, 0.1):
        logits = (sign * right).requires_grad_()
        try:
            total = loss.total(logits, targets)
        except LossInputError:
            return False
        if not total.requires_grad:
            return False
        slope += torch.autograd.grad(total, logits)[0]
    return bool((slope * (2 * right - 1)).sum() < 0)


@functools.cache
def pixel_losses() -> Mapping[str, PixelLoss]:
    """The losses that fit, by name, in the order of the catalogue.

    >>> [name for name in pixel_losses() if name.endswith("entropy")]
    ['cross_entropy', 'binary_cross_entropy', 'topk_cross_entropy', 'generalized_cross_entropy']
    """
    found = {entry.name: _of(entry) for entry in losses.catalogue()}
    return {name: one for name, one in found.items() if one is not None}


def parse(expression: str) -> dict[str, float]:
    """The losses of a sum and their factors, of an expression as `--loss` takes it.

    >>> parse("cross_entropy + 0.5*dice")
    {'cross_entropy': 1.0, 'dice': 0.5}

    Raises:
        InputError: It is no sum of losses that fit pixel classes.
    """
    factors: dict[str, float] = {}
    for term in expression.split("+"):
        factor, star, name = (part.strip() for part in term.rpartition("*"))
        if not name:
            raise InputError(f"--loss {expression!r}: a loss is missing; write a sum as in cross_entropy+0.5*dice.")
        if name not in pixel_losses():
            raise InputError(f"--loss {expression!r}: {_unknown(name)}")
        if name in factors:
            raise InputError(f"--loss {expression!r}: {name} stands in it twice; add up its factors.")
        factors[name] = _factor(factor, expression) if star else 1.0
    return factors


def spelled(factors: Mapping[str, float]) -> str:
    """One spelling of an expression, whatever was typed.

    >>> spelled(parse(" 1.0 * cross_entropy +.50*dice"))
    'cross_entropy+0.5*dice'
    """
    return "+".join(name if factor == 1 else f"{factor:.15g}*{name}" for name, factor in factors.items())


def _factor(text: str, expression: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise InputError(f"--loss {expression!r}: {text!r} is no factor; give a number above 0, as in 0.5*dice.")
    return factor


def _unknown(name: str) -> str:
    names = list(pixel_losses())
    near = difflib.get_close_matches(name, names, n=2)
    known = any(entry.name == name for entry in losses.catalogue())
    what = f"{name} does not fit pixel classes" if known else f"there is no loss {name} of pixel classes"
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{what}{hint} Choose of {', '.join(names)}, or a sum of them, as in cross_entropy+0.5*dice."
