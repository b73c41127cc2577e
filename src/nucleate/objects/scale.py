"""How far an image is enlarged, so that small nuclei are seen at the size at which their outline can be learnt.

The factor belongs to the whole image, like its intensity statistics: every tile of it uses the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nucleate.objects.grouping import Maps
from nucleate.types import Labels

TYPICAL = 20.0
"""Pixels; images whose median nucleus is smaller are enlarged so that it has this diameter."""

LARGEST = 2.5
"""No image is enlarged by more than this factor."""

WORTHWHILE = 1.2
"""A smaller enlargement is not done: it costs more than it gives."""


def zoom(diameter: float) -> float:
    """The factor for images with this median diameter (pixels): from 1 to `LARGEST`; 1 where none is known.

    >>> zoom(40.0), zoom(10.0), zoom(2.0), zoom(0.0)
    (1.0, 2.0, 2.5, 1.0)
    """
    if diameter <= 0:
        return 1.0
    factor = float(np.clip(TYPICAL / diameter, 1.0, LARGEST))
    return factor if factor >= WORTHWHILE else 1.0


def true_diameter(labels: Labels) -> float:
    """Median over nuclei of the equivalent diameter 2 sqrt(area / pi), in pixels; 0 where there is none."""
    areas = np.bincount(labels[labels > 0])
    areas = areas[areas > 0]
    return float(2 * np.sqrt(np.median(areas) / np.pi)) if areas.size else 0.0


def predicted_diameter(maps: Iterable[Maps]) -> float:
    """The same from a network's maps, without finding the nuclei: the median of 2 radius over nucleus pixels, each
    counted as 1 / radius^2, so that large and small nuclei count alike; 0 where there is no nucleus pixel.

    Maps that an iterator makes are held one at a time.
    """
    radius: NDArray[np.float32] = np.sort(np.concatenate([one.radius[one.foreground > 0.5] for one in maps]))
    if radius.size == 0:
        return 0.0
    part = np.cumsum(1.0 / np.maximum(radius, 1.0) ** 2, dtype=np.float64)
    return 2 * float(radius[np.searchsorted(part, part[-1] / 2)])
