"""A stack of label images as one TIFF file, which programs that read ImageJ hyperstacks open with its axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from nucleate.io.atomic import atomic
from nucleate.types import Labels


def write(
    path: Path, planes: Iterable[Labels], axes: Mapping[str, int], highest: int, pixel_size: float | None = None
) -> None:
    """Write label images, one in memory at a time, as an ImageJ hyperstack (TIFF 6.0).

    Args:
        path: of the file.
        planes: label images (height, width) of one size, those of the last axis first.
        axes: T, Z or both, in this order, with their lengths.
        highest: no label is above it. Up to 65,535 the numbers have 16 bits, else they are 32-bit floats, exact up to
            2**24, as ImageJ has no larger whole numbers.
        pixel_size: micrometres, if known.

    Raises:
        OutputError: the file cannot be written.
    """
    rest = iter(planes)
    first = next(rest)
    dtype = np.dtype(np.uint16 if highest <= np.iinfo(np.uint16).max else np.float32)
    size: dict[str, Any] = {} if pixel_size is None else {"resolution": (1 / pixel_size, 1 / pixel_size)}
    metadata = {"axes": "".join(axes) + "YX", **({} if pixel_size is None else {"unit": "micron"})}
    with atomic(path) as file, tifffile.TiffWriter(file, imagej=True) as tiff:
        tiff.write(
            (plane.astype(dtype) for plane in chain([first], rest)),
            shape=(*axes.values(), *first.shape),
            dtype=dtype,
            compression="zlib",
            metadata=metadata,
            **size,
        )
