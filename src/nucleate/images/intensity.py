"""Intensities of a whole image to the range that a network is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.images.reader import RGB
from nucleate.types import Image, Pixels

LOWEST, HIGHEST = -1.0, 4.0
"""Where normalised values are clipped."""

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
    of number needs a person's choice: see `pick`.

    Raises `ImageError` where the number of channels does not fit.

    >>> image = Image("ramp", np.arange(101, dtype=np.uint8).reshape(1, 101, 1), ("grey",))
    >>> normalise(image, 1, Normalisation(0, 100))[0, 0, [0, 50, 100]].tolist()
    [0.0, 0.5, 1.0]
    """
    normalisation = normalisation or Normalisation()
    pixels = _with_channels(image, channels)
    low, high = percentiles(pixels, (normalisation.low, normalisation.high))
    scaled = np.moveaxis(stretch(pixels, low, high, LOWEST, HIGHEST), 2, 0)
    return np.array(np.broadcast_to(scaled, (channels, *scaled.shape[1:])), dtype=np.float32, order="C")


def pick(image: Image, channel: str | int) -> Image:
    """The image with one of its channels, given by name (any case) or by number from 1.

    Raises `ImageError` naming the channels that there are.

    >>> image = Image("cells", np.zeros((4, 5, 2), np.uint8), ("DAPI", "GFP"))
    >>> pick(image, "dapi").channels, pick(image, 2).channels
    (('DAPI',), ('GFP',))
    """
    names = [name.lower() for name in image.channels]
    wanted = str(channel).lower()
    if wanted in names:
        index = names.index(wanted)
    elif wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        index = int(wanted) - 1
    else:
        choice = ", ".join(image.channels)
        raise ImageError(f"{image.path or image.name} has no channel {channel!r}: choose one of {choice}.")
    return replace(image, pixels=image.pixels[..., index : index + 1], channels=(image.channels[index],))


def percentiles(pixels: Pixels, q: Sequence[float]) -> NDArray[np.float64]:
    """Percentiles of all values together, in linear interpolation, as `numpy.percentile` gives them.

    Unsigned integers are counted instead of sorted, which takes one pass and little memory.

    >>> percentiles(np.array([1, 2, 3, 5], np.uint8), (0, 50, 100)).tolist()
    [1.0, 2.5, 5.0]
    """
    if not _countable(pixels):
        return np.asarray(np.percentile(pixels.astype(np.float64), q), dtype=np.float64)
    values = pixels.reshape(-1)
    size = int(values.max()) + 1
    counts = np.zeros(size, dtype=np.int64)
    for start in range(0, values.size, _CHUNK):
        counts += np.bincount(values[start : start + _CHUNK].astype(np.intp), minlength=size)
    reached = np.cumsum(counts)
    position = np.asarray(q, dtype=np.float64) / 100 * (values.size - 1)
    below = np.floor(position)
    part = position - below
    a = np.searchsorted(reached, below, side="right")
    b = np.searchsorted(reached, np.minimum(below + 1, values.size - 1), side="right")
    return np.asarray(a + (b - a) * part, dtype=np.float64)


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
        values /= max(high - low, np.finfo(np.float64).tiny)
    scaled = np.clip(values, lowest, highest, out=values).astype(np.float32)
    return scaled[pixels.astype(np.intp)] if table else scaled


def _countable(pixels: Pixels) -> bool:
    """Whether a list of all values up to the highest is short: 8 and 16 bit, and sums of three of them."""
    return pixels.dtype.kind == "u" and int(pixels.max()) < 2**18


def _with_channels(image: Image, channels: int) -> Pixels:
    """Pixels with `channels` channels, or with one where copies are wanted. A mean is left as a sum: scale is free."""
    have = image.pixels.shape[2]
    if have in (1, channels):
        return image.pixels
    if channels == 1 and image.channels == RGB:
        wide = np.float64 if image.pixels.dtype.kind == "f" else np.uint32
        return np.asarray(image.pixels.sum(axis=2, keepdims=True, dtype=wide))
    raise ImageError(
        f"{image.path or image.name} has {have} channels ({', '.join(image.channels)}) where {channels} are needed:"
        " choose one of them by name."
    )
