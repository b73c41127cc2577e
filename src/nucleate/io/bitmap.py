"""PNG and JPEG files to arrays.

The decoders behind this module forgive much: libpng ignores a missing end, libjpeg fills what is missing with grey.
An image with an invented part must not reach training, so the file's own structure is walked first.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.files import read_bytes

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
LARGEST = 2**29
"""Bytes; a file that has more, or promises more of pixels, is refused before memory is taken, as these formats are
decoded as a whole."""

_DEFLATE_BEST = 1032  # no deflate stream is shorter than 1/1032 of what it holds
_JPEG_BEST = 8192  # pixels a byte; Huffman codes get to some 500, arithmetic ones further
_MOST_SCANS = 64  # of a JPEG, each of which is work on the whole image; a progressive one has some ten
# Within a scan FF 00 stands for a byte of data and FF D0..D7 restart the decoder; neither ends the scan.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3


def read_bitmap(path: Path, *, labels: bool = False) -> NDArray[np.generic]:
    """The pixels of a PNG or JPEG file, shape (height, width, channels) with 1 or 3 channels, uint8 or uint16.

    Transparency is dropped. A palette becomes its colours; with `labels`, a palette of colours becomes its indices,
    because programs that colour a label image for display keep the labels there.

    Raises `ImageError` for a file that is cut off, broken, larger than `LARGEST` or in CMYK.
    """
    data = read_bytes(path, LARGEST)
    is_png = data.startswith(PNG_SIGNATURE)
    try:
        height, width, each = _check_png(data, path) if is_png else _jpeg_frame(data)
    except ValueError as error:
        raise ImageError(f"{path} is broken ({error}): copy or export it again.") from error
    if not is_png and height * width > _JPEG_BEST * len(data):
        raise ImageError(f"{path} promises {width} x {height} pixels, more than its {len(data)} bytes can hold.")
    if height * width * each > LARGEST:
        raise ImageError(
            f"{path} is {width} x {height} pixels, which take {height * width * each} bytes, and a PNG or JPEG is read"
            f" as a whole, up to {LARGEST} bytes: save it as a tiled TIFF."
        )
    try:
        pixels = _decode_png(data, labels) if is_png else np.asarray(imagecodecs.jpeg8_decode(data))
    except (RuntimeError, ValueError) as error:
        raise ImageError(f"{path} cannot be decoded ({error}): export or copy it again.") from error
    pixels = pixels.reshape(height, width, -1)
    if not is_png and pixels.shape[2] == 4:
        raise ImageError(f"{path} is a CMYK JPEG, made for printing: save it as RGB.")
    return pixels[..., : {2: 1, 4: 3}.get(pixels.shape[2])]


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The whole chunks (kind, body) of a PNG file, up to the point where it breaks off."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _check_png(data: bytes, path: Path) -> tuple[int, int, int]:
    """Height and width of a PNG file that is whole, and the bytes that one of its pixels takes."""
    header: bytes = b""
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            header = body
        if kind == b"IEND":
            break
    else:
        raise ImageError(f"{path} is cut off before its end: copy or export it again.")
    if len(header) != 13 or header[9] not in _PNG_SAMPLES or header[8] not in (1, 2, 4, 8, 16):
        raise ImageError(f"{path} has a broken PNG header: copy or export it again.")
    width, height, depth, colour = struct.unpack(">IIBB", header[:10])
    if 0 in (width, height):
        raise ImageError(f"{path} is a PNG without pixels: copy or export it again.")
    if height * (width * depth * _PNG_SAMPLES[colour] // 8) > _DEFLATE_BEST * len(data):
        raise ImageError(f"{path} promises {width} x {height} pixels, more than its {len(data)} bytes can hold.")
    samples = _PNG_SAMPLES[colour] if colour != _PALETTE else 4
    return height, width, samples * (1 + (depth > 8))


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width of JPEG data; `ValueError` where they do not reach their end marker or have no size."""
    height, width, _ = _jpeg_frame(data)
    return height, width


def _jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Height and width of JPEG data, and the bytes that a pixel takes while they are decoded: where an image comes in
    several scans, so do its 16-bit coefficients."""
    size: tuple[int, int] | None = None
    samples = 3
    at, scans = 2, 0
    while True:
        found = _MARKER.search(data, at)
        if found is None:
            raise ValueError("it is cut off before its end")
        marker, at = found[0][1], found.end()
        if marker == 0xD9:
            break
        if at + 2 > len(data):
            continue
        (length,) = struct.unpack_from(">H", data, at)
        scans += marker == 0xDA
        if scans > _MOST_SCANS:
            raise ValueError(f"it has more than {_MOST_SCANS} scans")
        # SOF0..SOF15 carry the size; C4, C8 and CC are tables that share the range.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 8 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 3)
            if size not in (None, (height, width)):
                raise ValueError("its headers give two sizes")
            size, samples = (height, width), data[at + 7]
        at += length
    if size is None or 0 in size:
        raise ValueError("its header gives no size")
    return *size, samples * (3 if scans > 1 else 1)


def _decode_png(data: bytes, labels: bool) -> NDArray[np.generic]:
    pixels = np.asarray(imagecodecs.png_decode(data))
    if not labels or data[25] != _PALETTE:
        return pixels
    colours = pixels[..., :3]
    return pixels if (colours == colours[..., :1]).all() else _palette_indices(data)


def _palette_indices(data: bytes) -> NDArray[np.generic]:
    """The indices behind a palette image: the same file declared as grey, without its palette."""
    out = [PNG_SIGNATURE]
    for kind, body in _chunks(data):
        if kind in (b"PLTE", b"tRNS"):
            continue
        if kind == b"IHDR":
            body = body[:9] + b"\x00" + body[10:]
        out.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    # Greys of fewer than 8 bits come back stretched to 0..255.
    stretch = 255 // (2 ** data[24] - 1)
    stretched: NDArray[np.uint8] = np.asarray(imagecodecs.png_decode(b"".join(out)))
    return stretched // np.uint8(stretch)
