"""An image of any size, block by block: what to read, what to write. Whole numbers only.

Along each axis, blocks of one length begin at multiples of the network's stride and overlap by a halo on either side,
so that what each writes is what the whole image would give. Every pixel is written once. The last block ends where the
image, made up to a multiple of the stride, ends; so zeros stand beyond its true border and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """A block along one axis: it reads pixels `begin` to `end` - 1 and writes `first` to `last` - 1.

    `end` may lie beyond the image, up to the next multiple of the stride.
    """

    begin: int
    end: int
    first: int
    last: int


def cover(length: int, longest: int, *, halo: int, stride: int) -> tuple[Span, ...]:
    """The fewest blocks of at most `longest` pixels that write each of `length` pixels once, all of equal length.

    Within `halo` pixels (rounded up to the stride) of what a block writes, it reads all that the image has.

    Raises ValueError where `longest` leaves nothing to write between two halos.

    >>> for span in cover(100, 64, halo=10, stride=8): print(span)
    Span(begin=0, end=56, first=0, last=40)
    Span(begin=24, end=80, first=40, last=64)
    Span(begin=48, end=104, first=64, last=100)
    """
    halo, padded = -(-halo // stride) * stride, -(-length // stride) * stride
    if padded <= longest:
        return (Span(0, padded, 0, length),)
    step = longest // stride * stride - 2 * halo
    if step <= 0:
        raise ValueError(f"blocks of {longest} pixels leave nothing between two halos of {halo}")
    count = -(-(padded - 2 * halo) // step)
    step = -(-(padded - 2 * halo) // (count * stride)) * stride  # as even as the stride lets them be
    size = step + 2 * halo
    starts = [min(i * step, padded - size) for i in range(count)]
    borders = [0, *(i * step + halo for i in range(1, count)), length]
    return tuple(Span(start, start + size, borders[i], borders[i + 1]) for i, start in enumerate(starts))


def tiles(length: int, tile: int) -> tuple[tuple[int, int], ...]:
    """A line of pixels in parts of `tile`, the last as long as is left.

    >>> tiles(10, 4)
    ((0, 4), (4, 8), (8, 10))
    """
    return tuple((begin, min(begin + tile, length)) for begin in range(0, length, tile))


def taps(begin: int, end: int, *, out: int, of: int) -> tuple[Places, Places, NDArray[np.float64]]:
    """Linear interpolation of a line of `of` pixels to `out` pixels, for the outputs `begin` to `end` - 1.

    Output o lies at (o + 1/2) of / out - 1/2, at least 0: between the pixels `low` and `high`, and is
    (1 - part) x[low] + part x[high]. The place is counted in whole numbers, so it is the same however far from the
    first pixel, and whichever outputs are asked for.

    >>> taps(0, 4, out=4, of=2)
    (array([0, 0, 0, 1]), array([1, 1, 1, 1]), array([0.  , 0.25, 0.75, 0.25]))
    """
    place = np.maximum((2 * np.arange(begin, end, dtype=np.int64) + 1) * of - out, 0)
    low, part = np.divmod(place, 2 * out)
    return low, np.minimum(low + 1, of - 1), part / (2 * out)


def owned(first: int, last: int, *, length: int, resized: int) -> tuple[int, int]:
    """Of `length` pixels, the first and one past the last of those that lie, in the line of `resized` pixels that they
    become, between `first` and `last` - 1, rounded down. Adjoining ranges own adjoining pixels.

    >>> owned(0, 3, length=6, resized=12), owned(3, 12, length=6, resized=12)
    ((0, 2), (2, 6))
    """

    def pixel(place: int) -> int:
        """The first that lies at `place` or beyond: (p + 1/2) resized / length - 1/2 >= place."""
        return -((resized - (2 * place + 1) * length) // (2 * resized))

    return (0 if first == 0 else pixel(first)), (length if last == resized else pixel(last))
