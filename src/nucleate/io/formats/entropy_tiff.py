"""Maps of entropy as TIFF: tiles of float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.io.formats import tiff_writer
from nucleate.io.formats.progress import Observe
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

    def within(box: Box) -> NDArray[np.float16]:
        return read(Box(region.y + box.y, region.x + box.x, *box.shape))

    tiff_writer.write(
        path, region.shape, np.dtype(np.float32), within, tiled=True, pixel_size=pixel_size, observe=observe
    )
