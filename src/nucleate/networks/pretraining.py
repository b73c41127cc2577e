"""The network of pre-training: encoder and decoder of a `UNet`, and small heads that are thrown away afterwards.

    bottleneck           -> projection, mean over the view      -> embedding of the view
    decoder, at a place  -> projection                          -> embedding of the place
    decoder              -> last layer                          -> the image itself

The contrast is taken behind the projections, so that what it makes the network forget is forgotten there (Chen et al.,
SimCLR, 2020). Embeddings do not change where a view is turned by quarter turns or mirrored.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nucleate.networks import equivariant
from nucleate.networks.unet import RELU_GAIN, Architecture, Convolution, GroupConvolution, Heads, UNet

EMBEDDING, PLACES = 64, 32
"""Numbers in the embedding of a view, and of a place in it."""

_HIDDEN = 128, 32
"""Channels of each group inside the two projections."""


class InvariantConvolution(Convolution):
    """From eight groups of channels to numbers that no element of the group changes: 1 x 1, alike for all groups.

    Learnt are a weight (outputs, inputs / 8, 1, 1) and a bias of each output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, weight=(outputs, inputs // equivariant.ORDER), bias=outputs)

    def applied(self) -> tuple[Tensor, Tensor]:
        rows = self.weight.flatten(1).repeat(1, equivariant.ORDER) / equivariant.ORDER
        return self._kernel(rows), self.bias


class Projection(nn.Module):
    """Features of eight groups (N, C, H, W) to embeddings; with `pooled` one for each N, the mean over its pixels."""

    def __init__(self, width: int, hidden: int, features: int) -> None:
        super().__init__()
        self.first = GroupConvolution(width, equivariant.ORDER * hidden, 1, gain=RELU_GAIN)
        self.last = InvariantConvolution(equivariant.ORDER * hidden, features)

    def forward(self, x: Tensor, *, pooled: bool = False) -> Tensor:
        x = F.relu(self.first(F.relu(x)))
        found: Tensor = self.last(x.mean((2, 3), keepdim=True) if pooled else x)
        return found


class PretrainingNetwork(UNet):
    """A `UNet` whose last layer gives the image, with projections; see the module.

    >>> network = PretrainingNetwork(Architecture(widths=(8, 16)))
    >>> image, points = torch.zeros(2, 1, 16, 24), torch.zeros(2, 5, 2)
    >>> [tuple(part.shape) for part in network.views(image, points)]
    [(2, 64), (2, 32, 5), (2, 1, 16, 24)]
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        widths = architecture.widths
        self.heads = Heads(widths[0], architecture.channels)
        self.of_views = Projection(widths[-1], _HIDDEN[0], EMBEDDING)
        self.of_places = Projection(widths[0], _HIDDEN[1], PLACES)

    def views(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of views (N, C, H, W) and `points` (N, P, 2) in them, as `grid_sample` counts: the embeddings of the views
        (N, D), those of the points (N, E, P), and the images as they are reconstructed (N, C, H, W); float32."""
        features = self.encoder(image)
        decoded = self.decoder(features)
        embedding = self.of_views(features[-1], pooled=True).flatten(1)
        at_points = F.grid_sample(decoded.float(), points[:, :, None], align_corners=False, padding_mode="border")
        places = self.of_places(at_points).squeeze(3)
        maps = F.pixel_shuffle(self.heads(decoded), 2)[:, : image.shape[1]]
        return embedding.float(), places.float(), maps.float()

    def embedding(self, image: Tensor) -> Tensor:
        """The embeddings of views alone (N, D), float32."""
        found: Tensor = self.of_views(self.encoder(image)[-1], pooled=True).flatten(1)
        return found.float()

    def learnt(self, seed: int) -> UNet:
        """The network that segments: encoder and decoder as they were learnt, with a last layer as `seed` makes it."""
        torch.manual_seed(seed)
        network = UNet(self.architecture)
        network.encoder.load_state_dict(self.encoder.state_dict())
        network.decoder.load_state_dict(self.decoder.state_dict())
        return network
