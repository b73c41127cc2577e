"""One step of training: the only place where a gradient is taken.

The objective is a sum of four means, each a total over a weight (so accumulated parts give the gradient of the whole):

    classes   a loss of `LOSSES`, over all known pixels
    heat      binary cross entropy with the soft target, over all known pixels
    offset    smooth L1 of (predicted - true) / radius, over known nucleus pixels
    radius    smooth L1 of the log radius, over known nucleus pixels

Pixels count by `nucleate.postprocess.targets.importance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate import losses
from nucleate.data.augment import Batch
from nucleate.errors import TrainingError
from nucleate.networks.runtime import autocast
from nucleate.networks.unet import Convolution, UNet, split
from nucleate.postprocess.targets import Targets
from nucleate.training import fused_criterion
from nucleate.training.parallel import Cores, Item, Made

TERMS = {"classes": 1.0, "heat": 1.0, "offset": 2.0, "radius": 0.3}
"""The terms of the objective and their shares."""

LOSSES: dict[str, Callable[..., Tensor]] = {"cross_entropy": losses.cross_entropy, "focal": losses.focal}
"""What `nucleate train --loss` takes for the classes of pixels."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What training makes small; `classes` of pixels, and the name of their `loss`."""

    classes: int = 2
    loss: str = "cross_entropy"

    def totals(self, maps: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The sum of each term over the batch, scalars; `maps` as the network gives them."""
        out = split(maps, self.classes)
        known, nucleus = _selections(targets)
        weight = targets.weight.unsqueeze(1)
        offset = (out.offset - targets.offset) / targets.radius.clamp_min(2.0)
        return {
            "classes": LOSSES[self.loss](
                out.logits,
                targets.classes,
                mask=targets.known,
                position_weight=targets.weight,
                reduction="sum",
                check=False,
            ),
            "heat": losses.binary_cross_entropy(
                out.heat, targets.heat, mask=known, weight=weight, reduction="sum", check=False
            ),
            "offset": _smooth_l1(offset, nucleus, weight),
            "radius": _smooth_l1(out.log_radius - targets.radius.log(), nucleus, weight),
        }

    def derivative(
        self, packed: Tensor, targets: Targets, shares: Mapping[str, float]
    ) -> tuple[dict[str, float], Tensor]:
        """The totals of maps as `UNet.packed` gives them, and the gradient of `shares` times the totals there."""
        if self.classes == 2 and self.loss == "cross_entropy":
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
        return {"classes": known, "heat": known, "offset": nucleus, "radius": nucleus}


def _selections(targets: Targets) -> tuple[Tensor, Tensor]:
    known = targets.known.unsqueeze(1)
    return known, known & (targets.classes > 0).unsqueeze(1)


def _smooth_l1(difference: Tensor, where: Tensor, weight: Tensor) -> Tensor:
    selected = torch.where(where, difference, 0.0)
    return (weight * F.smooth_l1_loss(selected, torch.zeros_like(selected), reduction="none", beta=0.25)).sum()


def added(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Term by term, the sum over several batches."""
    value = dict.fromkeys(TERMS, 0.0)
    for part in parts:
        for name in TERMS:
            value[name] += float(part[name])
    return value


def mean(totals: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The objective: the shares times each total over its weight; a term without weight counts nothing."""
    return sum(share * totals[name] / weights[name] for name, share in TERMS.items() if weights[name] > 0)


def backward(
    network: UNet,
    objective: Objective,
    batches: Sequence[Batch],
    *,
    where: torch.device,
    bfloat16: bool,
    cores: Cores | None = None,
) -> float:
    """Adds the gradient of the objective over all `batches` together, and returns its value.

    Each total is divided by the weight of all batches, so it does not matter how samples are spread over them. With
    `cores` the batches are computed side by side; the order in which they end does not matter either. Products are in
    `bfloat16`, or all in float32.
    """
    run = _in_turn if cores is None else cores.map
    batches = [_to(batch, where) for batch in batches]
    weights = added(run(lambda batch: objective.weights(batch.targets), batches))
    shares = {name: share / weights[name] if weights[name] > 0 else 0.0 for name, share in TERMS.items()}
    if not any(shares.values()):
        return 0.0
    convolutions = [module for module in network.modules() if isinstance(module, Convolution)]
    applied = run(lambda one: one.applied(), convolutions)
    # The leaves between the batches and the making of the kernels, which is the same for all.
    held = [(kernel.detach().requires_grad_(), bias.detach().requires_grad_()) for kernel, bias in applied]
    leaves = [leaf for pair in held for leaf in pair]
    try:
        for convolution, pair in zip(convolutions, held, strict=True):
            convolution.held = pair
        parts = run(lambda batch: _derivatives(network, objective, batch, shares, leaves, where, bfloat16), batches)
    finally:
        for convolution in convolutions:
            convolution.held = None
    value = mean(added(totals for totals, _ in parts), weights)
    if not math.isfinite(value):
        raise TrainingError("The loss is not finite any more: train again with a lower learning rate.")
    gradients = list(zip(*(found for _, found in parts), strict=True))

    def back(index: int) -> None:
        """From the gradients at a kernel and its bias to those of what is learnt."""
        of_both = gradients[2 * index : 2 * index + 2]
        torch.autograd.backward(applied[index], [_sum(of_leaf) for of_leaf in of_both])

    run(back, range(len(convolutions)))
    return value


def _in_turn(work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    return [work(item) for item in items]


def _derivatives(
    network: UNet,
    objective: Objective,
    batch: Batch,
    shares: Mapping[str, float],
    leaves: Sequence[Tensor],
    where: torch.device,
    bfloat16: bool,
) -> tuple[dict[str, float], tuple[Tensor, ...]]:
    """The totals of one batch, and the gradient of `shares` times them at `leaves`."""
    with autocast(where, bfloat16=bfloat16):
        packed = network.packed(batch.image.contiguous(memory_format=torch.channels_last))
    totals, gradient = objective.derivative(packed.detach(), batch.targets, shares)
    return totals, torch.autograd.grad(packed, leaves, gradient)


def _sum(parts: tuple[Tensor, ...]) -> Tensor:
    total, *others = parts
    for other in others:
        total = total + other
    return total


def _to(batch: Batch, where: torch.device) -> Batch:
    t = batch.targets
    moved = (x.to(where, non_blocking=True) for x in (t.classes, t.known, t.heat, t.offset, t.radius, t.weight))
    return Batch(batch.image.to(where, non_blocking=True), Targets(*moved))


class Averaged:
    """Exponential moving average of a network's weights: a <- a + (1 - d) (w - a), d = min(decay, (1 + t)/(10 + t)).

    Its weights are what is validated and saved (Polyak and Juditsky, 1992, in the exponential form).
    """

    def __init__(self, network: UNet, decay: float = 0.998) -> None:
        self.network = UNet(network.architecture).requires_grad_(False)
        self.network.load_state_dict(network.state_dict())
        self.network.to(next(network.parameters()).device)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: UNet, step: int) -> None:
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), share)
