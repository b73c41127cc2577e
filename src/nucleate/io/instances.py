"""What prediction found in one image, as the writers of every format read it: any box of the labels, one nucleus after
the other, never all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleate.types import Box, Labels, Nucleus


@dataclass(frozen=True, slots=True)
class Instance:
    """One nucleus: its measurements, and its pixels as the True ones of `mask`, which covers `box` of the image."""

    nucleus: Nucleus
    box: Box
    mask: NDArray[np.bool_]


class Instances(ABC):
    """The nuclei of one image, or of a region of it, numbered 1..`count`.

    `shape` is (height, width) in pixels of the level that was segmented; `origin` (y, x) where the region begins in
    that level; `downsample` how many pixels of the whole slide one of its pixels spans; `pixel_size` micrometres a
    pixel of the level, None where it is not known. Boxes and coordinates count from the region's own first pixel.
    """

    name: str
    shape: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    downsample: float = 1.0
    pixel_size: float | None = None
    count: int

    @abstractmethod
    def read(self, box: Box) -> NDArray[np.uint32]:
        """The labels in a box that lies inside; may be called from several threads at once."""

    @abstractmethod
    def __iter__(self) -> Iterator[Instance]:
        """Every nucleus, in the order of their numbers."""

    def measurements(self) -> Iterator[Nucleus]:
        """Those of every nucleus, in the order of their numbers."""
        return (found.nucleus for found in self)


class MemoryInstances(Instances):
    """The nuclei of an image whose labels 1..N are in memory.

    >>> from nucleate.types import Nucleus
    >>> labels = np.array([[0, 1, 1], [0, 0, 1]], dtype=np.int32)
    >>> row = Nucleus(id=1, y=0.333, x=1.667, area=3, diameter=1.954, mean_intensity=7.0, score=0.9)
    >>> [(found.box, found.mask.tolist()) for found in MemoryInstances("a", labels, [row])]
    [(Box(y=0, x=1, height=2, width=2), [[True, True], [False, True]])]
    """

    def __init__(
        self,
        name: str,
        labels: Labels,
        table: Sequence[Nucleus],
        *,
        origin: tuple[int, int] = (0, 0),
        downsample: float = 1.0,
        pixel_size: float | None = None,
    ) -> None:
        self.name, self.labels, self.table = name, labels, table
        self.origin, self.downsample, self.pixel_size = origin, downsample, pixel_size
        self.shape = (labels.shape[0], labels.shape[1])
        self.count = len(table)

    def read(self, box: Box) -> NDArray[np.uint32]:
        return self.labels[box.y : box.bottom, box.x : box.right].astype(np.uint32)

    def __iter__(self) -> Iterator[Instance]:
        for row, place in zip(self.table, ndimage.find_objects(self.labels), strict=True):
            y, x = place
            box = Box(y.start, x.start, y.stop - y.start, x.stop - x.start)
            yield Instance(row, box, self.labels[place] == row.id)
