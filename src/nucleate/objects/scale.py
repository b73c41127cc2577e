"""How far an image is enlarged or reduced, so that its nuclei are seen at the size that is learnt best.

The factor belongs to the whole image, like its intensity statistics: every tile of it uses the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.objects.grouping import Maps
from nucleate.types import Labels

DIAMETERS = 21.0, 32.0
"""Pixels; an image whose median nucleus is smaller than the first is enlarged so that it has this diameter, one whose
median nucleus is larger than the second is reduced to that."""

FACTORS = 0.6, 1.7
"""No image is reduced or enlarged further."""

WORTHWHILE = 1.2
"""A smaller enlargement, or reduction, is not done: interpolation costs more than it gives."""

SOFTEST = 0.12
"""No image is enlarged so far that less than this part of its contrast lies between two neighbouring pixels across an
outline (see `Edges.steepness`): it would show nothing new, and soft outlines are drawn too wide."""


def zoom(diameter: float, steepness: float = math.inf) -> float:
    """The factor for images with this median diameter (pixels), within `FACTORS`, and with outlines of this
    steepness; 1 where no diameter is known.

    >>> zoom(14.0), zoom(28.0), zoom(40.0), zoom(200.0), zoom(2.0), zoom(0.0)
    (1.5, 1.0, 0.8, 0.6, 1.7, 1.0)
    >>> zoom(2.0, steepness=0.18), zoom(2.0, steepness=0.1), zoom(40.0, steepness=0.1)
    (1.5, 1.0, 0.8)
    """
    if diameter <= 0:
        return 1.0
    smallest, largest = DIAMETERS
    factor = float(np.clip(np.clip(1.0, smallest / diameter, largest / diameter), *FACTORS))
    if factor > 1:
        factor = min(factor, max(1.0, steepness / SOFTEST))
    return factor if max(factor, 1 / factor) >= WORTHWHILE else 1.0


@dataclass(frozen=True, slots=True)
class Edges:
    """What the steepness of the nuclei's outlines follows from, of one view or, added up, of several.

    `across` (channels,) is the sum of (inside - outside) over the pairs of neighbouring pixels, along y or x, of which
    one is nucleus and the other background; `pairs` counts them. `nucleus` and `background` (channels,) are sums over
    such pixels, `counts` their numbers.
    """

    across: NDArray[np.float64]
    pairs: int
    nucleus: NDArray[np.float64]
    background: NDArray[np.float64]
    counts: tuple[int, int]

    @classmethod
    def of(cls, image: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> Edges:
        """Of an image (channels, H, W) and its labels (H, W): positive nucleus, 0 background, negative unknown."""
        state = np.sign(labels).astype(np.int8)
        across, pairs = np.zeros(len(image)), 0
        for x, known in ((image, state), (image.swapaxes(1, 2), state.T)):
            one, other = known[1:], known[:-1]
            turn = np.where(np.minimum(one, other) < 0, 0, one - other)
            y, at = np.nonzero(turn)
            across += ((x[:, y + 1, at] - x[:, y, at]) * turn[y, at]).sum(1, dtype=np.float64)
            pairs += len(y)
        nucleus, background = (image[:, state == kind].sum(1, dtype=np.float64) for kind in (1, 0))
        return cls(across, pairs, nucleus, background, (int((state == 1).sum()), int((state == 0).sum())))

    def __add__(self, other: Edges) -> Edges:
        return Edges(
            self.across + other.across,
            self.pairs + other.pairs,
            self.nucleus + other.nucleus,
            self.background + other.background,
            (self.counts[0] + other.counts[0], self.counts[1] + other.counts[1]),
        )

    @property
    def steepness(self) -> float:
        """The part of the contrast between nuclei and background that lies between two neighbouring pixels across an
        outline, in the mean: 1 for a step, 1 / w for a slope w pixels wide. Infinite where nothing can be said: no
        outline, no contrast, or outlines that run against it.

        With several channels both are vectors: their product by the contrast's own square.

        >>> image, labels = np.zeros((1, 4, 8), np.float32), np.zeros((4, 8), np.int32)
        >>> labels[:, 4:] = 1
        >>> image[0] = [0, 0, 0, 0.25, 0.75, 1, 1, 1]
        >>> round(Edges.of(image, labels).steepness, 3)
        0.571
        """
        if not self.pairs:
            return math.inf
        contrast = self.nucleus / self.counts[0] - self.background / self.counts[1]
        along, square = float(self.across / self.pairs @ contrast), float(contrast @ contrast)
        return along / square if along > 0 else math.inf


def true_diameter(labels: Labels) -> float:
    """Median over nuclei of the equivalent diameter 2 sqrt(area / pi), in pixels; 0 where there is none."""
    areas = np.bincount(labels[labels > 0])
    areas = areas[areas > 0]
    return float(2 * np.sqrt(np.median(areas) / np.pi)) if areas.size else 0.0


SURE = 0.7
"""A pixel is counted as nucleus from this probability on, where the size of nuclei is judged."""

MIDDLE = 0.45
"""The quantile that is taken for the median: the nuclei that a first look misses are the small ones."""


def predicted_diameter(maps: Iterable[Maps]) -> float:
    """The same from a network's maps, without finding the nuclei: about the median (`MIDDLE`) of 2 radius over nucleus
    pixels, each counted as 1 / radius^2, so that large and small nuclei count alike; 0 where there is no nucleus pixel.

    Maps that an iterator makes are held one at a time.
    """
    radius: NDArray[np.float32] = np.sort(np.concatenate([one.radius[one.foreground > SURE] for one in maps]))
    if radius.size == 0:
        return 0.0
    part = np.cumsum(1.0 / np.maximum(radius, 1.0) ** 2, dtype=np.float64)
    return 2 * float(radius[np.searchsorted(part, MIDDLE * part[-1])])
