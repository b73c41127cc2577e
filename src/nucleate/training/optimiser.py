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
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

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


# Neither is a torch.optim.Optimizer: the base class imports torch._dynamo, which takes each process some seconds.
class Muon:
    """Orthogonalised steps for `parameters`, weights (outputs / 8, inputs, size, size) of group convolutions.

    `state` holds what it remembers of each: its velocity.

    >>> kernel = torch.nn.Parameter(torch.ones(2, 8, 3, 3))
    >>> kernel.grad = torch.ones(2, 8, 3, 3)
    >>> Muon([kernel]).step(0.1)
    >>> bool((kernel < 1).all())
    True
    """

    moments = ("velocity",)

    def __init__(self, parameters: Iterable[Tensor], momentum: float = 0.95) -> None:
        self.parameters, self.momentum = list(parameters), momentum
        self.state: list[dict[str, Tensor]] = [{} for _ in self.parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step with the gradients at hand, at this learning rate."""
        kernels, matrices, lengths = [], [], []
        for one, state in zip(self.parameters, self.state, strict=True):
            if one.grad is None:
                continue
            kernels.append(one)
            if not state:
                state["velocity"] = torch.zeros_like(one)
            velocity = state["velocity"].lerp_(one.grad, 1 - self.momentum)
            ahead = one.grad.lerp(velocity, self.momentum)
            matrices += equivariant.blocks(ahead)
            # The length of the kernel, in which each number stands eight times.
            lengths += [math.sqrt(equivariant.ORDER) * ahead.norm()] * equivariant.BLOCKS
        steps = iter(orthogonalised(matrices, lengths))
        for one in kernels:
            step = equivariant.from_blocks(list(itertools.islice(steps, equivariant.BLOCKS)), one)
            one.add_(step, alpha=-rate)


class AdamW:
    """AdamW (Loshchilov and Hutter, 2019), with a weight decay for each of the `groups` of parameters.

    >>> number = torch.nn.Parameter(torch.ones(2))
    >>> number.grad = torch.tensor([3.0, -0.1])
    >>> AdamW([([number], 0.0)]).step(0.1)
    >>> [round(value, 3) for value in number.tolist()]
    [0.9, 1.1]
    """

    moments = ("step", "exp_avg", "exp_avg_sq")

    def __init__(self, groups: Sequence[tuple[Sequence[Tensor], float]]) -> None:
        self.decays = [decay for parameters, decay in groups for _ in parameters]
        self.parameters = [one for parameters, _ in groups for one in parameters]
        self.state: list[dict[str, Tensor]] = [{} for _ in self.parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step with the gradients at hand, at this learning rate."""
        for decay in dict.fromkeys(self.decays):
            rows = []
            for one, state, own in zip(self.parameters, self.state, self.decays, strict=True):
                if own != decay or one.grad is None:
                    continue
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32, device=one.device)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(one), torch.zeros_like(one)
                rows.append((one, one.grad, state["exp_avg"], state["exp_avg_sq"], state["step"]))
            if rows:
                parameters, gradients, means, squares, steps = map(list, zip(*rows, strict=True))
                adamw(
                    parameters,
                    gradients,
                    means,
                    squares,
                    [],
                    steps,
                    fused=True,
                    amsgrad=False,
                    beta1=0.9,
                    beta2=0.999,
                    lr=rate,
                    weight_decay=decay,
                    eps=1e-8,
                    maximize=False,
                )


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
        self._others = AdamW([(images, weight_decay), (others, 0.0)])
        self._parts: dict[str, Muon | AdamW] = {"kernels": self._kernels, "others": self._others}

    def step(self, rate: float) -> None:
        """One step with the gradients at hand, which are then gone; `rate` is the kernels' learning rate."""
        self._kernels.step(rate)
        self._others.step(OTHERS * rate)
        for part in self._parts.values():
            for one in part.parameters:
                one.grad = None

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All that it remembers of the steps before."""
        return {
            f"{name}.{index}": state
            for name, part in self._parts.items()
            for index, state in enumerate(part.state)
            if state
        }

    def restore(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Go on from what `tensors` gave; raises ValueError where it is of another network."""
        for name, part in self._parts.items():
            found = [tensors.get(f"{name}.{index}", {}) for index in range(len(part.parameters))]
            for parameter, own in zip(part.parameters, found, strict=True):
                wanted = {
                    key: (torch.Size() if key == "step" else parameter.shape, parameter.dtype) for key in part.moments
                }
                if {key: (tensor.shape, tensor.dtype) for key, tensor in own.items()} != wanted:
                    raise ValueError(f"{name} of the optimiser do not fit")
            part.state = [
                {key: tensor.to(parameter.device) for key, tensor in own.items()}
                for parameter, own in zip(part.parameters, found, strict=True)
            ]
