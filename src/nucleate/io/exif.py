"""How a camera was held: the orientation that JPEG and PNG files carry as Exif (tag 274), and pixels turned by it."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_ORIENTATION = 274
_UPRIGHT = 1


def orientation(exif: bytes) -> int:
    """The orientation 1 to 8 that Exif data, which are a TIFF header and its tags, name; 1 where they name none.

    >>> orientation(b"II*\\0\\x08\\0\\0\\0" + b"\\x01\\0" + struct.pack("<HHIHH", 274, 3, 1, 6, 0))
    6
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order is not None:
            (start,) = struct.unpack_from(f"{order}I", exif, 4)
            (count,) = struct.unpack_from(f"{order}H", exif, start)
            for at in range(start + 2, min(start + 2 + 12 * count, len(exif)), 12):
                tag, kind, values, value = struct.unpack_from(f"{order}HHIH", exif, at)
                if (tag, kind, values) == (_ORIENTATION, 3, 1) and 1 <= value <= 8:
                    return int(value)
    except struct.error:  # cut off
        pass
    return _UPRIGHT


def of_jpeg(data: bytes) -> bytes:
    """The Exif data of a JPEG file; empty where it has none."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b"\xd9") and at + 4 <= len(data):
        (length,) = struct.unpack_from(">H", data, at + 2)
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 10 : at + 2 + length]
        at += 2 + length
    return b""


def upright(pixels: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Pixels (height, width, channels) as they are meant to be seen.

    >>> upright(np.array([[[1], [2]], [[3], [4]]]), 6)[..., 0].tolist()
    [[3, 1], [4, 2]]
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
