"""A small U-Net whose output at a pixel depends on that pixel's surroundings and on nothing else.

No statistics of the batch, the image or the tile enter: instead of normalising activations, each convolution
normalises its own weights (Brock, De, Smith, "Characterizing signal propagation to close the performance gap in
unnormalized ResNets", 2021). So eight ranks give the gradient of one, and a tile gives the output of the whole image.

Nor does it depend on which side of an image is up: turned by quarter turns or mirrored, the image has the same maps,
turned or mirrored (`networks.equivariant`). At prediction all convolutions are plain ones (`UNet.folded`).
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nucleate.networks import equivariant

RELU_GAIN = math.sqrt(2.0 / (1.0 - 1.0 / math.pi))
"""Restores unit variance after a rectifier on a unit normal: sqrt(2 / (1 - 1/pi))."""


UNIT = 8.0
"""Pixels: one unit of the offset output, and the radius at output 0; about the radius of a nucleus."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What is needed to build the network again.

    `channels` of the input image, `classes` of pixels (background and one or more kinds of nucleus), and the
    `widths` of the levels, multiples of 8; level l works at 1 / 2^(l + 1) of the image's resolution.
    """

    channels: int = 1
    classes: int = 2
    widths: tuple[int, ...] = (32, 64, 128, 176)

    @property
    def outputs(self) -> int:
        """Output channels: class logits, heat logit, offset (y, x), log radius."""
        return self.classes + 4

    @property
    def stride(self) -> int:
        """Height and width of the input must be multiples of this."""
        return int(2 ** len(self.widths))


class Convolution(nn.Conv2d, ABC):
    """A convolution of size x size, zeros around the image, whose kernel is made from what is learnt: see `applied`.

    Learnt are a `weight` (rows, columns, size, size), at first random, and a `bias` of so many numbers, at first zero.
    """

    bias: nn.Parameter

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, weight: tuple[int, int], bias: int
    ) -> None:
        # On "meta" nothing is drawn at random to be thrown away: here, and below.
        super().__init__(inputs, outputs, size, stride, _padding(size, stride), device="meta")
        self.weight = nn.Parameter(torch.empty(*weight, size, size))
        self.bias = nn.Parameter(torch.zeros(bias))
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")

    @abstractmethod
    def applied(self) -> tuple[Tensor, Tensor]:
        """The kernel (outputs, inputs, size, size) and the bias (outputs)."""

    def plain(self) -> nn.Conv2d:
        """A convolution with this kernel and bias, which learns no more."""
        size, stride = self.kernel_size[0], self.stride[0]
        plain = nn.Conv2d(self.in_channels, self.out_channels, size, stride, _padding(size, stride), device="meta")
        parts = (nn.Parameter(part.detach().clone(), requires_grad=False) for part in self.applied())
        plain.weight, plain.bias = parts
        return plain.eval()

    def _kernel(self, rows: Tensor) -> Tensor:
        # Channels-last, as they lie in memory on a processor: so nothing is copied.
        size = self.kernel_size[0]
        return rows.view(self.out_channels, size, size, self.in_channels).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.applied(), self.stride, self.padding)


def _padding(size: int, stride: int) -> int:
    return (size - stride + 1) // 2


class LiftingConvolution(Convolution):
    """From the image to eight groups of channels (`equivariant.lifting`).

    Learnt are a weight (outputs / 8, inputs, size, size) and outputs / 8 biases.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int) -> None:
        own = outputs // equivariant.ORDER
        super().__init__(inputs, outputs, size, stride=stride, weight=(own, inputs), bias=own)

    def applied(self) -> tuple[Tensor, Tensor]:
        rows = self.weight.permute(0, 2, 3, 1).flatten(0, 2)
        expand = equivariant.lifting(len(self.weight), self.kernel_size[0])
        return self._kernel(expand(rows)), self.bias.repeat(equivariant.ORDER)


