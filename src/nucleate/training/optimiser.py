"""Orthogonalised steps for the kernels of convolutions.

A kernel, taken as a matrix of one row an output channel, has a few directions in which its gradient G is always large
and many in which it is always small. AdamW scales element by element and mends little of that; here every direction
is given the same length:

    V <- V + (1 - m) (G - V)                      momentum
    U  = G + m (V - G)                            looking ahead (Nesterov, 1983)
    W <- W - lr (U U^T)^(-1/2) U                  Muon (Jordan et al., 2024)

The kernels' symmetry takes their matrices apart into smaller ones (`equivariant.blocks`), of which the step is made: a
fortieth of the work on the whole, and the same step.

Standardised kernels (`networks.unet.GroupConvolution`) do not change their effect with their length, which grows as
steps add up; so the turn that a step makes becomes smaller by itself, as under a falling learning rate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import overload

import torch
from torch import Tensor

from nucleate.networks import equivariant
from nucleate.networks.unet import Convolution, GroupConvolution, UNet

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""x -> a x + b x^3 + c x^5, five times, takes every singular value in 0.01..1 to 0.7..1.2 (Jordan et al., 2024)."""

STEPS = 5


def orthogonalised(matrices: Sequence[Tensor], lengths: Sequence[Tensor] | None = None) -> list[Tensor]:
    """(G G^T)^(-1/2) G, nearly, of each matrix G (m, n), m <= n best: the same directions, all singular values in
    0.7..1.2. A matrix of zeros stays one. `lengths` are what no singular value exceeds; by default the matrices' own.

    The polynomial is applied to the Gram matrices (m, m), all of one size together, so that the long side is met
    twice in all and not twice a step.

    >>> found, = orthogonalised([torch.randn(8, 40, generator=torch.Generator().manual_seed(0))])
    >>> values = torch.linalg.svdvals(found)
    >>> bool(((0.6 < values) & (values < 1.3)).all())
    True
    """
    lengths = [one.norm() for one in matrices] if lengths is None else lengths
    of_size: dict[int, list[int]] = {}
    for index, one in enumerate(matrices):
        of_size.setdefault(len(one), []).append(index)
    found: dict[int, Tensor] = {}
    for indices in of_size.values():
        long = torch.stack([lengths[index] for index in indices])[:, None, None]
        long = long.clamp_min(torch.finfo(long.dtype).tiny ** 0.5)
        roots = _inverse_roots(torch.stack([matrices[index] @ matrices[index].T for index in indices]) / long**2)
        found |= {index: root @ matrices[index] for index, root in zip(indices, roots / long, strict=True)}
    return [found[index] for index in range(len(matrices))]


def _inverse_roots(grams: Tensor) -> Tensor:
    """The polynomial that takes each G to `orthogonalised`, from its Gram matrix: (k, m, m) to (k, m, m)."""
    applied = once = _polynomial(grams)
    for _ in range(STEPS - 1):
        grams = once @ (grams @ once)
        once = _polynomial(grams)
        applied = once @ applied
    return applied


def _polynomial(grams: Tensor) -> Tensor:
    """a I + b G + c G^2 of each matrix G, (k, m, m)."""
    a, b, c = COEFFICIENTS
    value = torch.baddbmm(grams, grams, grams, beta=b, alpha=c)
    value.diagonal(dim1=1, dim2=2).add_(a)
    return value


class Muon(torch.optim.Optimizer):
    """Orthogonalised steps for `parameters`, weights (outputs / 8, inputs, size, size) of group convolutions.

    >>> kernel = torch.nn.Parameter(torch.ones(2, 8, 3, 3))
    >>> kernel.grad = torch.ones(2, 8, 3, 3)
    >>> Muon([kernel], lr=0.1).step()
    >>> bool((kernel < 1).all())
    True
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step with the gradients at hand, or with those that `closure` makes; the loss that it returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            kernels = [one for one in group["params"] if one.grad is not None]
            matrices, lengths = [], []
            for one in kernels:
                if not self.state[one]:
                    self.state[one]["velocity"] = torch.zeros_like(one)
                velocity = self.state[one]["velocity"].lerp_(one.grad, 1 - group["momentum"])
                ahead = one.grad.lerp(velocity, group["momentum"])
                matrices += equivariant.blocks(ahead)
                # The length of the kernel, in which each number stands eight times.
                lengths += [math.sqrt(equivariant.ORDER) * ahead.norm()] * equivariant.BLOCKS
            steps = iter(orthogonalised(matrices, lengths))
            for one in kernels:
                step = equivariant.from_blocks(list(itertools.islice(steps, equivariant.BLOCKS)), one)
                one.add_(step, alpha=-group["lr"])
        return loss


OTHERS = 0.1
"""The learning rate of biases, gains, stem and head as a part of the kernels'."""


class Optimiser:
    """What moves a network: `Muon` its standardised kernels, AdamW (Loshchilov and Hutter, 2019) all else.

    >>> network = UNet()
    >>> network(torch.ones(1, 1, 16, 16)).sum().backward()
    >>> Optimiser(network, weight_decay=0.02).step(0.02)
    """

    def __init__(self, network: UNet, weight_decay: float) -> None:
        convolutions = [module for module in network.modules() if isinstance(module, Convolution)]
        kernels = [one.weight for one in convolutions if isinstance(one, GroupConvolution)]
        images = [one.weight for one in convolutions if not isinstance(one, GroupConvolution)]
        known = {id(one) for one in (*kernels, *images)}
        others = [one for one in network.parameters() if id(one) not in known]
        self._kernels = Muon(kernels)
        self._others = torch.optim.AdamW(
            [{"params": images, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}], fused=True
        )

    def step(self, rate: float) -> None:
        """One step with the gradients at hand, which are then gone; `rate` is the kernels' learning rate."""
        for optimiser, share in ((self._kernels, 1.0), (self._others, OTHERS)):
            for group in optimiser.param_groups:
                group["lr"] = share * rate
        self._kernels.step()
        self._others.step()
        self._kernels.zero_grad()
        self._others.zero_grad()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All that it remembers of the steps before."""
        named = (("kernels", self._kernels), ("others", self._others))
        return {f"{name}.{index}": own for name, one in named for index, own in one.state_dict()["state"].items()}

    def restore(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Go on from what `tensors` gave; raises ValueError where it is of another network."""
        for name, one, moments in (
            ("kernels", self._kernels, {"velocity"}),
            ("others", self._others, {"step", "exp_avg", "exp_avg_sq"}),
        ):
            parameters = [parameter for group in one.param_groups for parameter in group["params"]]
            state = {index: tensors.get(f"{name}.{index}", {}) for index in range(len(parameters))}
            for parameter, own in zip(parameters, state.values(), strict=True):
                wanted = {key: (torch.Size() if key == "step" else parameter.shape, parameter.dtype) for key in moments}
                if {key: (tensor.shape, tensor.dtype) for key, tensor in own.items()} != wanted:
                    raise ValueError(f"{name} of the optimiser do not fit")
            one.load_state_dict({**one.state_dict(), "state": state})
