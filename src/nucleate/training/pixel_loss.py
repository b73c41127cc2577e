"""What `nucleate train --loss` takes: the losses of the catalogue that fit pixel classes, and sums of them.

Whether a loss fits follows from its arguments alone, so a loss that enters the catalogue is found here:

    logits or prediction, target, class_dim=, mask=    takes the logits of the classes as they are
    score or logits, target, mask=                     a yes or no: takes, for each class but the background, the
                                                       log-odds that a pixel is of that class

and from its having a gradient: measures have none. With two classes the log-odds are the difference of the two logits.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate import losses
from nucleate.errors import InputError, LossInputError
from nucleate.losses.cross_entropy import log_complement
from nucleate.losses.reduction import held, select
from nucleate.postprocess.targets import Targets

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
        regions: Whether its mean is over the classes of images, as that of the overlap losses, and not over pixels.
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
            return (1 if not self.yes_or_no else classes - 1) * float((targets.weight * targets.known).sum())
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
            x = _log_odds(select(held(x), targets.known.unsqueeze(1)))[:, 1:].flatten(0, 1)
        weights = {"weight": weight} if self.weighted else {}
        return self.function(x, labels, mask=known, **weights, reduction=reduction, check=False)


def _log_odds(logits: Tensor) -> Tensor:
    """Of each class against all others together: log p - log(1 - p)."""
    log_p = F.log_softmax(logits, 1)
    return log_p - log_complement(log_p, 1)


def _of(entry: losses.Entry) -> PixelLoss | None:
    """How the loss takes pixel classes, if it does."""
    parameters = inspect.signature(entry.function).parameters
    needed = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    if needed not in (["logits", "target"], ["prediction", "target"], ["score", "target"]) or "mask" not in parameters:
        return None
    unit = MARGIN if entry.kind == "margin" or needed[0] == "score" else 1.0
    made = PixelLoss(entry.function, "class_dim" not in parameters, "weight" in parameters, "over" in parameters, unit)
    return made if _has_gradient(made) else None


def _has_gradient(loss: PixelLoss) -> bool:
    """Tried on an image of 2 x 2; in float64, for which nothing is compiled."""
    square, classes = torch.zeros(1, 1, 2, 2), torch.tensor([[[0, 1], [1, 0]]])
    targets = Targets(classes, torch.ones(1, 2, 2, dtype=torch.bool), square, square, square, torch.ones(1, 2, 2))
    try:
        return loss.total(torch.zeros(1, 2, 2, 2, dtype=torch.float64, requires_grad=True), targets).requires_grad
    except LossInputError:
        return False


@functools.cache
def pixel_losses() -> Mapping[str, PixelLoss]:
    """The losses that fit, by name, in the order of the catalogue.

    >>> [name for name in pixel_losses() if name.endswith("entropy")]
    ['cross_entropy', 'binary_cross_entropy']
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
