"""An image as points in a space where images that look alike are near to one another, without any label.

A tile of an image becomes one point: what the encoder of a network sees in it, without the places. Of each level, and
of each channel over its group of eight (`networks.equivariant`), with f the feature at a pixel and group element:

    mean and standard deviation over pixels of mean_g f,    mean over pixels of std_g f,    mean over pixels of max_g f

So a turned or mirrored tile has the same point, rounding apart. They are statistics, which also serve networks whose
channels stand in no groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nucleate.networks import equivariant
from nucleate.networks.unet import UNet
from nucleate.types import Box

TILE = 256
"""Pixels; the side of a tile."""

MOST = 4
"""Tiles along a side of an image, however large it is."""

Points = NDArray[np.float32]
"""One row a tile or an image, one column a statistic."""


def tiles(shape: tuple[int, int]) -> list[Box]:
    """The tiles that are looked at of an image of this (height, width): the middles of equal parts.

    Where n of them fit along a side, ceil(sqrt(n)) are taken, at most `MOST`; an image smaller than a tile is one.

    >>> tiles((200, 300))
    [Box(y=0, x=22, height=200, width=256)]
    >>> len(tiles((512, 512))), len(tiles((1040, 1388))), len(tiles((80_000, 120_000)))
    (4, 6, 16)
    """
    sides = [min(TILE, length) for length in shape]
    counts = [min(MOST, math.ceil(math.sqrt(max(1, length // TILE)))) for length in shape]
    starts = (
        [((2 * k + 1) * length - count * side) // (2 * count) for k in range(count)]
        for length, side, count in zip(shape, sides, counts, strict=True)
    )
    return [Box(y, x, sides[0], sides[1]) for y, x in product(*starts)]


def statistics(widths: Sequence[int]) -> int:
    """How many statistics a point has, of an encoder of these widths.

    >>> statistics((32, 64, 128, 176))
    200
    """
    return 4 * sum(width // equivariant.ORDER for width in widths)


def embed(network: UNet, shape: tuple[int, int], read: Callable[[Box], Tensor]) -> Points:
    """The points of an image's tiles, (tiles, statistics); of no row where each tile has one value throughout.

    Args:
        network: whose encoder sees the tiles, in float32 on the processor; folded or not.
        shape: (height, width) of the image.
        read: gives a box of the image as the network sees it, normalised, (1, channels, height, width).

    >>> from nucleate.networks.unet import Architecture
    >>> network, image = UNet(Architecture(widths=(8, 16))), torch.rand(1, 1, 300, 600)
    >>> embed(network, (300, 600), lambda box: image[..., *box.within(Box(0, 0, 300, 600))]).shape
    (2, 12)
    """
    found = [_point(network, tile) for tile in map(read, tiles(shape)) if bool((tile != tile[..., :1, :1]).any())]
    return np.array(found, np.float32).reshape(-1, statistics(network.architecture.widths))


def embed_array(network: UNet, image: NDArray[np.float32]) -> Points:
    """The same of a normalised image in memory, (channels, height, width)."""
    pixels, shape = torch.from_numpy(image)[None], (image.shape[1], image.shape[2])
    return embed(network, shape, lambda box: pixels[..., *box.within(Box(0, 0, *shape))])


@torch.inference_mode()
def _point(network: UNet, tile: Tensor) -> NDArray[np.float32]:
    """The statistics of one tile (1, channels, H, W)."""
    stride = network.architecture.stride
    height, width = tile.shape[-2:]
    found = []
    for feature in network.encoder(F.pad(tile, (0, -width % stride, 0, -height % stride))):
        group = feature.reshape(equivariant.ORDER, -1, feature[0, 0].numel())  # (g, channel, pixel)
        mean, most = group.mean(0), group.amax(0)
        spread = (group - mean).square_().mean(0).sqrt_()  # a tenth of the time of `std`
        # NumPy sums in an order that does not depend on the number of threads.
        over = [one.numpy().mean(1, dtype=np.float64) for one in (mean, spread, most)]
        found += [over[0], mean.numpy().std(1, dtype=np.float64), over[1], over[2]]
    return np.concatenate(found).astype(np.float32)
