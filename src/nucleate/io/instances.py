"""What prediction found in one image, as the writers of every format read it: any box of the labels, one nucleus after
the other, never all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nucleate.types import Box, Nucleus


@dataclass(frozen=True, slots=True)
class Instance:
    """One nucleus: its measurements, and its pixels as the True ones of `mask`, which covers `box` of the image."""

    nucleus: Nucleus
    box: Box
    mask: NDArray[np.bool_]


class Further(Protocol):
    """What else is measured of each nucleus: the names of the values, and the values of one."""

    columns: tuple[str, ...]

    def __call__(self, found: Instance) -> Sequence[float]: ...


class Instances(ABC):
    """The nuclei of one image, or of a region of it, numbered 1..`count`.

    `shape` is (height, width) in pixels of the level that was segmented; `origin` (y, x) where the region begins in
    that level; `downsample` how many pixels of the whole slide one of its pixels spans; `pixel_size` micrometres a
    pixel of the level, None where it is not known; `channels` those in which each nucleus was measured, where the image
    has several; `novelty` how far the image lies from those that the model was trained on, above 1 where it is unlike
    them, None where that is not known; `further` what else tables are to hold, `cellprofiler` what the table for that
    program is. Boxes and coordinates count from the region's own first pixel.
    """

    name: str
    shape: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    downsample: float = 1.0
    pixel_size: float | None = None
    channels: tuple[str, ...] = ()
    novelty: float | None = None
    count: int
    further: Further | None = None
    cellprofiler: Further | None = None

    @abstractmethod
    def read(self, box: Box) -> NDArray[np.uint32]:
        """The labels in a box that lies inside; may be called from several threads at once."""

    @abstractmethod
    def __iter__(self) -> Iterator[Instance]:
        """Every nucleus, in the order of their numbers."""

    def measurements(self) -> Iterator[Nucleus]:
        """Those of every nucleus, in the order of their numbers."""
        return (found.nucleus for found in self)
