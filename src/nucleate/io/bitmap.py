"""PNG and JPEG files to arrays.

The decoders behind this module forgive much: libpng ignores a missing end, libjpeg fills what is missing with grey.
An image with an invented part must not reach training, so the file's own structure is walked first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.exif import of_jpeg, orientation, upright

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
MAX_PIXELS = 2**31
"""An image that promises more pixels than this is refused before memory is taken."""

_DEFLATE_BEST = 1032  # no deflate stream is shorter than 1/1032 of what it holds
_JPEG_BEST = 8192  # pixels a byte; Huffman codes get to some 500, arithmetic ones further
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3


def read_bitmap(path: Path, *, labels: bool = False) -> NDArray[np.generic]:
    """The pixels of a PNG or JPEG file, shape (height, width, channels) with 1 or 3 channels, uint8 or uint16.

    Transparency is dropped. A palette becomes its colours; with `labels`, a palette of colours becomes its indices,
    because programs that colour a label image for display keep the labels there. An image that Exif says is turned
    is turned back, as every viewer shows it.

    Raises `ImageError` for a file that is cut off, broken, larger than `MAX_PIXELS` or in CMYK.
    """
    data = path.read_bytes()
    is_png = data.startswith(PNG_SIGNATURE)
    try:
        height, width = _check_png(data, path) if is_png else jpeg_size(data)
    except ValueError as error:
        raise ImageError(f"{path} is broken ({error}): copy or export it again.") from error
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{path} promises {width} x {height} pixels, above the limit of {MAX_PIXELS}: cut it up first."
        )
    if not is_png and height * width > _JPEG_BEST * len(data):
        raise ImageError(f"{path} promises {width} x {height} pixels, more than its {len(data)} bytes can hold.")
    try:
        pixels = _decode_png(data, labels) if is_png else np.asarray(imagecodecs.jpeg8_decode(data))
    except (RuntimeError, ValueError) as error:
        raise ImageError(f"{path} cannot be decoded ({error}): export or copy it again.") from error
    pixels = pixels.reshape(height, width, -1)
    if not is_png and pixels.shape[2] == 4:
        raise ImageError(f"{path} is a CMYK JPEG, made for printing: save it as RGB.")
    exif = next((body for kind, body in _chunks(data) if kind == b"eXIf"), b"") if is_png else of_jpeg(data)
    return np.ascontiguousarray(upright(pixels[..., : {2: 1, 4: 3}.get(pixels.shape[2])], orientation(exif)))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The whole chunks (kind, body) of a PNG file, up to the point where it breaks off."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _check_png(data: bytes, path: Path) -> tuple[int, int]:
    """Height and width of a PNG file that is whole."""
    header: bytes = b""
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            header = body
        if kind == b"IEND":
            break
    else:
        raise ImageError(f"{path} is cut off before its end: copy or export it again.")
    if len(header) != 13 or header[9] not in _PNG_SAMPLES:
        raise ImageError(f"{path} has a broken PNG header: copy or export it again.")
    width, height, depth, colour = struct.unpack(">IIBB", header[:10])
    if height * (width * depth * _PNG_SAMPLES[colour] // 8) > _DEFLATE_BEST * len(data):
        raise ImageError(f"{path} promises {width} x {height} pixels, more than its {len(data)} bytes can hold.")
    return height, width


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width of JPEG data; `ValueError` where they do not reach their end marker or have no size."""
    size: tuple[int, int] | None = None
    at = 2
    while True:
        at = _next_marker(data, at)
        if at < 0:
            raise ValueError("it is cut off before its end")
        marker = data[at + 1]
        at += 2
        if marker == 0xD9:
            break
        if at + 2 > len(data):
            continue
        (length,) = struct.unpack_from(">H", data, at)
        # SOF0..SOF15 carry the size; C4, C8 and CC are tables that share the range.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 7 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 3)
            if size not in (None, (height, width)):
                raise ValueError("its headers give two sizes")
            size = (height, width)
        at += length
    if size is None or 0 in size:
        raise ValueError("its header gives no size")
    return size


def _next_marker(data: bytes, at: int) -> int:
    """Where the next marker begins at or after `at`; -1 when the data end first.

    Within a scan FF 00 stands for a byte of data and FF D0..D7 restart the decoder; neither ends the scan.
    """
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return -1
        following = data[at + 1]
        if following == 0 or 0xD0 <= following <= 0xD7 or following == 0x01:
            at += 2
        elif following == 0xFF:
            at += 1
        else:
            return at


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
