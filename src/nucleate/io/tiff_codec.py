"""Decoding one tile or strip of a TIFF file, which may claim to hold more than it does.

JPEG and JPEG 2000 carry a size of their own, for which their decoders take memory. It is held against the tile's before
they see it. All other decoders are told how much may come out.
"""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nucleate.io.bitmap import jpeg_size

NONE, _JPEG, _JPEG2000_YCBCR = 1, 7, 33003
_JPEG2000 = (_JPEG2000_YCBCR, 33004, 33005, 34712)
READ = frozenset({NONE, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, *_JPEG2000, 34925, 34926, 50000})
"""The compressions that are read: CCITT, LZW, JPEG, Deflate, PackBits, JPEG 2000, LZMA and Zstandard."""

_BLOCK = 16
"""Pixels; JPEG fills its image up to a multiple of at most this side."""


def width(page: Any) -> int:
    """Bytes that a value takes while it is decoded; JPEG 2000 works in 32 bits."""
    return int(page.dtype.itemsize) + 4 * (page.compression in _JPEG2000)


def decode(
    page: Any, data: bytes, index: int, tables: bytes | None, shape: tuple[int, int, int]
) -> NDArray[np.generic]:
    """The pixels (height, width, samples) of the tile or strip of this index, at most of `shape`.

    Raises `ValueError`, or what the codec raises, for data that are broken, cut off or of another size.
    """
    if page.compression in _JPEG2000:
        return _decode_jpeg2000(page, data, shape)
    if page.compression == _JPEG and page.jpegheader is None:
        _refuse_larger((*jpeg_size(data), shape[2]), shape)
    decoded: NDArray[np.generic] = page.decode(data, index, jpegtables=tables, jpegheader=page.jpegheader)[0][0]
    return decoded


def _decode_jpeg2000(page: Any, data: bytes, shape: tuple[int, int, int]) -> NDArray[np.generic]:
    *size, subsampled = _jpeg2000_header(data)
    _refuse_larger((size[0], size[1], size[2]), shape)
    decoded = np.asarray(imagecodecs.jpeg2k_decode(data)).reshape(size)
    if decoded.dtype != page.dtype or decoded.shape[2] < shape[2]:
        raise ValueError(f"it holds {decoded.shape[2]} samples of {decoded.dtype}")
    # Where chroma is subsampled the decoder itself takes it for YCbCr, and gives colours.
    if page.compression == _JPEG2000_YCBCR and shape[2] == 3 and not subsampled:
        return _colours(decoded)
    return decoded[..., : shape[2]]


def _jpeg2000_header(data: bytes) -> tuple[int, int, int, bool]:
    """Height, width and samples that a codestream claims, and whether some samples are fewer than others."""
    at = 0
    while data[at + 4 : at + 8] in (b"jP  ", b"ftyp", b"jp2h"):  # a file of its own, and what comes before its stream
        at += max(8, int.from_bytes(data[at : at + 4], "big"))
    at += 8 * (data[at + 4 : at + 8] == b"jp2c")
    if data[at : at + 4] != b"\xff\x4f\xff\x51" or len(data) < at + 42:
        raise ValueError("it is no JPEG 2000 stream")
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    (samples,) = struct.unpack_from(">H", data, at + 40)
    steps = data[at + 42 : at + 42 + 3 * samples]
    return bottom - top, right - left, samples, any(step > 1 for step in steps[1::3] + steps[2::3])


def _refuse_larger(claimed: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
    limits = (-(-shape[0] // _BLOCK) * _BLOCK, -(-shape[1] // _BLOCK) * _BLOCK, max(4, shape[2]))
    if any(not 0 < claim <= limit for claim, limit in zip(claimed, limits, strict=True)):
        raise ValueError(f"it claims to be {claimed[1]} x {claimed[0]} pixels of {claimed[2]} samples")


def _colours(ycbcr: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Red, green and blue of 8-bit YCbCr as JFIF has it (ITU-T T.871, 2011)."""
    y, cb, cr = np.moveaxis(ycbcr.astype(np.float32), 2, 0)
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2)
    return np.asarray(np.rint(rgb).clip(0, 255), dtype=np.uint8)
