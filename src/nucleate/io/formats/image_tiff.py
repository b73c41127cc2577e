"""Images and label images from memory as TIFF: one plane, lossless, as any program opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleate.io.atomic import atomic
from nucleate.types import Image, Labels


def write_image(path: Path, image: Image) -> None:
    """Write an image with its pixel size and, where it has several channels that are no colours, their names."""
    pixels = image.pixels
    metadata: dict[str, Any] = {"axes": "YX"}
    if pixels.shape[2] == 3 and image.channels == ("red", "green", "blue"):
        metadata, photometric = {"axes": "YXS"}, "rgb"
    else:
        photometric, planes = "minisblack", np.moveaxis(pixels, 2, 0)
        pixels = planes[0] if len(planes) == 1 else planes
        if len(planes) > 1:
            metadata = {"axes": "CYX", "Channel": {"Name": list(image.channels)}}
    _write(path, pixels, image.pixel_size, photometric, metadata, ome=pixels.ndim == 3 and photometric != "rgb")


def write_labels(path: Path, labels: Labels, pixel_size: float | None = None) -> None:
    """Write a label image: 16 bits where they hold it, else 32, with a sign where something is unknown."""
    limit = np.iinfo(np.uint16).max
    plain = labels.min(initial=0) >= 0 and labels.max(initial=0) <= limit
    _write(path, labels.astype(np.uint16) if plain else labels, pixel_size, "minisblack", {"axes": "YX"}, ome=False)


def _write(
    path: Path, pixels: NDArray[Any], size: float | None, photometric: str, metadata: dict[str, Any], *, ome: bool
) -> None:
    with atomic(path) as file, tifffile.TiffWriter(file, byteorder="<", ome=ome) as tiff:
        tiff.write(
            pixels,
            photometric=photometric,
            compression="zlib",
            metadata=metadata,
            resolution=None if size is None else (1e4 / size, 1e4 / size),
            resolutionunit=None if size is None else "centimeter",
            software=None,
            datetime=None,
        )
