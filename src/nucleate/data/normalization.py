"""Intensities of a whole image to the range that a network is trained on.

`normalise` takes an image in memory. `Statistics` has what is needed of the whole image to normalise any box of it,
from passes over it in bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.axes import RGB
from nucleate.io.base import Reader
from nucleate.io.formats.progress import Observe
from nucleate.parallel import Communicator, SingleProcess
from nucleate.types import Image, Pixels

LOWEST, HIGHEST = -1.0, 4.0
"""Where normalised values are clipped."""

DIGIT = 18
"""Bits that one pass tells apart: all of a sum of three 16-bit numbers."""

_CHUNK = 2**22  # values counted at once: bincount widens them to 8 bytes each


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The percentiles of an image that become 0 and 1; 0 <= low < high <= 100."""

    low: float = 1.0
    high: float = 99.8

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise ImageError(f"The percentiles {self.low} and {self.high} are no range: give 0 <= low < high <= 100.")


def normalise(image: Image, channels: int, normalisation: Normalisation | None = None) -> NDArray[np.float32]:
    """An image as a network sees it: float32 of shape (channels, height, width).

    With p_low and p_high the percentiles of all its values together,

        x' = clip((x - p_low) / (p_high - p_low), -1, 4)

    The statistics are the whole image's, so that tiles cut from the result agree. Where p_high = p_low, values equal
    to it give 0 and the others the end of the range on their side; a constant image gives zeros.

    One channel from red, green and blue is their mean; several channels from one are copies of it. Any other change
    of number needs a person's choice: see `nucleate.data.channels`.

    Raises `ImageError` where the number of channels does not fit.

    >>> image = Image("ramp", np.arange(101, dtype=np.uint8).reshape(1, 101, 1), ("grey",))
    >>> normalise(image, 1, Normalisation(0, 100))[0, 0, [0, 50, 100]].tolist()
    [0.0, 0.5, 1.0]
    """
    normalisation = normalisation or Normalisation()
    pixels = with_channels(image.pixels, image.channels, channels, image.path or image.name)
    low, high = percentiles(pixels, (normalisation.low, normalisation.high))
    return between(pixels, low, high, channels)


def between(pixels: Pixels, low: float, high: float, channels: int) -> NDArray[np.float32]:
    """Pixels as a network sees them, float32 of shape (channels, height, width): `low` becomes 0 and `high` 1. With
    `low` above `high` bright and dark change places.

    >>> between(np.array([[[2], [4], [6]]], np.uint8), 2, 6, 1).tolist()
    [[[0.0, 0.5, 1.0]]]
    >>> between(np.array([[[2], [4], [5]]], np.uint8), 6, 2, 1).tolist()
    [[[1.0, 0.5, 0.25]]]
    """
    scaled = np.moveaxis(stretch(pixels, low, high, LOWEST, HIGHEST), 2, 0)
    return np.array(np.broadcast_to(scaled, (channels, *scaled.shape[1:])), dtype=np.float32, order="C")


def is_inverted(level: float, levels: tuple[float, float]) -> bool:
    """Whether bright and dark change places in an image of this `level`, the median of its normalised values, before a
    model sees it: where that is nearer to the second of the model's `levels` than to the first.

    The first is that of the images which the model was trained on, the second that of those which it was corrected on
    and whose nuclei are dark where they were bright there, or bright where they were dark.

    >>> is_inverted(0.9, (0.02, 0.87)), is_inverted(0.1, (0.02, 0.87))
    (True, False)
    """
    own, inverted = levels
    return abs(level - inverted) < abs(level - own)


