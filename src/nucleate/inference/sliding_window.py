"""Sliding-window inference: the network passes over an image block by block, with the image enlarged where its nuclei
are small and reduced where they are large.

The blocks depend on the image alone, never on the tile or the region that is asked for. So all get the same numbers, to
the last bit, although a convolution may round differently for each shape that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.inference.tiling import cover, owned, taps
from nucleate.io.cache import Cache
from nucleate.networks.decode import to_maps
from nucleate.networks.unet import Architecture
from nucleate.postprocess import kernels
from nucleate.postprocess.rescale import predicted_diameter, zoom
from nucleate.types import Box, Maps

GLANCE, JUDGED = 192, 384
"""Pixels; the size of the nuclei is judged from windows of this side, see `windows`: the larger where the smaller show
no nucleus, and in a large image."""

APART = 300
"""Pixels; an image that is not large is judged in one window for so many along each axis, and in three at most."""

LARGE = 4096
"""Pixels; an image with a longer side is judged in larger windows, and more of them."""

SIDE = 1024
"""Pixels; a block has at most this side, as the network sees it and in the image. Larger ones overlap less, but take
more memory than that is worth."""

WHOLE = 1536
"""Pixels; an image of no more pixels than its square, both as it is and as the network sees it, is one block."""

MANY = 8
"""Blocks, all of one shape, from which on it is worth to tell the network so."""

AROUND = 2
"""Pixels around those that a block writes for which its output holds, too: non-maximum suppression takes 5 x 5."""

BLANKS = 2
"""Outputs of blank images that are kept, each as large as a block."""


class ForwardPass(Protocol):
    """What runs the network on one image: a backend (`nucleate.inference.backends`), or a wrapper around one."""

    architecture: Architecture

    @property
    def reach(self) -> int: ...

    def raw(self, image: Tensor) -> Tensor: ...

    def expect(self, height: int, width: int) -> None: ...


class BlankCache:
    """A forward pass that runs once for all blank images (every pixel the same) of one shape and colour.

    The empty parts of a slide are such images. The output must not be written to.
    """

    def __init__(self, network: ForwardPass) -> None:
        self.network, self.architecture = network, network.architecture
        self._outputs = Cache[Tensor](0, at_least=BLANKS)

    @property
    def reach(self) -> int:
        return self.network.reach

    def expect(self, height: int, width: int) -> None:
        self.network.expect(height, width)

    def raw(self, image: Tensor) -> Tensor:
        if not is_constant(image):
            return self.network.raw(image)
        key = (*image.shape, *image[0, :, 0, 0].tolist())
        return self._outputs.get(key, 0, lambda: self.network.raw(image))


@dataclass(frozen=True, slots=True)
class Block:
    """One window of the image.

    `write_region` are the pixels that it writes, `context` those and the few around them for which its output holds,
    too, `read_region` those that must be read; all in the image. `input_region` is what the network sees, in the
    resized image.
    """

    write_region: Box
    context: Box
    read_region: Box
    input_region: Box


@dataclass(frozen=True)
class SlidingWindow:
    """The plan by which the network passes over an image of `shape` (height, width): made by `plan`.

    The image is resized by `factor` to `size` (height, width) for the network. `blocks` together write each pixel once.
    `output` is the network's output for the whole image where planning has computed it already; `diameter` (pixels) the
    median of the nuclei as it was judged, 0 where none was seen.
    """

    network: ForwardPass
    shape: tuple[int, int]
    factor: float
    size: tuple[int, int]
    blocks: tuple[Block, ...]
    output: Tensor | None = None
    diameter: float = 0.0

    @classmethod
    def plan(
        cls, network: ForwardPass, shape: tuple[int, int], read: Callable[[Box], Tensor], *, side: int = SIDE
    ) -> SlidingWindow:
        """Judge the size of the nuclei, which runs the network on a few windows, and cut the image into blocks.

        Args:
            network: what runs the network.
            shape: (height, width) of the image.
            read: gives a box of the image as the network is to see it, (1, channels, H, W).
            side: pixels; the longest side of a block, see `SIDE`.
        """
        places, first, diameter = judge(network, shape, read)
        factor = zoom(diameter)
        size = round(factor * shape[0]), round(factor * shape[1])
        blocks = tuple(_cut(network, shape, size, factor, side))
        if len(blocks) >= MANY:
            network.expect(*_padded(blocks[0].input_region.shape, network.architecture.stride))
        # The window of a small image is the image: if it is not resized, its output is known already.
        same = places[0].shape == shape and factor == 1.0 and len(blocks) == 1
        return cls(network, shape, factor, size, blocks, first if same else None, diameter)

    @torch.inference_mode()
    def forward(self, block: Block, pixels: Tensor) -> Tensor:
        """The network's output for one block, at the image's own size.

        Args:
            block: one of `blocks`.
            pixels: of its `read_region`, (1, channels, H, W).

        Returns:
            (1, classes + 4, H, W) for its `context`.
        """
        if self.output is not None:
            return self.output
        if self.factor == 1.0:
            return self.network.raw(pixels)[..., *block.context.within(block.input_region)]
        if is_constant(pixels):  # and stays so, which rounding would not let it
            pixels = pixels[..., :1, :1].expand(-1, -1, *block.input_region.shape)
        else:
            pixels = _resampled(pixels, block.read_region, block.input_region, of=self.shape, out=self.size)
        raw = self.network.raw(pixels)
        raw = _resampled(raw, block.input_region, block.context, of=self.size, out=self.shape)
        classes = self.network.architecture.classes
        raw[:, classes + 1 : classes + 3] /= self.factor
        raw[:, classes + 3] -= math.log(self.factor)
        return raw

    def whole(self, read: Callable[[Box], Tensor]) -> Tensor:
        """The network's output (1, classes + 4, H, W) for the whole image, of which `read` is as for `plan`."""
        if len(self.blocks) == 1:
            return self.forward(self.blocks[0], read(self.blocks[0].read_region))
        out = torch.empty(1, self.network.architecture.outputs, *self.shape)
        for block in self.blocks:
            raw = self.forward(block, read(block.read_region))
            here = block.write_region
            out[..., *here.within(Box(0, 0, *self.shape))] = raw[..., *here.within(block.context)]
        return out

    def meeting(self, box: Box) -> list[int]:
        """The numbers of the blocks that write a pixel of a box, in order."""
        top, left, bottom, right = self._edges
        meets = (top < box.bottom) & (bottom > box.y) & (left < box.right) & (right > box.x)
        found: list[int] = np.flatnonzero(meets).tolist()
        return found

    @cached_property
    def _edges(self) -> NDArray[np.int64]:
        """Top, left, bottom and right of what each block writes, (4, blocks)."""
        regions = [block.write_region for block in self.blocks]
        edges = [(region.y, region.x, region.bottom, region.right) for region in regions]
        return np.array(edges, dtype=np.int64).reshape(-1, 4).T


