"""An image file as prediction takes it: which level of its pyramid, which channel, which pixel size, which part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nucleate.errors import InputError
from nucleate.io.reader import Reader, open_reader
from nucleate.io.stack import PlaneReader
from nucleate.types import Box, Pixels, Plane

SMALLEST_SIZE, LARGEST_SIZE = 0.05, 5.0
"""Micrometres; no microscope that shows nuclei has smaller or larger pixels."""

NEAR = 1.5
"""A level whose pixel size is further than this factor from the one that is asked for is not taken."""


class ChannelReader(Reader):
    """Some channels of an image, those at these `places` in this order."""

    def __init__(self, reader: Reader, places: Sequence[int]) -> None:
        self.reader, self.places = reader, list(places)
        self.name, self.path, self.channels = reader.name, reader.path, tuple(reader.channels[i] for i in places)
        self.dtype, self.pixel_size, self.piece = reader.dtype, reader.pixel_size, reader.piece
        self.levels, self.level = reader.levels, reader.level

    def read(self, box: Box) -> Pixels:
        return np.ascontiguousarray(self.reader.read(box)[..., self.places])

    def close(self) -> None:
        self.reader.close()


@dataclass(frozen=True, slots=True)
class Selection:
    """What of an image is segmented.

    `level` of its pyramid, or the level whose pixels are nearest to `pixel_size` micrometres; where the file does not
    say how large they are, `pixel_size` says it of the first level. `region` of that level, all of it by default.

    Raises `InputError` for a pixel size that no microscope has, and where both are given.
    """

    level: int | None = None
    pixel_size: float | None = None
    region: Box | None = None

    @classmethod
    def of(cls, level: int | None, pixel_size: float | None, region: tuple[int, int, int, int] | None) -> Selection:
        """The same, the region as y, x, height and width."""
        return cls(level, pixel_size, None if region is None else Box(*region))

    def __post_init__(self) -> None:
        if self.level is not None and self.pixel_size is not None:
            raise InputError("--level and --pixel-size both choose a level of the pyramid: give one of them.")
        if self.level is not None and self.level < 0:
            raise InputError(f"--level is {self.level}: levels are counted from 0, the whole image.")
        if self.pixel_size is not None and not is_plausible(self.pixel_size):
            raise InputError(
                f"--pixel-size is {self.pixel_size:g}: give micrometres, from {SMALLEST_SIZE} to {LARGEST_SIZE:g}."
            )
        if self.region is not None and (min(self.region.y, self.region.x) < 0 or min(self.region.shape) < 1):
            raise InputError(
                "A region is the first row and column, from 0, and the height and width, from 1, and"
                f" {_listed(self.region)} is not."
            )


@dataclass(frozen=True, slots=True)
class OpenImage:
    """An image, open: its `reader`, the `region` of it to segment, micrometres a pixel (None where they are not
    known), and a sentence for the person who asked, where there is something to say."""

    reader: Reader
    region: Box
    pixel_size: float | None
    note: str | None = None

    @property
    def plane(self) -> Plane:
        """Which plane of a stack it is; of the one in best focus its number."""
        return self.reader.plane if isinstance(self.reader, PlaneReader) else Plane()

    @property
    def megapixels(self) -> float:
        """How many there are to segment."""
        return self.region.height * self.region.width / 1e6

    def close(self) -> None:
        self.reader.close()


def open_image(path: Path, selection: Selection, plane: Plane | None = None) -> OpenImage:
    """Open what `selection` asks for, of a file that holds several images or of a stack this `plane`.

    Raises `ImageError` as readers do, and `InputError` where no level has about the pixel size that is asked for, or
    the region reaches out of the image.
    """
    reader = open_reader(path, selection.level or 0, plane=plane)
    try:
        known = reader.pixel_size
        note = None
        if known is not None and not is_plausible(known / reader.levels[reader.level].downsample):
            note = f"{path} says that its pixels measure {known:g} micrometres, which is not believed: lengths are in"
            note += " pixels; say how large they are with --pixel-size."
            known = None
        size = known
        if selection.pixel_size is not None:
            size, note = selection.pixel_size, None
            if known is not None:
                level = nearest_level(reader, selection.pixel_size)
                size = known * reader.levels[level].downsample
                if level:
                    reader.close()
                    reader = open_reader(path, level, plane=plane)
                note = f"{path}: level {level} is taken, of {size:.4g} micrometres a pixel." if level else None
        said = [one for one in (reader.note if isinstance(reader, PlaneReader) else None, note) if one]
        return OpenImage(reader, select_region(reader, selection.region), size, " ".join(said) or None)
    except BaseException:
        reader.close()
        raise


def nearest_level(reader: Reader, size: float) -> int:
    """The level whose pixels are nearest to so many micrometres, by their ratio."""
    assert reader.pixel_size is not None  # asked before
    sizes = [reader.pixel_size * level.downsample / reader.levels[reader.level].downsample for level in reader.levels]
    away = [abs(math.log(one / size)) for one in sizes]
    best = min(range(len(sizes)), key=away.__getitem__)
    if away[best] > math.log(NEAR):
        listed = ", ".join(f"{one:.4g} (level {level})" for level, one in enumerate(sizes))
        raise InputError(
            f"{reader.path or reader.name} has pixels of {listed} micrometres and none near {size:g}: ask for one of"
            " these, or resample the image."
        )
    return best


def is_plausible(size: float) -> bool:
    """Whether pixels of this size, in micrometres, may be those of a microscope.

    >>> [is_plausible(size) for size in (0.25, 352.8, 0.0, float("nan"))]
    [True, False, False, False]
    """
    return SMALLEST_SIZE <= size <= LARGEST_SIZE


def select_region(reader: Reader, region: Box | None) -> Box:
    """The region, or all of the image; raises `InputError` where it reaches out of the image."""
    if region is None:
        return reader.box
    height, width = reader.shape
    if region.bottom > height or region.right > width:
        raise InputError(
            f"The region {_listed(region)} reaches out of {reader.path or reader.name}, whose level {reader.level} is"
            f" {height} x {width} pixels: give Y X HEIGHT WIDTH inside it."
        )
    return region


def _listed(box: Box) -> str:
    return f"{box.y} {box.x} {box.height} {box.width}"