def inverted(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """A normalised image with bright and dark exchanged: 1 - x.

    >>> inverted(np.array([0.0, 0.25], np.float32)).tolist()
    [1.0, 0.75]
    """
    return np.asarray(np.clip(1 - image, LOWEST, HIGHEST), dtype=np.float32)


def percentiles(pixels: Pixels, q: Sequence[float]) -> NDArray[np.float64]:
    """Percentiles of all values together, in linear interpolation, as `numpy.percentile` gives them.

    Unsigned integers are counted instead of sorted, which takes one pass and little memory.

    >>> percentiles(np.array([1, 2, 3, 5], np.uint8), (0, 50, 100)).tolist()
    [1.0, 2.5, 5.0]
    """
    below, above, part = ordinals(pixels.size, q)
    if _countable(pixels):
        values = pixels.reshape(-1)
        size = int(values.max()) + 1
        counts = np.zeros(size, dtype=np.int64)
        for start in range(0, values.size, _CHUNK):
            counts += np.bincount(values[start : start + _CHUNK].astype(np.intp), minlength=size)
        reached = np.cumsum(counts)
        below, above = (np.searchsorted(reached, place, side="right") for place in (below, above))
        return interpolated(below, above, part)
    ranked = np.partition(pixels.astype(np.float64), np.concatenate([below, above]), axis=None)
    return interpolated(ranked[below], ranked[above], part)


def ordinals(count: int, q: Sequence[float]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Where percentiles lie among `count` sorted values, the first of rank 0: the rank below each, the rank above, and
    the part of the way from one to the other.

    >>> [part.tolist() for part in ordinals(4, (0, 50, 100))]
    [[0, 1, 3], [1, 2, 3], [0.0, 0.5, 0.0]]
    """
    position = np.asarray(q, dtype=np.float64) / 100 * (count - 1)
    below = np.floor(position).astype(np.int64)
    return below, np.minimum(below + 1, count - 1), position - below


def interpolated(below: NDArray[Any], above: NDArray[Any], part: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values `part` of the way from one to the other."""
    return np.asarray(below + (above - below) * part, dtype=np.float64)


def stretch(pixels: Pixels, low: float, high: float, lowest: float, highest: float) -> NDArray[np.float32]:
    """clip((x - low) / (high - low), lowest, highest) in float32, of any shape; high = low is allowed.

    >>> stretch(np.array([0, 2, 4, 9], np.uint8), 2, 4, -0.5, 1).tolist()
    [-0.5, 0.0, 1.0, 1.0]
    """
    table = _countable(pixels)
    # A table of every value an integer can take is shorter than the image and gives the same result.
    values = np.arange(int(pixels.max()) + 1, dtype=np.float64) if table else pixels.astype(np.float64)
    values -= low
    with np.errstate(over="ignore"):
        values /= high - low or np.finfo(np.float64).tiny
    scaled = np.clip(values, lowest, highest, out=values).astype(np.float32)
    return scaled[pixels.astype(np.intp)] if table else scaled


def _countable(pixels: Pixels) -> bool:
    """Whether a list of all values up to the highest is short: 8 and 16 bit, and sums of three of them."""
    return pixels.dtype.kind == "u" and int(pixels.max()) < 2**18


def with_channels(pixels: Pixels, names: Sequence[str], channels: int, where: object) -> Pixels:
    """Pixels with `channels` channels, or with one where copies are wanted. A mean is left as a sum: scale is free.

    Raises `ImageError` naming `where` and the channels that there are; see `normalise`.
    """
    have = pixels.shape[2]
    if have in (1, channels):
        return pixels
    if channels == 1 and tuple(names) == RGB:
        wide = np.float64 if pixels.dtype.kind == "f" else np.uint32
        return np.asarray(pixels.sum(axis=2, keepdims=True, dtype=wide))
    raise ImageError(
        f"{where} has {have} channels ({', '.join(names)}) where {channels} are needed: choose one of them by name."
    )


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of one image for a network with so many `channels`.

    `low` and `high` are the percentiles that become 0 and 1, `median` is that of all values. `constant` is whether
    every pixel equals the first.
    """

    channels: int
    low: float
    high: float
    median: float
    constant: bool

    @classmethod
    def of(
        cls,
        reader: Reader,
        channels: int,
        normalisation: Normalisation | None = None,
        observe: Observe | None = None,
        ranks: Communicator | None = None,
    ) -> Statistics:
        """The statistics of the whole image behind a reader, exactly those that `normalise` takes.

        One pass for integers, two for floats (four where floats are added up to grey), a few pieces of the image in
        memory at once. `observe` is told the share that is done. Each of `ranks` reads its part of the image.

        Raises `ImageError` where the number of channels does not fit or a pixel cannot be read.

        >>> from nucleate.io.base import MemoryReader
        >>> from nucleate.types import Image
        >>> ramp = Image("ramp", np.arange(101, dtype=np.uint8).reshape(1, 101, 1), ("grey",))
        >>> Statistics.of(MemoryReader(ramp), 1, Normalisation(0, 50))
        Statistics(channels=1, low=0.0, high=50.0, median=50.0, constant=False)
        """
        normalisation = normalisation or Normalisation()
        ranks, every = ranks or SingleProcess(), list(reader.pieces())
        first, boxes = ranks.together(lambda: reader.read(every[0])[:1, :1]), every[ranks.rank :: ranks.size]
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
        below, above, part = ordinals(height * width * mixed.shape[2], (normalisation.low, normalisation.high, 50))
        values = select(stream, np.concatenate([below, above]), mixed.dtype, bits, ranks)
        low, high, median = interpolated(values[:3], values[3:], part)
        return cls(channels, float(low), float(high), float(median), all(ranks.all(constant)))

    def seen_by(self, levels: tuple[float, float] | None) -> Statistics:
        """With bright and dark exchanged where a model's `levels` (see `is_inverted`) say so.

        >>> bright = Statistics(channels=1, low=10.0, high=110.0, median=95.0, constant=False)
        >>> bright.seen_by((0.02, 0.87)).low, bright.seen_by(None).low
        (110.0, 10.0)
        """
        span = self.high - self.low
        if levels is None or not span or not is_inverted((self.median - self.low) / span, levels):
            return self
        return replace(self, low=self.high, high=self.low)

    def normalise(self, pixels: Pixels, names: Sequence[str]) -> NDArray[np.float32]:
        """Pixels (height, width, channels as `names` has them) of any box as the network sees them, float32 of shape
        (channels, height, width): to the last bit what `normalise` of the whole image holds there."""
        return between(with_channels(pixels, names, self.channels, "The image"), self.low, self.high, self.channels)


def passes(bits: int) -> int:
    """How often `select` reads values of so many bits."""
    return -(-bits // DIGIT)


def select(
    stream: Callable[[], Iterator[NDArray[Any]]],
    places: NDArray[np.int64],
    dtype: np.dtype[Any],
    bits: int,
    ranks: Communicator | None = None,
) -> NDArray[np.float64]:
    """The values at the given places (0 the smallest) among all that a stream gives, found digit by digit.

    The values, unsigned or floats, have an order that is that of their `bits`. Each pass over the stream counts one
    digit of them, the highest first, among the values that share the digits that are known already.

    >>> numbers = np.array([2.5, -1.0, 7.0, 2.5], np.float32)
    >>> select(lambda: iter([numbers[:2], numbers[2:]]), np.array([0, 2]), numbers.dtype, 32).tolist()
    [-1.0, 2.5]
    """
    ranks, digit = ranks or SingleProcess(), -(-bits // passes(bits))
    known = np.zeros(len(places), dtype=np.uint64)
    left = places.copy()
    highest = (passes(bits) - 1) * digit
    for shift in range(highest, -1, -digit):
        prefixes = np.unique(known)

        def counted(shift: int = shift, prefixes: NDArray[np.uint64] = prefixes) -> NDArray[np.int64]:
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
            return counts

        counts = _over(ranks.together(counted), ranks)
        reached = np.cumsum(counts, axis=1)[np.searchsorted(prefixes, known)]
        found = [int(np.searchsorted(row, rank, side="right")) for row, rank in zip(reached, left, strict=True)]
        left -= [row[place - 1] if place else 0 for row, place in zip(reached, found, strict=True)]
        known = (known << np.uint64(digit)) | np.array(found, dtype=np.uint64)
    return _values(known, dtype)


def _over(counts: NDArray[np.int64], ranks: Communicator) -> NDArray[np.int64]:
    """The sum of what the ranks counted."""
    if ranks.size == 1:
        return counts
    import torch  # reading and counting alone need none

    summed: NDArray[np.int64] = ranks.sum(torch.from_numpy(counts)).numpy()
    return summed


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