def judge(
    network: ForwardPass,
    shape: tuple[int, int],
    read: Callable[[Box], Tensor],
    measure: Callable[[Iterator[Maps]], float] = predicted_diameter,
) -> tuple[tuple[Box, ...], Tensor, float]:
    """The windows of an image in which nuclei were seen, or the last that were tried, the network's output in the first
    of them, and the median diameter (pixels; 0 for no nuclei) that `measure` gives of its maps; `read` is as for
    `SlidingWindow.plan`."""
    for places in windows(shape):
        first, diameter = _judge(network, places, read, measure)
        if diameter:
            break
    return places, first, diameter


def _judge(
    network: ForwardPass,
    places: tuple[Box, ...],
    read: Callable[[Box], Tensor],
    measure: Callable[[Iterator[Maps]], float],
) -> tuple[Tensor, float]:
    """The network's output at the first place, and the median diameter (pixels; 0 for no nuclei) at all of them."""
    first = network.raw(read(places[0]))
    others = (network.raw(read(place)) for place in places[1:])  # one in memory at a time
    classes = network.architecture.classes
    return first, measure(to_maps(raw, classes) for raw in chain((first,), others))


def _padded(shape: tuple[int, int], stride: int) -> tuple[int, int]:
    """The shape made up to multiples of the network's stride."""
    return -(-shape[0] // stride) * stride, -(-shape[1] // stride) * stride


def _cut(
    network: ForwardPass, shape: tuple[int, int], size: tuple[int, int], factor: float, side: int
) -> Iterator[Block]:
    """The blocks of an image of `shape` that is resized by `factor` to `size`."""
    stride = network.architecture.stride
    padded = _padded(size, stride)
    one = max(math.prod(padded), math.prod(shape)) <= whole_pixels(side)
    side = round(side * min(1.0, factor))
    # Around a pixel, interpolation needs one pixel further in the resized image than its neighbours' places.
    halo = 0 if one else network.reach + math.ceil(AROUND * factor) + 2
    rows, columns = (cover(n, max(padded) if one else side, halo=halo, stride=stride) for n in size)
    for row, column in product(rows, columns):
        (top, bottom), (left, right) = (
            owned(span.first, span.last, length=length, resized=resized)
            for span, length, resized in zip((row, column), shape, size, strict=True)
        )
        ends = min(row.end, size[0]), min(column.end, size[1])
        seen = Box(row.begin, column.begin, ends[0] - row.begin, ends[1] - column.begin)
        region = Box(top, left, bottom - top, right - left)
        yield Block(region, region.grown(AROUND, within=shape), _source(seen, size, shape), seen)


def whole_pixels(side: int = SIDE) -> int:
    """The most pixels of an image that is one block where others have at most this side: 1.5 x 1.5 of such blocks."""
    return (side * WHOLE // SIDE) ** 2


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
