"""How far an image is enlarged or reduced, so that its nuclei are seen at the size that is learnt best.

The factor belongs to the whole image, like its intensity statistics: every tile of it uses the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleate.types import Labels, Maps

DIAMETERS = 24.0, 32.0
"""Pixels; an image whose median nucleus is smaller than the first is enlarged so that it has this diameter, one whose
median nucleus is larger than the second is reduced to that."""

FACTORS = 0.6, 2.0
"""No image is reduced or enlarged further."""

WORTHWHILE = 1.2
"""A smaller enlargement, or reduction, is not done: interpolation costs more than it gives."""


def zoom(diameter: float) -> float:
    """The factor for images with this median diameter (pixels), within `FACTORS`; 1 where none is known.

    >>> zoom(16.0), zoom(28.0), zoom(40.0), zoom(200.0), zoom(2.0), zoom(0.0)
    (1.5, 1.0, 0.8, 0.6, 2.0, 1.0)
    """
    if diameter <= 0:
        return 1.0
    smallest, largest = DIAMETERS
    factor = float(np.clip(np.clip(1.0, smallest / diameter, largest / diameter), *FACTORS))
    return factor if max(factor, 1 / factor) >= WORTHWHILE else 1.0


def true_diameter(labels: Labels) -> float:
    """Median over nuclei of the equivalent diameter 2 sqrt(area / pi), in pixels; 0 where there is none."""
    areas = np.bincount(labels[labels > 0])
    areas = areas[areas > 0]
    return float(2 * np.sqrt(np.median(areas) / np.pi)) if areas.size else 0.0


LARGEST = 64 / FACTORS[0]
"""Pixels; nuclei of a larger diameter are not seen whole, even where the image is reduced by the first of `FACTORS`."""

SEEN = 28
"""Pixels; the diameter that larger nuclei are reduced to."""


def reduction(judge: Callable[[int], float]) -> int:
    """By which whole factor an image is reduced before all else, so that nuclei of a diameter above `LARGEST` are seen.

    At full size the parts of such nuclei may look like nuclei. Reduced, nuclei of ordinary size are seen as ever
    smaller ones, down to some 6 pixels; large ones are not. Only where nuclei of a good size are seen at a quarter and
    at half of the size are there large ones.

    Args:
        judge: gives the median diameter (pixels, 0 for no nuclei) that is seen in the image reduced by a factor; see
            `distinct_diameter`.

    >>> [reduction(lambda factor: max(6, size / factor)) for size in (20, 100, 200, 400)]
    [1, 1, 7, 14]
    """
    quarter = judge(4)
    if quarter < DIAMETERS[0] * 2 / 3 or judge(2) < DIAMETERS[0]:
        return 1
    # Of what is seen too large to be seen well, the smaller picture tells more.
    diameter = max(4 * quarter, 8 * judge(8))
    return round(diameter / SEEN) if diameter > LARGEST else 1


SURE = 0.7
"""A pixel is counted as nucleus from this probability on, where the size of nuclei is judged."""

MIDDLE = 0.45
"""The quantile that is taken for the median: the nuclei that a first look misses are the small ones."""


def predicted_diameter(maps: Iterable[Maps]) -> float:
    """The same from a network's maps, without finding the nuclei: about the median (`MIDDLE`) of 2 radius over nucleus
    pixels, each counted as 1 / radius^2, so that large and small nuclei count alike; 0 where there is no nucleus pixel.

    Maps that an iterator makes are held one at a time.
    """
    return _median([one.radius[one.foreground > SURE] for one in maps])


def distinct_diameter(maps: Iterable[Maps]) -> float:
    """The same, but no more than what the connected parts of nucleus pixels show: their diameter 2 sqrt(area / pi), of
    which as much area lies in smaller as in larger ones. A network may say of nuclei that are smaller than all that it
    learnt from that they are as large."""
    radii, areas = [], [np.zeros(0, dtype=np.int64)]
    for one in maps:
        sure = one.foreground > SURE
        radii.append(one.radius[sure])
        areas.append(np.bincount(ndimage.label(sure)[0].ravel())[1:])
    area = np.sort(np.concatenate(areas))
    if area.size == 0:
        return 0.0
    half = area[np.searchsorted(np.cumsum(area), area.sum() / 2)]
    return min(_median(radii), float(2 * np.sqrt(half / np.pi)))


def _median(radii: Sequence[NDArray[np.float32]]) -> float:
    """About the median diameter of nuclei, from the radius at each of their pixels."""
    radius = np.sort(np.concatenate(radii))
    if radius.size == 0:
        return 0.0
    part = np.cumsum(1.0 / np.maximum(radius, 1.0) ** 2, dtype=np.float64)
    return 2 * float(radius[np.searchsorted(part, MIDDLE * part[-1])])
