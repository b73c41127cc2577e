"""The tiles of the images in a folder: which there are, in which order, and how a browser names them."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from nucleate.data.dataset import images_in
from nucleate.errors import DatasetError, NucleateError
from nucleate.io.reader import open_reader, scenes
from nucleate.types import Box, Plane

SIDE = 512
"""Pixels; the longest side of a tile."""


@dataclass(frozen=True, slots=True)
class Source:
    """One image: its name in the folder, its file, which of several in the file (from 1), its (height, width)."""

    name: str
    path: Path
    series: int | None
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """One tile: the `id` by which a browser asks for it, its number among all, its image's number, what it covers."""

    id: str
    number: int
    image: int
    box: Box


class Places:
    """The tiles of all images of a folder, of up to `SIDE` pixels each way and about equal in an image. They are made
    when they are asked for, as a slide has tens of thousands.

    An id says nothing of where a file is, and stays the same as long as the image has its name and its size.

    Raises `DatasetError` where no image can be opened.
    """

    def __init__(self, folder: Path, side: int = SIDE) -> None:
        self.sources: list[Source] = []
        self.notes: list[str] = []
        for path in images_in([folder]):
            try:
                self.sources += _sources(folder, path)
            except NucleateError as error:
                self.notes.append(str(error))
        if not self.sources:
            raise DatasetError(self.notes[0])
        self._grids = [tuple(-(-length // side) for length in source.shape) for source in self.sources]
        self._ends = list(accumulate(rows * columns for rows, columns in self._grids))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, number: int) -> Place:
        image = bisect_right(self._ends, number)
        source, (rows, columns) = self.sources[image], self._grids[image]
        row, column = divmod(number - (self._ends[image] - rows * columns), columns)
        (y, bottom), (x, right) = (
            (index * length // parts, (index + 1) * length // parts)
            for index, length, parts in zip((row, column), source.shape, (rows, columns), strict=True)
        )
        box = Box(y, x, bottom - y, right - x)
        said = f"{source.name}\0{source.series}\0{source.shape}\0{box}"
        name = hashlib.sha256(os.fsencode(said)).hexdigest()[:24]
        return Place(name, number, image, box)

    def shuffled(self, seed: int) -> list[int]:
        """The numbers of all tiles in the order of this seed."""
        return [int(number) for number in np.random.default_rng(seed).permutation(len(self))]


def _sources(folder: Path, path: Path) -> list[Source]:
    name = os.path.relpath(path, folder)
    several = scenes(path)
    found = []
    for number in range(1, len(several) + 1):
        series = number if len(several) > 1 else None
        with open_reader(path, plane=Plane(series)) as reader:
            found.append(Source(name if series is None else f"{name} ({series})", path, series, reader.shape))
    return found
