"""What the red, green and blue of an image show: one picture, stained tissue, or fluorescence of several stains."""

from __future__ import annotations

import numpy as np

from nucleate.io.axes import RGB
from nucleate.io.base import Reader
from nucleate.types import Pixels

SAMPLE = 2**22
"""Pixels; so many at most of an image tell what its colours show."""

DARK = 0.2
"""Of the range of an image: where the darkest colour of half of the pixels lies below, light shines out of a dark
ground. Stained tissue lies on white, and no part of it is without any of the three colours."""

TABLE = 256
"""An image of no more different colours was made from one channel by a table of colours."""

EMPTY = 0.05
"""A colour whose standard deviation is below this share of the largest one shows nothing."""

ALIKE = 0.9
"""From this correlation on two colours show the same."""


def has_several(reader: Reader) -> bool:
    """Whether the channels of an image differ; a grey image may be stored as red = green = blue."""
    if reader.channels != RGB:
        return len(reader.channels) > 1
    return not is_grey(sample(reader))


def is_grey(pixels: Pixels) -> bool:
    """Whether all channels (height, width, channels) are equal."""
    return bool((pixels == pixels[..., :1]).all())


def sample(reader: Reader) -> Pixels:
    """The pixels of an image, of a large one those of pieces all over it, a column of pixels (N, 1, channels)."""
    boxes = list(reader.pieces())
    most = max(1, SAMPLE * len(boxes) // (reader.shape[0] * reader.shape[1]))
    chosen = boxes if most >= len(boxes) else [boxes[(2 * k + 1) * len(boxes) // (2 * most)] for k in range(most)]
    return np.concatenate([reader.read(box).reshape(-1, 1, len(reader.channels)) for box in chosen])


def of_colours(pixels: Pixels) -> tuple[int, ...] | None:
    """The places of red, green and blue that show one picture together; None where they show different ones.

    All three where they are alike, or where they are stained tissue; the one that shows something where the others are
    empty; None where light of different colours shines out of a dark ground, as of several fluorescent stains.

    >>> ramp = np.linspace(0, 255, 400).reshape(20, 20).astype(np.uint8)
    >>> of_colours(np.stack([ramp, ramp, ramp], 2)), of_colours(np.stack([0 * ramp, 0 * ramp, ramp], 2))
    ((0, 1, 2), (2,))
    >>> print(of_colours(np.stack([0 * ramp, ramp.T, ramp], 2)))
    None
    """
    every = (0, 1, 2)
    if is_grey(pixels):
        return every
    values = pixels.reshape(-1, 3)[:: max(1, pixels.size // (3 * 2**18))].astype(np.float64)
    deviation = values.std(axis=0)
    shown = tuple(np.flatnonzero(deviation > EMPTY * deviation.max()).tolist())
    low, high = values.min(), np.percentile(values, 99.8)  # which a few hot pixels do not raise
    if not shown or np.median(values.min(axis=1)) > low + DARK * (high - low):
        return every
    if len(shown) == 1:
        return shown
    correlation = np.corrcoef(values[:, shown], rowvar=False)
    return every if correlation.min() >= ALIKE else None


def is_table(pixels: Pixels) -> bool:
    """Whether colours are those of a table, such as programs show one channel in.

    >>> is_table(np.stack([np.arange(600) % 256, np.arange(600) % 128, np.zeros(600)], 1)[None].astype(np.uint8))
    True
    """
    part = pixels.reshape(-1, 3)[:: max(1, pixels.size // (3 * 2**18))]
    return len(part) > TABLE and len(np.unique(part, axis=0)) <= TABLE
