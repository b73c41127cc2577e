"""One image on its way through the network: block by block, enlarged where its nuclei are small, reduced where they
are large.

What the blocks are depends on the image alone, never on who asks for them: so a tile, a region and the whole get the
same numbers, to the last bit, although a convolution may round differently for each shape that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, product
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nucleate.inference.tiling import cover, owned, taps
from nucleate.networks.decode import to_maps
from nucleate.networks.unet import Architecture
from nucleate.postprocess import kernels
from nucleate.postprocess.rescale import predicted_diameter, zoom
from nucleate.types import Box

GLANCE, JUDGED = 192, 384
"""Pixels; the size of the nuclei is judged from windows of this side, see `windows`: the larger where the smaller show
no nucleus, and in a large image."""

APART = 300
"""Pixels; an image that is not large is judged in one window for so many along each axis, and in three at most."""

LARGE = 4096
"""Pixels; an image with a longer side is judged in larger windows, and more of them."""

SIDE = 1024
"""Pixels; a block has at most this side, as the network sees it and in the image. Larger ones save some of what is seen
twice, but take more memory than they are worth."""

WHOLE = 1536
"""Pixels; an image of no more pixels than its square, both as it is and as the network sees it, is one block."""

MANY = 8
"""Blocks, all of one shape, from which on it is worth to tell the network so."""

AROUND = 2
"""Pixels around those that a block writes, in which its output holds too: grouping looks at 5 x 5."""


class Network(Protocol):
    """What runs the network; see `nucleate.inference.backends.Engine`."""

    architecture: Architecture

    @property
    def reach(self) -> int: ...

    def raw(self, image: Tensor) -> Tensor: ...

    def expect(self, height: int, width: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Block:
    """Of the image's own pixels, those that it writes, those that its output holds and those that it needs; and the
    pixels of the resized image that the network sees."""

    writes: Box
    gives: Box
    needs: Box
    sees: Box


class Passage:
    """An image of `shape`, of which `read(box)` gives a box as the network is to see it, (1, channels, H, W).

    `factor` is how far it is enlarged, below 1 reduced; `blocks`, those that together write each pixel once.
    """

    def __init__(
        self, network: Network, shape: tuple[int, int], read: Callable[[Box], Tensor], *, side: int = SIDE
    ) -> None:
        self.network, self.shape, self.read = network, shape, read
        self.classes = network.architecture.classes
        for places in windows(shape):
            first, diameter = self._look(places)
            if diameter:
                break
        self.factor = zoom(diameter)
        self.size = round(self.factor * shape[0]), round(self.factor * shape[1])
        self.blocks = tuple(self._cut(side))
        if len(self.blocks) >= MANY:
            network.expect(*self._padded(self.blocks[0].sees.shape))
        # The window of a small image is the image: if it is not resized, its output is known already.
        same = places[0].shape == shape and self.factor == 1.0 and len(self.blocks) == 1
        self._known = first if same else None

    def _look(self, places: tuple[Box, ...]) -> tuple[Tensor, float]:
        """The network's output at the first place, and the median diameter (pixels; 0 for no nuclei) at all of them."""
        first = self.network.raw(self.read(places[0]))
        others = (self.network.raw(self.read(place)) for place in places[1:])  # one in memory at a time
        return first, predicted_diameter(to_maps(raw, self.classes) for raw in chain((first,), others))

    def _padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The shape made up to multiples of the network's stride."""
        stride = self.network.architecture.stride
        return -(-shape[0] // stride) * stride, -(-shape[1] // stride) * stride

    def _cut(self, side: int) -> Iterator[Block]:
        stride, padded = self.network.architecture.stride, self._padded(self.size)
        one = max(math.prod(padded), math.prod(self.shape)) <= (side * WHOLE // SIDE) ** 2
        side = round(side * min(1.0, self.factor))
        # Around a pixel, interpolation looks one pixel further in the resized image than to its neighbours' places.
        halo = 0 if one else self.network.reach + math.ceil(AROUND * self.factor) + 2
        rows, columns = (cover(n, max(padded) if one else side, halo=halo, stride=stride) for n in self.size)
        for row, column in product(rows, columns):
            (top, bottom), (left, right) = (
                owned(span.first, span.last, length=length, resized=resized)
                for span, length, resized in zip((row, column), self.shape, self.size, strict=True)
            )
            ends = min(row.end, self.size[0]), min(column.end, self.size[1])
            sees = Box(row.begin, column.begin, ends[0] - row.begin, ends[1] - column.begin)
            writes = Box(top, left, bottom - top, right - left)
            yield Block(writes, writes.grown(AROUND, within=self.shape), _source(sees, self.size, self.shape), sees)

    @torch.inference_mode()
    def run(self, block: Block, pixels: Tensor) -> Tensor:
        """Network output (1, classes + 4, H, W) for the pixels that `block` gives, from those that it needs."""
        if self._known is not None:
            return self._known
        if self.factor == 1.0:
            return self.network.raw(pixels)[..., *block.gives.within(block.sees)]
        if is_constant(pixels):  # and stays so, which rounding would not let it
            pixels = pixels[..., :1, :1].expand(-1, -1, *block.sees.shape)
        else:
            pixels = _resampled(pixels, block.needs, block.sees, of=self.shape, out=self.size)
        raw = self.network.raw(pixels)
        raw = _resampled(raw, block.sees, block.gives, of=self.size, out=self.shape)
        raw[:, self.classes + 1 : self.classes + 3] /= self.factor
        raw[:, self.classes + 3] -= math.log(self.factor)
        return raw

    def whole(self) -> Tensor:
        """Network output (1, classes + 4, H, W) for the whole image."""
        if len(self.blocks) == 1:
            return self.run(self.blocks[0], self.read(self.blocks[0].needs))
        out = torch.empty(1, self.network.architecture.outputs, *self.shape)
        for block in self.blocks:
            raw = self.run(block, self.read(block.needs))
            out[..., *block.writes.within(Box(0, 0, *self.shape))] = raw[..., *block.writes.within(block.gives)]
        return out


def is_constant(image: Tensor) -> bool:
    """Whether every pixel of an image (1, channels, H, W) equals the first."""
    first = image[..., :1, :1]
    return all(bool((part == first).all()) for part in (image[..., ::61, ::67], image))


def windows(shape: tuple[int, int]) -> tuple[tuple[Box, ...], ...]:
    """The parts of an image of this (height, width) from which the size of its nuclei is judged, and what to try next
    where they show none.

    They are the middles of equal parts, at most 8 x 8 of a large image and 3 x 3 of any other, and do not overlap.

    >>> windows((300, 500))
    ((Box(y=54, x=154, height=192, width=192),), (Box(y=0, x=58, height=300, width=384),))
    >>> [len(places) for places in windows((600, 1000))], [len(places) for places in windows((6000, 20_000))]
    ([6, 2], [24])
    """
    large = max(shape) > LARGE
    apart, most = (WHOLE, 8) if large else (APART, 3)

    def places(longest: int) -> tuple[Box, ...]:
        sides = min(shape[0], longest), min(shape[1], longest)
        counts = (min(most, max(1, length // max(apart, longest))) for length in shape)
        starts = (
            [((2 * k + 1) * length - count * side) // (2 * count) for k in range(count)]
            for length, side, count in zip(shape, sides, counts, strict=True)
        )
        return tuple(Box(y, x, *sides) for y, x in product(*starts))

    return tuple(dict.fromkeys(places(longest) for longest in ((JUDGED,) if large else (GLANCE, JUDGED))))


def _source(box: Box, out: tuple[int, int], of: tuple[int, int]) -> Box:
    """The pixels of an image of shape `of` that a box of it, resampled to `out`, is made of."""
    if out == of:
        return box
    (top, bottom), (left, right) = (
        (int(taps(begin, begin + 1, out=n, of=m)[0][0]), int(taps(end - 1, end, out=n, of=m)[1][0]) + 1)
        for begin, end, n, m in ((box.y, box.bottom, out[0], of[0]), (box.x, box.right, out[1], of[1]))
    )
    return Box(top, left, bottom - top, right - left)


def _resampled(x: Tensor, held: Box, box: Box, *, of: tuple[int, int], out: tuple[int, int]) -> Tensor:
    """Of an image of shape `of`, resampled to `out` in bilinear interpolation, a box; `x` holds the box `held`."""
    rows, columns = (
        (low - start, high - start, part.astype(np.float32))
        for start, (low, high, part) in (
            (held.y, taps(box.y, box.bottom, out=out[0], of=of[0])),
            (held.x, taps(box.x, box.right, out=out[1], of=of[1])),
        )
    )
    planes = np.ascontiguousarray(x[0].cpu().numpy())
    return torch.from_numpy(kernels.resample_bilinear(planes, rows, columns))[None]