class GroupConvolution(Convolution):
    """From eight groups of channels to eight (`equivariant.group_convolution`), with standardised weights:
    gain (w - mean w) / (std w sqrt(fan in)), per output channel.

    Learnt are a weight (outputs / 8, inputs, size, size), outputs / 8 biases, and a gain (outputs / 8, 1), which
    begins as `gain`.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, gain: float = 1.0) -> None:
        own = outputs // equivariant.ORDER
        super().__init__(inputs, outputs, size, stride=stride, weight=(own, inputs), bias=own)
        self.gain = nn.Parameter(torch.full((own, 1), gain))

    def applied(self) -> tuple[Tensor, Tensor]:
        rows = self.weight.permute(0, 2, 3, 1).flatten(1)
        fan_in = rows.shape[1]
        unit = F.layer_norm(rows, (fan_in,), eps=1e-8 / fan_in) * (self.gain / math.sqrt(fan_in))
        expand = equivariant.group_convolution(len(self.weight), self.kernel_size[0])
        kernel = self._kernel(expand(unit.view(-1, self.in_channels // equivariant.ORDER)))
        return kernel, self.bias.repeat(equivariant.ORDER)


class ProjectionConvolution(Convolution):
    """From eight groups of channels to the packed maps (`equivariant.projection`).

    Learnt are a weight (4 (classes + 4), inputs / 8, 1, 1) and classes + 3 biases (`equivariant.invariant_bias`).
    """

    def __init__(self, inputs: int, classes: int) -> None:
        outputs = 4 * (classes + 4)
        super().__init__(inputs, outputs, 1, weight=(outputs, inputs // equivariant.ORDER), bias=classes + 3)
        self.classes = classes
        nn.init.normal_(self.weight, std=0.01)

    def applied(self) -> tuple[Tensor, Tensor]:
        index, sign = equivariant.invariant_bias(self.classes)
        bias = self.bias[index.to(self.bias.device)] * sign.to(self.bias)
        return self._kernel(equivariant.projection(self.classes)(self.weight.flatten(1))), bias


class Residual(nn.Module):
    """x + scale * convolve(relu(convolve(relu(x)))), with the gains that keep the variance of a unit normal."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = GroupConvolution(width, width, 3, gain=RELU_GAIN)
        self.second = GroupConvolution(width, width, 3, gain=0.3 * RELU_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(F.relu(self.first(F.relu(x))))
        return x + change


class Encoder(nn.Module):
    """Image (N, channels, H, W) to features, finest first: level l is (N, widths[l], H / 2^(l + 1), W / 2^(l + 1)).

    It sees each channel twice, as it is and as its square root, in which faint nuclei beside bright ones show. The
    image is taken to half resolution at once, so that no convolution runs at full resolution.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = LiftingConvolution(2 * channels, widths[0], 4, stride=2)
        self.down = nn.ModuleList(GroupConvolution(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.blocks = nn.ModuleList(Residual(width) for width in widths[1:])

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [self.stem(torch.cat([image, torch.sqrt(F.relu(image))], dim=1))]
        for down, block in zip(self.down, self.blocks, strict=True):
            features.append(block(down(features[-1])))
        return features


class Decoder(nn.Module):
    """Features of an `Encoder` to one, (N, widths[0], H / 2, W / 2). Skips are added, not concatenated."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.up = nn.ModuleList(GroupConvolution(b, a, 1) for a, b in itertools.pairwise(widths))
        self.blocks = nn.ModuleList(Residual(width) for width in widths[:-1])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = features[-1]
        for level in reversed(range(len(self.up))):
            enlarged = F.interpolate(self.up[level](x), scale_factor=2.0, mode="nearest")
            x = self.blocks[level](features[level] + enlarged)
        return x


class Heads(nn.Module):
    """The feature of a `Decoder` to all maps before their rearrangement, see `UNet.packed`."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.maps = ProjectionConvolution(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        packed: Tensor = self.maps(F.relu(x))
        return packed


class UNet(nn.Module):
    """Image (N, channels, H, W) to maps (N, classes + 4, H, W); H and W multiples of `architecture.stride`.

    `encoder`, `decoder` and `heads` can be called alone. The maps are brought back to full resolution by sub-pixel
    rearrangement (Shi et al., 2016).

    >>> network = UNet(Architecture(channels=1, widths=(8, 8)))
    >>> network(torch.zeros(1, 1, 16, 24)).shape
    torch.Size([1, 6, 16, 24])
    >>> [tuple(feature.shape) for feature in network.encoder(torch.zeros(1, 1, 16, 24))]
    [(1, 8, 8, 12), (1, 8, 4, 6)]

    Raises ValueError for a width that is not a multiple of 8.
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture = architecture or Architecture()
        widths = architecture.widths
        if any(width % equivariant.ORDER for width in widths):
            raise ValueError(f"widths must be multiples of {equivariant.ORDER}, not {widths}")
        self.encoder = Encoder(architecture.channels, widths)
        self.decoder = Decoder(widths)
        self.heads = Heads(widths[0], architecture.classes)

    def forward(self, image: Tensor) -> Tensor:
        return F.pixel_shuffle(self.packed(image), 2)

    def packed(self, image: Tensor) -> Tensor:
        """The maps before their rearrangement, (N, 4 (classes + 4), H / 2, W / 2): channel 4 c + 2 dy + dx at (y, x)
        is map c at pixel (2 y + dy, 2 x + dx)."""
        maps: Tensor = self.heads(self.decoder(self.encoder(image)))
        return maps

    def folded(self) -> UNet:
        """A copy for prediction: plain convolutions, which hold the kernels themselves. Same output."""
        network = copy.deepcopy(self).eval().requires_grad_(False)
        for name, module in list(network.named_modules()):
            if isinstance(module, Convolution):
                parent, _, own = name.rpartition(".")
                setattr(network.get_submodule(parent), own, module.plain())
        return network


@dataclass(frozen=True, slots=True)
class Outputs:
    """The network's output by its meaning, (N, ..., H, W): class `logits`, `heat` logit (1 channel), `offset` in
    pixels (y, x), natural logarithm of the nucleus' `radius` in pixels (1 channel)."""

    logits: Tensor
    heat: Tensor
    offset: Tensor
    log_radius: Tensor


def split(maps: Tensor, classes: int) -> Outputs:
    """Network output (N, classes + 4, H, W), in units that suit its initialisation, to `Outputs`, float32."""
    logits, heat, offset, log_radius = maps.float().split([classes, 1, 2, 1], dim=1)
    return Outputs(logits, heat, offset * UNIT, log_radius + math.log(UNIT))
