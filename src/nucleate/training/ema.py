"""The moving average of a network's weights."""

from __future__ import annotations

import copy

import torch

from nucleate.networks.unet import UNet


class ExponentialMovingAverage:
    """Exponential moving average of weights: a <- a + (1 - d) (w - a), d = min(decay, (1 + t) / (10 + t)).

    The weights of `network`, the average, are what is validated and saved.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 30 (1992) 838, in the exponential form.
    """

    def __init__(self, network: UNet, decay: float = 0.998) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: UNet, step: int | None = None) -> None:
        """Take in the weights of `network` after step `step`, counted from 0; None where the average began with weights
        that were trained, which the first steps must not wipe out: d is the decay from the first step on."""
        share = 1 - (self.decay if step is None else min(self.decay, (1 + step) / (10 + step)))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), share)
