"""Label images as TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nucleate.io.formats import tiff_writer
from nucleate.io.formats.progress import Observe
from nucleate.io.instances import Instances

STRIPPED = 4096
"""Pixels; an image no longer than this is stored in strips, which also readers without tiles (ImageJ's own) open."""


def label_type(count: int) -> np.dtype[np.unsignedinteger]:
    """The narrowest type that every format holds labels 0..count in.

    >>> label_type(65535), label_type(65536)
    (dtype('uint16'), dtype('uint32'))
    """
    return np.dtype(np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32)


def write(path: Path, nuclei: Instances, observe: Observe | None = None) -> None:
    """Write the label image, 0 background and 1..N, as uint16, or uint32 above 65535 nuclei."""
    tiff_writer.write(
        path,
        nuclei.shape,
        label_type(nuclei.count),
        nuclei.read,
        tiled=max(nuclei.shape) > STRIPPED,
        pixel_size=nuclei.pixel_size,
        observe=observe,
    )
