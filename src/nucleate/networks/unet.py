"""A small U-Net whose output at a pixel depends on that pixel's surroundings and on nothing else.

No statistics of the batch, the image or the tile enter: instead of normalising activations, each convolution
normalises its own weights (Brock, De, Smith, "Characterizing signal propagation to close the performance gap in
unnormalized ResNets", 2021). So eight ranks give the gradient of one, a tile gives the output of the whole image,
and at prediction the standardised weights are plain convolutions (`UNet.folded`).
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RELU_GAIN = math.sqrt(2.0 / (1.0 - 1.0 / math.pi))
"""Restores unit variance after a rectifier on a unit normal: sqrt(2 / (1 - 1/pi))."""


UNIT = 8.0
"""Pixels: one unit of the offset output, and the radius at output 0; about the radius of a nucleus."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What is needed to build the network again.

    `channels` of the input image, `classes` of pixels (background and one or more kinds of nucleus), and the
    `widths` of the levels; level l works at 1 / 2^(l + 1) of the image's resolution.
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


class Convolution(nn.Conv2d):
    """A convolution with standardised weights: w_hat = gain (w - mean w) / (std w sqrt(fan in)), per output channel.

    `first=True` omits the standardisation (inputs are not unit normal there). While `held` is set, it is applied in
    place of `kernel()`, which is then computed once for several batches.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, first: bool = False) -> None:
        super().__init__(inputs, outputs, size, stride=stride, padding=(size - stride + 1) // 2)
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.standardise = not first
        self.held: Tensor | None = None
        if self.standardise:
            self.gain = nn.Parameter(torch.ones(outputs, 1))

    def kernel(self) -> Tensor:
        """The weights that the convolution applies, shape (outputs, inputs, size, size)."""
        if not self.standardise:
            return self.weight
        # Channels-last, as they lie in memory on a processor: so nothing is copied.
        weight = self.weight.permute(0, 2, 3, 1)
        rows = weight.flatten(1)
        fan_in = rows.shape[1]
        unit = F.layer_norm(rows, (fan_in,), eps=1e-8 / fan_in)
        return (unit * (self.gain / math.sqrt(fan_in))).view(weight.shape).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel() if self.held is None else self.held, self.bias, self.stride, self.padding)


class Residual(nn.Module):
    """x + scale * convolve(relu(convolve(relu(x)))), with the gains that keep the variance of a unit normal."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Convolution(width, width, 3)
        self.second = Convolution(width, width, 3)
        nn.init.constant_(self.first.gain, RELU_GAIN)
        nn.init.constant_(self.second.gain, 0.3 * RELU_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(F.relu(self.first(F.relu(x))))
        return x + change


class UNet(nn.Module):
    """Image (N, channels, H, W) to maps (N, classes + 4, H, W); H and W multiples of `architecture.stride`.

    The network sees each channel twice, as it is and as its square root, in which faint nuclei beside bright ones show.
    The image is taken to half resolution at once and the maps are brought back by sub-pixel rearrangement (Shi et
    al., 2016), so that no convolution runs at full resolution. Skips are added, not concatenated.

    >>> network = UNet(Architecture(channels=1, widths=(8, 8)))
    >>> network(torch.zeros(1, 1, 16, 24)).shape
    torch.Size([1, 6, 16, 24])
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture = architecture or Architecture()
        widths = architecture.widths
        self.stem = Convolution(2 * architecture.channels, widths[0], 4, stride=2, first=True)
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(Convolution(a, b, 2, stride=2) for a, b in pairs)
        self.encode = nn.ModuleList(Residual(width) for width in widths[1:])
        self.up = nn.ModuleList(Convolution(b, a, 1) for a, b in pairs)
        self.decode = nn.ModuleList(Residual(width) for width in widths[:-1])
        self.head = Convolution(widths[0], 4 * architecture.outputs, 1, first=True)
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, image: Tensor) -> Tensor:
        return F.pixel_shuffle(self.packed(image), 2)

    def packed(self, image: Tensor) -> Tensor:
        """The maps before their rearrangement, (N, 4 (classes + 4), H / 2, W / 2): channel 4 c + 2 dy + dx at (y, x)
        is map c at pixel (2 y + dy, 2 x + dx)."""
        x = self.stem(torch.cat([image, torch.sqrt(F.relu(image))], dim=1))
        skips = []
        for down, encode in zip(self.down, self.encode, strict=True):
            skips.append(x)
            x = encode(down(x))
        for up, decode in reversed(list(zip(self.up, self.decode, strict=True))):
            x = decode(skips.pop() + F.interpolate(up(x), scale_factor=2.0, mode="nearest"))
        maps: Tensor = self.head(F.relu(x))
        return maps

    def folded(self) -> UNet:
        """A copy for prediction: its convolutions hold the standardised weights themselves. Same output."""
        network = copy.deepcopy(self).eval().requires_grad_(False)
        for module in network.modules():
            if isinstance(module, Convolution) and module.standardise:
                module.weight.copy_(module.kernel())
                module.standardise = False
                del module.gain
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
