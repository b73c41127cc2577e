"""Learning what is new while what was known stays: a loss that adds the distance from the model before.

    loss = off-line loss + share (KL(before || now) + offset + radius)

over the known pixels of replayed crops. The divergence is that of the classes and of the heat, a probability of its
own:

    KL(p || q) = sum_c p_c (log p_c - log q_c)

Offset and radius are the off-line terms of these maps, over nucleus pixels, with what the model before said in place of
the truth.

Source: Li and Hoiem, Learning without forgetting, IEEE TPAMI 40 (2018) 2935, with crops kept of what was learnt, as in
Rebuffi et al., iCaRL, CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate import losses
from nucleate.networks.unet import split
from nucleate.postprocess.targets import Targets
from nucleate.training.criterion import MAPS, SegmentationCriterion

KL, OFFSET, RADIUS = "kl", "offset before", "radius before"
"""The names of the terms."""


@dataclass(frozen=True, slots=True)
class RememberedTargets(Targets):
    """Targets of a batch, and the maps (N, classes + 4, H, W) that the model `before` gave, which count where
    `replayed` (N, H, W) bool."""

    before: Tensor
    replayed: Tensor

    @classmethod
    def of(cls, targets: Targets, before: Tensor, replayed: Tensor) -> RememberedTargets:
        """With the maps `before` and the samples (N,) bool that are `replayed`."""
        t = targets
        return cls(
            t.classes, t.known, t.heat, t.offset, t.radius, t.weight,
            before, t.known & replayed[:, None, None],
        )  # fmt: skip

    def as_before(self, classes: int) -> Targets:
        """The targets of the replayed pixels with the offsets and radii of the model before."""
        said = split(self.before, classes)
        return Targets(self.classes, self.replayed, self.heat, said.offset, said.log_radius.exp(), self.weight)


@dataclass(frozen=True, slots=True)
class RememberingCriterion:
    """`criterion` plus `share` times the distance from what the model before said; see above."""

    criterion: SegmentationCriterion
    classes: int
    share: float

    @property
    def terms(self) -> Mapping[str, float]:
        own = {KL: 1.0, OFFSET: MAPS["offset"], RADIUS: MAPS["radius"]}
        return {**self.criterion.terms, **{name: self.share * value for name, value in own.items()}}

    def weights(self, targets: Targets) -> dict[str, float]:
        """Those of the criterion; the number of replayed known pixels; and the weight of their nuclei, twice."""
        assert isinstance(targets, RememberedTargets)
        nuclei = self.criterion.weights(targets.as_before(self.classes))
        more = {KL: float(targets.replayed.sum()), OFFSET: nuclei["offset"], RADIUS: nuclei["radius"]}
        return {**self.criterion.weights(targets), **more}

    def distances(self, maps: Tensor, targets: RememberedTargets) -> dict[str, Tensor]:
        """The sum of each term over the replayed known pixels, scalars; of KL in nats."""
        now, said, mask = split(maps, self.classes), split(targets.before, self.classes), targets.replayed
        pairs = ((said.logits, now.logits), (_both(said.heat), _both(now.heat)))
        parts = [losses.kl_divergence(p=p, q=q, mask=mask, reduction="sum", check=False) for p, q in pairs]
        kept = self.criterion.totals(maps, targets.as_before(self.classes))
        return {KL: torch.stack(parts).sum(), OFFSET: kept["offset"], RADIUS: kept["radius"]}

    def derivative(
        self, packed: Tensor, targets: Targets, shares: Mapping[str, float]
    ) -> tuple[dict[str, float], Tensor]:
        """The totals of maps as `UNet.packed` gives them, and the gradient of `shares` times the totals there."""
        assert isinstance(targets, RememberedTargets)
        own = {name: shares[name] for name in self.criterion.terms}
        totals, gradient = self.criterion.derivative(packed, targets, own)
        if not shares[KL]:
            return {**totals, KL: 0.0, OFFSET: 0.0, RADIUS: 0.0}, gradient
        packed = packed.detach().requires_grad_()
        found = self.distances(F.pixel_shuffle(packed, 2), targets)
        (more,) = torch.autograd.grad(torch.stack([shares[name] * one for name, one in found.items()]).sum(), packed)
        return {**totals, **{name: float(one.detach()) for name, one in found.items()}}, gradient + more


def _both(logit: Tensor) -> Tensor:
    """The logit of one probability as the logits of it and of its rest."""
    return torch.cat([torch.zeros_like(logit), logit], dim=1)
