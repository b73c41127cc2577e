"""Maps of entropy as TIFF: tiles of float32, compressed, BigTIFF where the file may pass 4 GB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleate.images.outputs.label_tiff import TILE, is_big
from nucleate.images.outputs.progress import Observe, observed
from nucleate.images.writer import atomic
from nucleate.types import Box

ENDING = "_entropy.tif"
"""What follows the image's name in the file's."""


def write(
    path: Path,
    region: Box,
    read: Callable[[Box], NDArray[np.float16]],
    *,
    pixel_size: float | None = None,
    observe: Observe | None = None,
) -> None:
    """Write the region of an image of which `read` gives the entropy in any box, in bits, to about three digits."""
    shape = region.shape
    boxes = [
        Box(y, x, min(TILE, shape[0] - y), min(TILE, shape[1] - x))
        for y in range(0, shape[0], TILE)
        for x in range(0, shape[1], TILE)
    ]
    dtype = np.dtype("<f4")

    def pieces() -> Iterator[bytes]:
        for box in observed(boxes, len(boxes), observe):
            values = read(Box(region.y + box.y, region.x + box.x, *box.shape)).astype(dtype)
            padded = np.pad(values, ((0, TILE - box.height), (0, TILE - box.width)))
            yield bytes(imagecodecs.deflate_encode(padded.tobytes(), level=6, raw=False))

    resolution = None if pixel_size is None else (1e4 / pixel_size, 1e4 / pixel_size)
    with atomic(path) as file, tifffile.TiffWriter(file, byteorder="<", bigtiff=is_big(shape, dtype)) as tiff:
        tiff.write(
            pieces(),
            shape=shape,
            dtype=dtype,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="minisblack",
            resolution=resolution,
            resolutionunit=None if pixel_size is None else "centimeter",
            metadata={"axes": "YX"},
        )
