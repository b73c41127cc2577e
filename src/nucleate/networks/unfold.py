"""From a folded network, as a model folder holds it, back to one that learns.

A kernel's first group is what was learnt (`networks.equivariant`): the seven others are turned copies of it. The
standardised kernels of a group convolution get the length that they begin with, since a learning rate turns long
kernels less; gains make up for it, so the network computes the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nucleate.errors import ModelError
from nucleate.networks import equivariant
from nucleate.networks.unet import Convolution, GroupConvolution, LiftingConvolution, ProjectionConvolution, UNet


def unfolded(folded: UNet) -> UNet:
    """The network that learns and computes what `folded` computes.

    Weights that were stored in half precision come back within its rounding, others within that of float32.

    Raises:
        ModelError: its kernels are not turned copies of one another, as in models of before version 0.1.

    >>> import torch
    >>> from nucleate.networks.unet import Architecture
    >>> folded = UNet(Architecture(widths=(8, 16))).folded()
    >>> image = torch.rand(1, 1, 16, 16)
    >>> torch.allclose(unfolded(folded)(image), folded(image), atol=1e-5)
    True
    """
    network = UNet(folded.architecture)
    for name, module in network.named_modules():
        if isinstance(module, Convolution):
            plain = folded.get_submodule(name)
            assert isinstance(plain, nn.Conv2d)
            assert plain.bias is not None
            _unfold(module, plain.weight, plain.bias)
            kernel, bias = module.applied()
            if not (_alike(kernel, plain.weight) and _alike(bias, plain.bias)):
                raise ModelError(
                    "This model was trained by an early version of Nucleate, whose networks cannot learn on: train it "
                    "again, or start from another one."
                )
    return network


def _alike(one: Tensor, other: Tensor) -> bool:
    """Within the rounding of half precision, in which a mean that should be 0 is not."""
    return bool((one - other).abs().max() <= 0.01 * other.abs().max())


@torch.no_grad()
def _unfold(module: Convolution, kernel: Tensor, bias: Tensor) -> None:
    if isinstance(module, ProjectionConvolution):
        index, sign = equivariant.invariant_bias(module.classes)
        module.weight.copy_(kernel[:, : module.weight.shape[1]])
        # Several outputs share a number; those that may point one way only say its sign.
        module.bias.zero_().index_add_(0, index, bias * sign).div_(torch.bincount(index))
        return
    own = kernel[: len(module.weight)]
    module.bias.copy_(bias[: len(module.bias)])
    if isinstance(module, GroupConvolution):
        rows = own.flatten(1)
        fan_in = rows.shape[1]
        centred = rows - rows.mean(1, keepdim=True)
        spread = centred.std(1, correction=0, keepdim=True)
        module.gain.copy_(spread * math.sqrt(fan_in))
        unit = centred / spread.clamp_min(torch.finfo(rows.dtype).tiny)
        own = (unit / math.sqrt(fan_in)).view_as(own)
    module.weight.copy_(own)


@torch.no_grad()
def with_channels(network: UNet, channels: int) -> UNet:
    """The same network for images of so many channels: where they are all alike it computes the same.

    Each channel gets an equal part of what the channels before weighed together.

    >>> import torch
    >>> from nucleate.networks.unet import Architecture
    >>> one = UNet(Architecture(channels=1, widths=(8, 16)))
    >>> image = torch.rand(1, 1, 16, 16)
    >>> torch.allclose(with_channels(one, 3)(image.repeat(1, 3, 1, 1)), one(image), atol=1e-6)
    True
    """
    before = network.architecture
    if channels == before.channels:
        return network
    other = UNet(type(before)(channels, before.classes, before.widths))
    state = network.state_dict()
    name = "encoder.stem.weight"
    # The stem sees all channels, then all of their square roots.
    halves = state[name].unflatten(1, (2, before.channels)).sum(2, keepdim=True) / channels
    state[name] = halves.repeat(1, 1, channels, 1, 1).flatten(1, 2)
    other.load_state_dict(state)
    return other


@torch.no_grad()
def negated(network: UNet) -> UNet:
    """The network whose first layer has the other sign: what was bright for it is dark.

    >>> one = UNet()
    >>> torch.equal(negated(negated(one)).encoder.stem.weight, one.encoder.stem.weight)
    True
    """
    other = UNet(network.architecture)
    other.load_state_dict(network.state_dict())
    stem = other.encoder.stem
    assert isinstance(stem, LiftingConvolution)
    stem.weight.neg_()
    return other
