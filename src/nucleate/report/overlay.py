"""An image with outlines on it, as inline SVG: the image is a PNG inside the page, the outlines are vectors."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

from nucleate.images.intensity import percentiles, stretch
from nucleate.report.collect import Ids
from nucleate.types import Labels, Pixels

SIDE = 512
"""Pixels: of a larger image the middle SIDE x SIDE is shown, where a nucleus can still be told from its neighbour."""


def middle(height: int, width: int) -> tuple[slice, slice]:
    """The part of an image that is shown.

    >>> middle(1000, 500)
    (slice(244, 756, None), slice(0, 500, None))
    """
    rows, columns = (slice((side - min(side, SIDE)) // 2, (side + min(side, SIDE)) // 2) for side in (height, width))
    return rows, columns


def picture_data(pixels: Pixels) -> str:
    """Pixels (height, width, channels) as the address of a PNG that is inside the page itself.

    8-bit colour is shown as it is. Anything else is shown in grey, each channel from its 0.5th to its 99.8th
    percentile and their mean where there are several.
    """
    if pixels.shape[2] == 3 and pixels.dtype == np.uint8:
        shown: NDArray[np.generic] = np.ascontiguousarray(pixels)
    else:
        grey = np.mean([_full_range(plane) for plane in np.moveaxis(pixels, 2, 0)], axis=0)
        shown = np.rint(255 * grey).astype(np.uint8)
    return "data:image/png;base64," + b64encode(imagecodecs.png_encode(shown, level=9)).decode("ascii")


def _full_range(plane: NDArray[np.generic]) -> NDArray[np.float32]:
    low, high = percentiles(plane, (0.5, 99.8))
    return stretch(plane, low, high, 0, 1)


def outlines(labels: Labels, ids: Ids) -> str:
    """SVG path data of the outlines of `ids` in `labels`, in half pixels, the image's corner at (0, 0).

    An outline runs through the middles of pixel edges, so in half pixels every step is a whole number.

    >>> outlines(np.array([[0, 0, 0], [0, 5, 0], [0, 0, 0]]), np.array([5]))
    'M3 4l-1-1+1-1+1+1z'
    """
    wanted = np.where(np.isin(labels, ids), labels, 0)
    present, ranks = np.unique(wanted, return_inverse=True)
    # Ranks from 1 up: labels may have gaps, and a list of boxes should not.
    ranked = ranks.reshape(labels.shape) + (present[0] > 0)
    data = []
    for number, box in enumerate(ndimage.find_objects(ranked), start=1):
        inside = np.pad(ranked[box] == number, 1)
        corner = np.array([box[0].start - 0.5, box[1].start - 0.5])
        data += [_path(np.rint(2 * (contour + corner)).astype(int)) for contour in find_contours(inside, 0.5)]
    return "".join(data)


def _path(points: NDArray[np.int_]) -> str:
    """A closed polygon (row, column) as a start and relative steps; steps in one direction become one."""
    steps = np.diff(points, axis=0)
    turns = np.flatnonzero((steps[1:] != steps[:-1]).any(axis=1)) + 1
    corners = points[np.concatenate([[0], turns])]
    y, x = corners[0]
    # A sign parts two numbers as well as a space does.
    return f"M{x} {y}l" + "".join(f"{move:+d}" for move in np.diff(corners, axis=0)[:, ::-1].flat) + "z"


def image_element(pixels: Pixels, name: str) -> str:
    """The image as an SVG element of that name; `<use href="#name"/>` shows it again at no cost."""
    height, width = pixels.shape[:2]
    return f'<image id="{name}" href="{picture_data(pixels)}" width="{width}" height="{height}"/>'


def drawing(below: str, shape: tuple[int, int], alt: str, layers: Sequence[tuple[str, str]] = ()) -> str:
    """An `svg` element: the element `below`, and on it `layers` of outlines, (class, path data) each."""
    # Each outline lies on a dark, wider one, so that it shows on any ground.
    paths = [*(("under", data) for _, data in layers), *layers]
    lines = "".join(f'<path class="{name}" d="{data}"/>' for name, data in paths if data)
    # Path data are in half pixels.
    above = f'<g transform="scale(0.5)">{lines}</g>' if lines else ""
    box = f'viewBox="0 0 {shape[1]} {shape[0]}"'
    return f'<svg class="picture" {box} role="img" aria-label="{escape(alt)}">{below}{above}</svg>'
