"""What is measured of each nucleus on request, `--measure all`: its shape, and its pixels in each channel.

The names and the values are those of scikit-image's `regionprops_table` on the label image (van der Walt et al.,
scikit-image: image processing in Python, PeerJ 2014), in pixels; lengths follow in micrometres where the pixel size is
known. Where there are several channels, their names stand in place of scikit-image's numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from skimage.measure import regionprops

from nucleate.io.base import Reader
from nucleate.io.formats.table import channel_names
from nucleate.io.instances import Instance
from nucleate.types import Box

MEASURES = ("basic", "all")
"""What `nucleate predict --measure` takes."""

LENGTHS = ("perimeter", "axis_major_length", "axis_minor_length")
SHAPE = (*LENGTHS, "eccentricity", "solidity", "orientation")
INTENSITY = ("intensity_mean", "intensity_min", "intensity_max", "intensity_std")


class RegionMeasurements:
    """The further columns of the nuclei of one image.

    Args:
        reader: the image, from which the pixels of each nucleus are read.
        origin: (y, x) of the region that was segmented, from which boxes count.
        pixel_size: micrometres, None where it is not known.
    """

    def __init__(self, reader: Reader, origin: tuple[int, int], pixel_size: float | None) -> None:
        self._reader, self._origin, self._pixel_size = reader, origin, pixel_size
        ends = [f"_{name}" for name in channel_names(reader.channels)] if len(reader.channels) > 1 else [""]
        sizes = [f"{name}_um" for name in LENGTHS] if pixel_size else []
        self.columns = (*SHAPE, *sizes, *(name + end for end in ends for name in INTENSITY))

    def __call__(self, found: Instance) -> Sequence[float]:
        """The values of one nucleus, in the order of `columns`."""
        box = found.box
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a nucleus that is a line, whose convex hull is itself
            (region,) = regionprops(found.mask.astype(np.uint8))
            values = {name: float(region[name]) for name in SHAPE}
        sizes = [values[name] * self._pixel_size for name in LENGTHS] if self._pixel_size else []
        pixels = self._reader.read(Box(box.y + self._origin[0], box.x + self._origin[1], *box.shape))[found.mask]
        numbers = pixels.astype(np.float64)
        intensity = np.stack([getattr(numbers, of)(axis=0) for of in ("mean", "min", "max", "std")], axis=1)
        return [*values.values(), *sizes, *intensity.ravel().tolist()]
