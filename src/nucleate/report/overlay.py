"""An image with the outline of each nucleus drawn in, as a PNG file."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nucleate.data.normalization import percentiles, stretch
from nucleate.io.atomic import atomic
from nucleate.types import Image, Labels

ENDING = "_overlay.png"
"""What follows the image's name in the file's."""

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, stay as far from each other as they can


def write_overlay(path: Path, image: Image, labels: Labels) -> None:
    """Write what `draw_outlines` gives as a PNG file."""
    with atomic(path) as file:
        file.write(imagecodecs.png_encode(draw_outlines(image, labels), level=4))


def draw_outlines(image: Image, labels: Labels) -> NDArray[np.uint8]:
    """The image as 8-bit RGB, (height, width, 3), stretched from its 0.5 to its 99.8 percentile, each nucleus outlined.

    An outline is one pixel wide and lies inside its nucleus. Neighbouring numbers get colours far apart.
    """
    picture = _picture(image)
    edge = boundary(labels)
    picture[edge] = _colours(int(labels.max(initial=0)))[labels[edge]]
    return picture


def boundary(labels: Labels) -> NDArray[np.bool_]:
    """The pixels of each nucleus that touch another label above, below, left or right: its inner boundary.

    >>> boundary(np.pad(np.ones((3, 3), np.int32), 1)).astype(int)
    array([[0, 0, 0, 0, 0],
           [0, 1, 1, 1, 0],
           [0, 1, 0, 1, 0],
           [0, 1, 1, 1, 0],
           [0, 0, 0, 0, 0]])
    """
    edge = np.zeros(labels.shape, dtype=np.bool_)
    for axis in (0, 1):
        along, found = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
        differs = along[1:] != along[:-1]
        found[1:] |= differs
        found[:-1] |= differs
    return edge & (labels > 0)


def _picture(image: Image) -> NDArray[np.uint8]:
    """The image as 8-bit RGB, shape (height, width, 3); of more channels the first three, of two also black."""
    pixels = image.pixels[..., :3]
    low, high = percentiles(pixels, (0.5, 99.8))
    scaled = np.rint(stretch(pixels, low, high, 0.0, 1.0) * 255)
    shown = np.zeros((*scaled.shape[:2], 3), dtype=np.uint8)
    shown[..., : 3 if scaled.shape[2] == 1 else scaled.shape[2]] = scaled
    return shown


def _colours(count: int) -> NDArray[np.uint8]:
    """Bright colours for the labels 0..count, shape (count + 1, 3): hues by the golden ratio, two depths of colour."""
    number = np.arange(count + 1)
    hue = number * _GOLDEN % 1.0
    depth = np.where(number // 2 % 2, 0.65, 1.0)
    wave = np.abs((hue[:, None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    colours: NDArray[np.float64] = 255 * (1 - depth[:, None] * (1 - np.clip(wave, 0, 1)))
    return np.rint(colours).astype(np.uint8)
