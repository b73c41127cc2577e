"""What normalising a box of an image needs to know of the whole, from passes over it in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.data.normalization import Normalisation, between, interpolated, ranks, with_channels
from nucleate.io.formats.progress import Observe
from nucleate.io.reader import Reader
from nucleate.types import Pixels

DIGIT = 18
"""Bits that one pass tells apart: all of a sum of three 16-bit numbers."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of one image for a network with so many `channels`.

    `low` and `high` are the percentiles that become 0 and 1. `constant` is whether every pixel equals the first.
    """

    channels: int
    low: float
    high: float
    constant: bool

    @classmethod
    def of(
        cls,
        reader: Reader,
        channels: int,
        normalisation: Normalisation | None = None,
        observe: Observe | None = None,
    ) -> Statistics:
        """The statistics of the whole image behind a reader, exactly those that `intensity.normalise` takes.

        One pass for integers, two for floats (four where floats are added up to grey), a few pieces of the image in
        memory at once. `observe` is told the share that is done.

        Raises `ImageError` where the number of channels does not fit or a pixel cannot be read.

        >>> from nucleate.io.reader import MemoryReader
        >>> from nucleate.types import Image
        >>> ramp = Image("ramp", np.arange(101, dtype=np.uint8).reshape(1, 101, 1), ("grey",))
        >>> Statistics.of(MemoryReader(ramp), 1, Normalisation(0, 50))
        Statistics(channels=1, low=0.0, high=50.0, constant=False)
        """
        normalisation = normalisation or Normalisation()
        boxes = list(reader.pieces())
        first = reader.read(boxes[0])[:1, :1]
        mixed = with_channels(first, reader.channels, channels, reader.path or reader.name)
        bits, done, constant = _bits(first, mixed), 0, True

        def stream() -> Iterator[Pixels]:
            nonlocal done, constant
            for box in boxes:
                pixels = reader.read(box)
                constant = constant and bool((pixels == first).all())
                yield with_channels(pixels, reader.channels, channels, reader.path or reader.name)
                done += 1
                if observe is not None:
                    observe(done / (passes(bits) * len(boxes)))

        height, width = reader.shape
        below, above, part = ranks(height * width * mixed.shape[2], (normalisation.low, normalisation.high))
        values = select(stream, np.concatenate([below, above]), mixed.dtype, bits)
        low, high = interpolated(values[:2], values[2:], part)
        return cls(channels, float(low), float(high), constant)

    def normalise(self, pixels: Pixels, names: Sequence[str]) -> NDArray[np.float32]:
        """Pixels (height, width, channels as `names` has them) of any box as the network sees them, float32 of shape
        (channels, height, width): to the last bit what `intensity.normalise` of the whole image holds there."""
        return between(with_channels(pixels, names, self.channels, "The image"), self.low, self.high, self.channels)


def passes(bits: int) -> int:
    """How often `select` reads values of so many bits."""
    return -(-bits // DIGIT)


def select(
    stream: Callable[[], Iterator[NDArray[Any]]], ranks: NDArray[np.int64], dtype: np.dtype[Any], bits: int
) -> NDArray[np.float64]:
    """The values of the given ranks (0 the smallest) among all that a stream gives, found digit by digit.

    The values, unsigned or floats, have an order that is that of their `bits`. Each pass over the stream counts one
    digit of them, the highest first, among the values that share the digits that are known already.

    >>> numbers = np.array([2.5, -1.0, 7.0, 2.5], np.float32)
    >>> select(lambda: iter([numbers[:2], numbers[2:]]), np.array([0, 2]), numbers.dtype, 32).tolist()
    [-1.0, 2.5]
    """
    digit = -(-bits // passes(bits))
    known = np.zeros(len(ranks), dtype=np.uint64)
    left = ranks.copy()
    highest = (passes(bits) - 1) * digit
    for shift in range(highest, -1, -digit):
        prefixes = np.unique(known)
        counts = np.zeros((len(prefixes), 2**digit), dtype=np.int64)
        for values in stream():
            keys = _ordered(values.reshape(-1))
            if passes(bits) == 1:
                counts[0] += np.bincount(keys, minlength=2**digit)
                continue
            heads = keys >> shift
            tails = (heads & (2**digit - 1)).astype(np.intp)
            for row, prefix in zip(counts, prefixes, strict=True):
                # Above the highest digit there is none to share.
                chosen = tails if shift == highest else tails[heads >> digit == prefix]
                row += np.bincount(chosen, minlength=2**digit)
        reached = np.cumsum(counts, axis=1)[np.searchsorted(prefixes, known)]
        found = [int(np.searchsorted(row, rank, side="right")) for row, rank in zip(reached, left, strict=True)]
        left -= [row[place - 1] if place else 0 for row, place in zip(reached, found, strict=True)]
        known = (known << np.uint64(digit)) | np.array(found, dtype=np.uint64)
    return _values(known, dtype)


def _ordered(values: NDArray[Any]) -> NDArray[Any]:
    """Unsigned numbers in the order of the values: of a float its bits, all turned round where it is negative."""
    if values.dtype.kind == "u":
        return values
    bits = values.view(f"u{values.itemsize}")
    sign = bits.dtype.type(1 << (8 * values.itemsize - 1))
    return np.where(bits & sign, ~bits, bits | sign)


def _values(keys: NDArray[np.uint64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """The values that `_ordered` made the keys of."""
    if dtype.kind == "u":
        return keys.astype(np.float64)
    bits = keys.astype(f"u{dtype.itemsize}")
    sign = bits.dtype.type(1 << (8 * dtype.itemsize - 1))
    return np.where(bits & sign, bits ^ sign, ~bits).view(dtype).astype(np.float64)


def _bits(pixels: Pixels, mixed: Pixels) -> int:
    """How many bits the values take after their channels were mixed."""
    if pixels.dtype.kind == "u" and pixels.shape[2] > mixed.shape[2]:
        return int(pixels.shape[2] * (2 ** (8 * pixels.dtype.itemsize) - 1)).bit_length()
    return 8 * mixed.dtype.itemsize
