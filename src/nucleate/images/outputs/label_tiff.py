"""Label images as TIFF: compressed, written piece by piece, BigTIFF where the file may pass 4 GB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleate.images.nuclei import Nuclei
from nucleate.images.outputs.progress import Observe, observed
from nucleate.images.writer import atomic
from nucleate.types import Box

TILE = 512
"""Pixels; the side of a tile."""

STRIPPED = 4096
"""Pixels; an image no longer than this is stored in strips, which also readers without tiles (ImageJ's own) open."""


def label_type(count: int) -> np.dtype[np.unsignedinteger]:
    """The narrowest type that every format holds labels 0..count in.

    >>> label_type(65535), label_type(65536)
    (dtype('uint16'), dtype('uint32'))
    """
    return np.dtype(np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32)


def write(path: Path, nuclei: Nuclei, observe: Observe | None = None) -> None:
    """Write the label image, 0 background and 1..N, as uint16, or uint32 above 65535 nuclei; losslessly compressed.

    The pixel size, where it is known, is in the resolution tags, in pixels a centimetre. No more than 512 x 512 labels
    are in memory at once.
    """
    height, width = nuclei.shape
    dtype = label_type(nuclei.count).newbyteorder("<")
    tiled = max(nuclei.shape) > STRIPPED
    piece = (TILE, TILE) if tiled else (min(height, max(1, TILE**2 // width)), width)
    boxes = [
        Box(y, x, min(piece[0], height - y), min(piece[1], width - x))
        for y in range(0, height, piece[0])
        for x in range(0, width, piece[1])
    ]

    def pieces() -> Iterator[bytes]:
        for box in observed(boxes, len(boxes), observe):
            labels: NDArray[np.unsignedinteger] = nuclei.read(box).astype(dtype)
            if tiled:  # a tile at the right or lower border is filled up with background
                labels = np.pad(labels, ((0, TILE - box.height), (0, TILE - box.width)))
            yield bytes(imagecodecs.deflate_encode(labels.tobytes(), level=6, raw=False))

    with atomic(path) as file, tifffile.TiffWriter(file, byteorder="<", bigtiff=is_big(nuclei.shape, dtype)) as tiff:
        tiff.write(
            pieces(),
            shape=nuclei.shape,
            dtype=dtype,
            tile=piece if tiled else None,
            rowsperstrip=None if tiled else piece[0],
            compression="zlib",
            photometric="minisblack",
            resolution=None if nuclei.pixel_size is None else (1e4 / nuclei.pixel_size, 1e4 / nuclei.pixel_size),
            resolutionunit=None if nuclei.pixel_size is None else "centimeter",
            metadata={"axes": "YX"},
        )


def is_big(shape: tuple[int, int], dtype: np.dtype[np.generic]) -> bool:
    """Whether the file could pass 4 GB, the end of a plain TIFF: labels that will not compress take no less."""
    tiles = -(-shape[0] // TILE) * -(-shape[1] // TILE)
    return tiles * TILE**2 * dtype.itemsize > 2**32 - 2**25
