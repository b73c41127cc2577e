"""Learning what is new while what was known stays: a loss that adds the divergence from the model before.

    loss = off-line loss + share KL(before || now)

over the known pixels of replayed crops, of the classes and of the heat, a probability of its own:

    KL(p || q) = sum_c p_c (log p_c - log q_c)

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
from nucleate.training.criterion import Criterion

KL = "kl"
"""The name of the term."""


@dataclass(frozen=True, slots=True)
class RememberedTargets(Targets):
    """Targets of a batch, and what the model before said: `logits` (N, classes, H, W) and `heat_logit` (N, 1, H, W),
    float32, which count where `replayed` (N, H, W) bool."""

    logits: Tensor
    heat_logit: Tensor
    replayed: Tensor

    @classmethod
    def of(cls, targets: Targets, before: Tensor, replayed: Tensor, classes: int) -> RememberedTargets:
        """With the maps `before` (N, classes + 4, H, W) and the samples (N,) bool that are `replayed`."""
        said = split(before, classes)
        t = targets
        return cls(
            t.classes, t.known, t.heat, t.offset, t.radius, t.weight,
            said.logits, said.heat, t.known & replayed[:, None, None],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RememberingCriterion:
    """`criterion` plus `share` times the divergence from what the model before said; see above."""

    criterion: Criterion
    classes: int
    share: float

    @property
    def terms(self) -> Mapping[str, float]:
        return {**self.criterion.terms, KL: self.share}

    def weights(self, targets: Targets) -> dict[str, float]:
        """Those of the criterion, and the number of replayed known pixels."""
        assert isinstance(targets, RememberedTargets)
        return {**self.criterion.weights(targets), KL: float(targets.replayed.sum())}

    def divergence(self, maps: Tensor, targets: RememberedTargets) -> Tensor:
        """The sum over replayed known pixels, a scalar, of the divergences of classes and heat, in nats."""
        now, mask = split(maps, self.classes), targets.replayed
        pairs = ((targets.logits, now.logits), (_both(targets.heat_logit), _both(now.heat)))
        parts = [losses.kl_divergence(p=p, q=q, mask=mask, reduction="sum", check=False) for p, q in pairs]
        return torch.stack(parts).sum()

    def derivative(
        self, packed: Tensor, targets: Targets, shares: Mapping[str, float]
    ) -> tuple[dict[str, float], Tensor]:
        """The totals of maps as `UNet.packed` gives them, and the gradient of `shares` times the totals there."""
        assert isinstance(targets, RememberedTargets)
        own = {name: shares[name] for name in self.criterion.terms}
        totals, gradient = self.criterion.derivative(packed, targets, own)
        if not shares[KL]:
            return {**totals, KL: 0.0}, gradient
        packed = packed.detach().requires_grad_()
        value = self.divergence(F.pixel_shuffle(packed, 2), targets)
        (more,) = torch.autograd.grad(shares[KL] * value, packed)
        return {**totals, KL: float(value.detach())}, gradient + more


def _both(logit: Tensor) -> Tensor:
    """The logit of one probability as the logits of it and of its rest."""
    return torch.cat([torch.zeros_like(logit), logit], dim=1)
