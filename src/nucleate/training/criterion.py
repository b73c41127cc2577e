"""What training makes small: a sum of means, each a total over a weight.

As sums and weights are added apart, the parts of a batch give the gradient of the whole:

    classes   a loss of `pixel_losses()`, or several with factors: each is a term of its own; over all known pixels
    heat      binary cross entropy with the soft target, over all known pixels
    offset    smooth L1 of (predicted - true) / radius, over known nucleus pixels
    radius    smooth L1 of the log radius, over known nucleus pixels

Pixels count by `nucleate.postprocess.targets.importance`; the Lovász losses, which have no weights, take all known
pixels alike. The mean of overlap losses is over the classes of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate import losses
from nucleate.networks.unet import split
from nucleate.postprocess.targets import Targets
from nucleate.training import fused_criterion
from nucleate.training.pixel_loss import parse, pixel_losses

MAPS = {"heat": 1.0, "offset": 2.0, "radius": 0.3}
"""The terms of `SegmentationCriterion` besides those of the classes, and their shares."""


class Criterion(Protocol):
    """What training needs of a loss: a total and a weight for each of its `terms`, and the gradient of the totals."""

    @property
    def terms(self) -> Mapping[str, float]:
        """The share of each term: the loss is the sum of share times total over weight."""

    def weights(self, targets: Targets) -> dict[str, float]:
        """The weight that belongs to each total: the sum over the pixels that it was taken over."""

    def derivative(
        self, packed: Tensor, targets: Targets, shares: Mapping[str, float]
    ) -> tuple[dict[str, float], Tensor]:
        """The totals of maps as `UNet.packed` gives them, and the gradient of `shares` times the totals there."""


@dataclass(frozen=True, slots=True)
class SegmentationCriterion:
    """The loss of the network's maps against targets.

    Args:
        classes: Classes of pixels, background among them.
        loss: Of the classes, as `parse` takes it.
    """

    classes: int = 2
    loss: str = "cross_entropy"

    @property
    def terms(self) -> Mapping[str, float]:
        return {**parse(self.loss), **MAPS}

    def totals(self, maps: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The sum of each term over the batch, scalars; `maps` as the network gives them."""
        out = split(maps, self.classes)
        known, nucleus = _selections(targets)
        weight = targets.weight.unsqueeze(1)
        offset = (out.offset - targets.offset) / targets.radius.clamp_min(2.0)
        return {
            **{name: pixel_losses()[name].total(out.logits, targets) for name in parse(self.loss)},
            "heat": losses.binary_cross_entropy(
                out.heat, targets.heat, mask=known, weight=weight, reduction="sum", check=False
            ),
            "offset": _smooth_l1(offset, torch.zeros_like(offset), nucleus, targets),
            "radius": _smooth_l1(out.log_radius, targets.radius.log(), nucleus, targets),
        }

    def derivative(
        self, packed: Tensor, targets: Targets, shares: Mapping[str, float]
    ) -> tuple[dict[str, float], Tensor]:
        """The totals of maps as `UNet.packed` gives them, and the gradient of `shares` times the totals there."""
        if self.classes == 2 and list(parse(self.loss)) == ["cross_entropy"]:
            fast = fused_criterion.derivative(packed, targets, shares)
            if fast is not None:
                return fast
        packed = packed.detach().requires_grad_()
        totals = self.totals(F.pixel_shuffle(packed, 2), targets)
        value = torch.stack([share * totals[name] for name, share in shares.items()]).sum()
        (gradient,) = torch.autograd.grad(value, packed)
        return {name: float(total.detach()) for name, total in totals.items()}, gradient

    def weights(self, targets: Targets) -> dict[str, float]:
        """The weight that belongs to each total: the sum over the pixels that it was taken over."""
        weight = targets.weight.unsqueeze(1)
        known, nucleus = (float((weight * selected).sum()) for selected in _selections(targets))
        classes = {name: pixel_losses()[name].weight(targets, self.classes) for name in parse(self.loss)}
        return {**classes, "heat": known, "offset": nucleus, "radius": nucleus}


def _selections(targets: Targets) -> tuple[Tensor, Tensor]:
    known = targets.known.unsqueeze(1)
    return known, known & (targets.classes > 0).unsqueeze(1)


def _smooth_l1(prediction: Tensor, target: Tensor, nucleus: Tensor, targets: Targets) -> Tensor:
    return losses.smooth_l1(
        prediction, target, beta=0.25, channel_dim=1, mask=nucleus.squeeze(1), weight=targets.weight, reduction="sum",
        check=False,
    )  # fmt: skip


def sum_terms(parts: Iterable[Mapping[str, float]], terms: Iterable[str] | None = None) -> dict[str, float]:
    """Term by term, the sum over the batches, in their order; `terms` are needed where there may be no batch.

    >>> sum_terms([{"heat": 1.0}, {"heat": 0.5}])
    {'heat': 1.5}
    """
    parts = list(parts)
    return {name: sum(part[name] for part in parts) for name in (parts[0] if terms is None else terms)}


def weighted_mean(totals: Mapping[str, float], weights: Mapping[str, float], terms: Mapping[str, float]) -> float:
    """The loss: the shares times each total over its weight; a term without weight counts nothing."""
    return sum(share * totals[name] / weights[name] for name, share in terms.items() if weights[name] > 0)
