"""Orthogonalised steps for the kernels of convolutions.

A kernel, taken as a matrix of one row an output channel, has a few directions in which its gradient G is always large
and many in which it is always small. AdamW scales element by element and mends little of that; here every direction
is given the same length:

    V <- V + (1 - m) (G - V)                      momentum
    U  = G + m (V - G)                            looking ahead (Nesterov, 1983)
    W <- W - lr (U U^T)^(-1/2) U                  Muon (Jordan et al., 2024)

Standardised kernels (`networks.unet.Convolution`) do not change their effect with their length, which grows as steps
add up; so the turn that a step makes becomes smaller by itself, as under a falling learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nucleate.networks.unet import Convolution, UNet

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""x -> a x + b x^3 + c x^5, five times, takes every singular value in 0.01..1 to 0.7..1.2 (Jordan et al., 2024)."""

STEPS = 5

Map = Callable[[Callable[[int], None], Sequence[int]], Any]
"""Applies a function to each item, perhaps on several cores."""


def orthogonalised(matrix: Tensor) -> Tensor:
    """(G G^T)^(-1/2) G, nearly: the same directions, all singular values in 0.7..1.2; a matrix (m, n), m <= n best.

    The polynomial is applied to the Gram matrix (m, m), so that the long side is met twice in all and not twice a step.
    A matrix of zeros stays one.

    >>> values = torch.linalg.svdvals(orthogonalised(torch.randn(8, 40, generator=torch.Generator().manual_seed(0))))
    >>> bool(((0.6 < values) & (values < 1.3)).all())
    True
    """
    a, b, c = COEFFICIENTS
    gram = matrix @ matrix.T
    square = gram.trace().clamp_min(torch.finfo(matrix.dtype).tiny)
    gram = gram / square
    applied = torch.eye(len(gram), dtype=matrix.dtype, device=matrix.device)
    for _ in range(STEPS):
        once = b * gram + c * (gram @ gram)
        once.diagonal().add_(a)
        applied = once @ applied
        gram = once @ (gram @ once)
    return (applied @ matrix) * square.rsqrt()


class Muon(torch.optim.Optimizer):
    """Orthogonalised steps for `parameters`, kernels (outputs, inputs, size, size).

    >>> kernel = torch.nn.Parameter(torch.ones(2, 1, 3, 3))
    >>> kernel.grad = torch.ones(2, 1, 3, 3)
    >>> Muon([kernel], lr=0.1).step()
    >>> bool((kernel < 1).all())
    True
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, map: Map | None = None) -> None:  # type: ignore[override]  # no closure: nothing is evaluated again
        """One step with the gradients at hand; the kernels side by side where a `map` is given."""
        for group in self.param_groups:
            kernels = [one for one in group["params"] if one.grad is not None]
            for one in kernels:
                if not self.state[one]:
                    self.state[one]["velocity"] = torch.zeros_like(one)

            def move(index: int, kernels: list[Tensor] = kernels, group: dict[str, Any] = group) -> None:
                self._move(kernels[index], group["lr"], group["momentum"])

            # The largest first, so that no core is left with a large one at the end.
            order = sorted(range(len(kernels)), key=lambda index: -kernels[index].numel())
            if map is None:
                for index in order:
                    move(index)
            else:
                map(move, order)

    def _move(self, kernel: Tensor, rate: float, momentum: float) -> None:
        with torch.no_grad():  # it holds for the thread that says so
            gradient, velocity = kernel.grad, self.state[kernel]["velocity"]
            assert gradient is not None
            velocity.lerp_(gradient, 1 - momentum)
            ahead = gradient.lerp(velocity, momentum).permute(0, 2, 3, 1)
            update = orthogonalised(ahead.flatten(1)).view(ahead.shape).permute(0, 3, 1, 2)
            kernel.add_(update, alpha=-rate)


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
        kernels = [one.weight for one in convolutions if one.standardise]
        images = [one.weight for one in convolutions if not one.standardise]
        known = {id(one) for one in (*kernels, *images)}
        others = [one for one in network.parameters() if id(one) not in known]
        self._kernels = Muon(kernels)
        self._others = torch.optim.AdamW(
            [{"params": images, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}], fused=True
        )

    def step(self, rate: float, map: Map | None = None) -> None:
        """One step with the gradients at hand, which are then gone; `rate` is the kernels' learning rate."""
        for optimiser, share in ((self._kernels, 1.0), (self._others, OTHERS)):
            for group in optimiser.param_groups:
                group["lr"] = share * rate
        self._kernels.step(map)
        self._others.step()
        self._kernels.zero_grad()
        self._others.zero_grad()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All that it remembers of the steps before."""
        named = (("kernels", self._kernels), ("others", self._others))
        return {f"{name}.{index}": own for name, one in named for index, own in one.state_dict()["state"].items()}

    def restore(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Go on from what `tensors` gave."""
        for name, one in (("kernels", self._kernels), ("others", self._others)):
            moments = one.state_dict()
            own = {key.split(".")[1]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
            one.load_state_dict({**moments, "state": {int(index): value for index, value in own.items()}})
