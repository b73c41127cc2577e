"""Backpropagation: the only place where a gradient is taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from nucleate.data.augment import Batch
from nucleate.errors import TrainingError
from nucleate.networks.runtime import autocast
from nucleate.networks.unet import Convolution, UNet
from nucleate.parallel import Communicator, SingleProcess
from nucleate.training.criterion import Criterion, sum_terms, weighted_mean
from nucleate.training.parallel import Parallel, Serial


class Backpropagation:
    """Takes the gradient of a criterion at the parameters of `network`.

    The kernels of a step are made once (`Convolution.applied`) and copied into a network of plain convolutions, the
    one that predicts (`UNet.folded`). All batches of the step read it side by side; the gradients at its parameters
    are summed and carried back to what is learnt, where those of other ranks are added.
    """

    def __init__(self, network: UNet) -> None:
        named = [(name, one) for name, one in network.named_modules() if isinstance(one, Convolution)]
        self._convolutions = [one for _, one in named]
        self._parameters = [learnt for one in self._convolutions for learnt in one.parameters()]
        self._folded = network.folded().requires_grad_()
        self._plain = [_convolution(self._folded, name) for name, _ in named]
        self._leaves = [leaf for one in self._plain for leaf in (one.weight, one.bias) if leaf is not None]

    def backward(
        self,
        criterion: Criterion,
        batches: Sequence[Batch],
        *,
        bfloat16: bool,
        parallel: Parallel | None = None,
        ranks: Communicator | None = None,
    ) -> float:
        """Add the gradient of the criterion over the `batches` of all ranks together to the parameters' `grad`.

        Each total is divided by the weight of all batches, so it does not matter how samples are spread over them;
        nor does the order in which parallel batches end. Ranks send the weights and the totals, a few numbers each, and
        the gradient, one flat buffer in float32.

        Args:
            criterion: The loss.
            batches: Those of this rank; it may have none.
            bfloat16: Whether products are in bfloat16, or all in float32.
            parallel: Computes the batches side by side; by default in turn.
            ranks: The processes that share the step; by default this one alone.

        Returns:
            The value of the criterion; 0, and no gradient, where nothing is known of any pixel.

        Raises:
            TrainingError: The value is not finite.
        """
        parallel, ranks = parallel or Serial(), ranks or SingleProcess()
        batches = [_to(batch, self._leaves[0].device) for batch in batches]
        terms = criterion.terms
        own = parallel.map(lambda batch: criterion.weights(batch.targets), batches)
        weights = across(sum_terms(own, terms), ranks)
        shares = {name: share / weights[name] if weights[name] > 0 else 0.0 for name, share in terms.items()}
        if not any(shares.values()):
            return 0.0
        made = self.make_kernels(parallel)
        parts = parallel.map(lambda batch: self._derivatives(criterion, batch, shares, bfloat16), batches)
        totals = across(sum_terms([totals for totals, _ in parts], terms), ranks)
        value = require_finite(weighted_mean(totals, weights, terms))
        self.add_gradient(made, [found for _, found in parts], parallel, ranks)
        return value

    def make_kernels(self, parallel: Parallel) -> list[tuple[Tensor, Tensor]]:
        """Kernel and bias of each convolution as they follow from what is learnt, also put into the plain network."""
        return parallel.map(self._make, range(len(self._convolutions)))

    def add_gradient(
        self,
        made: Sequence[tuple[Tensor, Tensor]],
        parts: Sequence[tuple[Tensor, ...]],
        parallel: Parallel,
        ranks: Communicator,
    ) -> None:
        """Carry the gradients at kernels and biases, one part for each batch, back to what is learnt, and add those of
        all ranks to the parameters' `grad`."""
        at_leaves = [parallel.sum(of_leaf) for of_leaf in zip(*parts, strict=True)]

        def carry_back(index: int) -> tuple[Tensor, ...]:
            learnt = [*self._convolutions[index].parameters()]
            return torch.autograd.grad(made[index], learnt, at_leaves[2 * index : 2 * index + 2])

        gradients = [one for found in parallel.map(carry_back, range(len(made) if parts else 0)) for one in found]
        if ranks.size > 1:
            gradients = self._summed(gradients, ranks)
        for parameter, gradient in zip(self._parameters, map(_laid_out, gradients), strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _summed(self, gradients: Sequence[Tensor], ranks: Communicator) -> list[Tensor]:
        """The gradients over all ranks, from one message; a rank without a batch adds nothing.

        Those at what is learnt are summed, as the symmetry makes the ones at the kernels eight times as many numbers.
        """
        mine = gradients or [torch.zeros_like(one) for one in self._parameters]
        flat = ranks.sum(torch.cat([one.reshape(-1) for one in mine]))
        parts = flat.split([one.numel() for one in self._parameters])
        return [part.view_as(one) for part, one in zip(parts, self._parameters, strict=True)]

    def _make(self, index: int) -> tuple[Tensor, Tensor]:
        """Kernel and bias of a convolution as they follow from what is learnt, also put into its plain twin."""
        kernel, bias = self._convolutions[index].applied()
        with torch.no_grad():
            self._leaves[2 * index].copy_(kernel)
            self._leaves[2 * index + 1].copy_(bias)
        return kernel, bias

    def _derivatives(
        self, criterion: Criterion, batch: Batch, shares: Mapping[str, float], bfloat16: bool
    ) -> tuple[dict[str, float], tuple[Tensor, ...]]:
        """The totals of one batch, and the gradient of `shares` times them at the leaves."""
        with autocast(batch.image.device, bfloat16=bfloat16):
            packed = self._folded.packed(batch.image.contiguous(memory_format=torch.channels_last))
        totals, gradient = criterion.derivative(packed.detach(), batch.targets, shares)
        return totals, torch.autograd.grad(packed, self._leaves, gradient)


def require_finite(value: float) -> float:
    """The value of a loss; raises TrainingError where it is no number."""
    if not math.isfinite(value):
        raise TrainingError("The loss is not finite any more: train again with a lower learning rate.")
    return value


def _laid_out(gradient: Tensor) -> Tensor:
    """Kernels with their channels last, wherever they come from: the optimiser rounds by the order in memory."""
    return gradient.contiguous(memory_format=torch.channels_last) if gradient.dim() == 4 else gradient


def across(terms: Mapping[str, float], ranks: Communicator) -> dict[str, float]:
    """The same terms, each summed over the ranks."""
    if ranks.size == 1:
        return dict(terms)
    summed = ranks.sum(torch.tensor(list(terms.values()), dtype=torch.float64))
    return dict(zip(terms, summed.tolist(), strict=True))


def _convolution(network: UNet, name: str) -> nn.Conv2d:
    found = network.get_submodule(name)
    assert isinstance(found, nn.Conv2d)
    return found


def _to(batch: Batch, device: torch.device) -> Batch:
    targets = batch.targets
    moved = {part.name: getattr(targets, part.name).to(device, non_blocking=True) for part in fields(targets)}
    return Batch(batch.image.to(device, non_blocking=True), replace(targets, **moved))
