"""Images of any size, read a box at a time: the abstract reader, and the one for images in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from nucleate.errors import ImageError
from nucleate.types import Box, Image, Pixels

MOST = 2**20
"""Pixels; about how many are read at once where a whole image is read piece by piece."""

_USUAL = 16  # channels; of images with more, fewer pixels are read at once

MOST_LEVELS = 64
"""Levels of a pyramid."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid: its (height, width), and how many pixels of the first level one of its pixels spans."""

    shape: tuple[int, int]
    downsample: float


def downsample(whole: tuple[int, int], shape: tuple[int, int]) -> float:
    """How many pixels of the whole one of a level of this shape spans: a whole number where that may be, as the rest
    of a division is dropped or filled up when a level is made.

    >>> downsample((101, 1003), (25, 250)), downsample((101, 1003), (26, 251)), downsample((100, 1000), (40, 400))
    (4.0, 4.0, 2.5)
    """
    ratio = max(whole) / max(shape)
    factor = max(1, round(ratio))
    divided = all(n // factor <= m <= -(-n // factor) for n, m in zip(whole, shape, strict=True))
    return float(factor) if divided else ratio


def chosen_image(series: int | None, names: Sequence[str], path: Path) -> int:
    """The place in `names` of the image of this number, from 1, of those that a file holds; one alone need not be
    chosen. Raises `ImageError` where there is no such image, and where one of several must be chosen."""
    if series is None and len(names) > 1:
        listed = ", ".join(name or f"image {number}" for number, name in enumerate(names[:4], start=1))
        more = ", ..." if len(names) > 4 else ""
        raise ImageError(
            f"{path} holds {len(names)} images ({listed}{more}), and one is needed here: choose it, or save each as a"
            " file of its own (nucleate predict and train take all, or the one of --scene)."
        )
    if series is not None and not 1 <= series <= len(names):
        raise ImageError(f"{path} has no image {series}: it holds {len(names)}.")
    return (series or 1) - 1


class Reader(ABC):
    """One plane of one image, of which any box can be read. May be read from several threads at once.

    `shape` is (height, width) of the chosen pyramid `level`; `channels` names each channel; `dtype` is uint8, uint16
    or float32, and of a label image whatever the file holds; `pixel_size` is micrometres a pixel at that level, above
    0, None where the file does not say; `levels` lists the pyramid, the whole image first. `piece` is the (height,
    width) of what is decoded as one: a tile, a strip, a chunk.
    """

    name: str
    path: Path | None
    channels: tuple[str, ...]
    dtype: np.dtype[np.generic]
    levels: tuple[Level, ...]
    level: int
    pixel_size: float | None
    piece: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        return self.levels[self.level].shape

    @property
    def box(self) -> Box:
        """All of it."""
        return Box(0, 0, *self.shape)

    def pieces(self, most: int = MOST) -> Iterator[Box]:
        """Boxes that together hold each pixel once, from the top: whole tiles or strips, as many as make up at most
        `most` pixels, or one where one has more; fewer of an image of many channels.

        >>> image = Image("white", np.ones((5, 4, 1), np.uint8), ("grey",))
        >>> list(MemoryReader(image).pieces(8))
        [Box(y=0, x=0, height=2, width=4), Box(y=2, x=0, height=2, width=4), Box(y=4, x=0, height=1, width=4)]
        """
        height, width = self.shape
        high, wide = self.piece
        most = max(1, most * _USUAL // max(_USUAL, len(self.channels)))
        wide = min(width, wide * max(1, most // (high * wide)))
        high = min(height, high * max(1, most // (high * wide)))
        for y in range(0, height, high):
            for x in range(0, width, wide):
                yield Box(y, x, min(high, height - y), min(wide, width - x))

    @abstractmethod
    def read(self, box: Box) -> Pixels:
        """The pixels (height, width, channels) of a box that lies inside the image."""

    def close(self) -> None:  # noqa: B027 - not abstract: most readers hold nothing open
        """Give back what is held open."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def check_level(self) -> None:
        """Raise `ImageError` where the level that was asked for is none of the `levels`."""
        if not 0 <= self.level < len(self.levels):
            sizes = ", ".join(f"{n} ({one.shape[0]} x {one.shape[1]})" for n, one in enumerate(self.levels))
            raise ImageError(f"{self.path} has no level {self.level}: its levels are {sizes}.")

    def check_inside(self, box: Box) -> None:
        """Raise `ImageError` for a box that is empty or reaches out of the image."""
        height, width = self.shape
        if box.y < 0 or box.x < 0 or box.height < 1 or box.width < 1 or box.bottom > height or box.right > width:
            raise ImageError(f"{self.path or self.name} is {height} x {width} pixels and does not hold {box}.")


class MemoryReader(Reader):
    """An image that is in memory as a whole.

    >>> reader = MemoryReader(Image("ramp", np.arange(12, dtype=np.uint8).reshape(3, 4, 1), ("grey",)))
    >>> reader.read(Box(1, 2, 2, 2))[..., 0].tolist()
    [[6, 7], [10, 11]]
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self.name, self.path, self.channels = image.name, image.path, image.channels
        self.dtype, self.pixel_size = image.pixels.dtype, image.pixel_size
        height, width = image.pixels.shape[:2]
        self.levels, self.level = (Level((height, width), 1.0),), 0
        self.piece = (1, width)

    def read(self, box: Box) -> Pixels:
        self.check_inside(box)
        return self.image.pixels[box.y : box.bottom, box.x : box.right]
