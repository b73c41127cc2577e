"""The pictures of a report: image, truth and prediction of each image in a row, and one legend for all.

A picture is inline SVG: the image is a PNG inside the page, the outlines are vectors.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from itertools import pairwise

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleate.data.normalization import percentiles, stretch
from nucleate.io.formats.polygons import Ring, trace
from nucleate.report.collect import Ids, Picture
from nucleate.types import Labels, Pixels

KINDS = {
    "matched": ("matched at IoU 0.5", "matched at IoU 0.5"),
    "false-positive": ("false positive", "false positives"),
    "missed": ("missed", "missed"),
    "unscored": ("predicted, not scored", "predicted, not scored"),
}
"""Each class of outlines, in the order of the legend, and how one and several are named."""

SIDE = 512
"""Pixels: of a larger image the middle SIDE x SIDE is shown, where a nucleus can still be told from its neighbour."""


def legend(pictures: Sequence[Picture]) -> str:
    """The classes of outlines that occur in `pictures`, or "" where there are none."""
    found = [_kinds(picture) for picture in pictures]
    present = [kind for kind in KINDS if any(ids[kind].size for ids in found)]
    keys = "".join(f'<span class="key {kind}">{KINDS[kind][0]}</span>' for kind in present)
    return f'<p class="legend">{keys}</p>\n' if keys else ""


def article(picture: Picture, number: int) -> str:
    """A row of image, truth and prediction. The image is in the page once; the others point to it by `number`."""
    height, width = picture.pixels.shape[:2]
    part = middle(height, width)
    predicted = picture.predicted[part]
    shape, again = predicted.shape, f'<use href="#image-{number}"/>'
    kinds = _kinds(picture)
    counts = ", ".join(f"{ids.size:,} {KINDS[kind][ids.size != 1]}" for kind, ids in kinds.items() if ids.size)
    counts = counts or "no nuclei"
    image = image_element(picture.pixels[part], f"image-{number}")
    figures = {"Image": drawing(image, shape, f"Image {picture.name}")}
    missed: list[tuple[str, str]] = []
    if picture.truth is not None:
        truth = picture.truth[part]
        found = np.setdiff1d(picture.truth[picture.truth > 0], picture.missed)
        missed = [("missed", outlines(truth, picture.missed))]
        alt = f"True outlines of {picture.name}: {found.size:,} found, {picture.missed.size:,} missed"
        figures["Truth"] = drawing(again, shape, alt, [("matched", outlines(truth, found)), *missed])
    layers = [(kind, outlines(predicted, kinds[kind])) for kind in ("unscored", "matched", "false-positive")]
    alt = f"Predicted outlines of {picture.name}: {counts}"
    figures["Prediction"] = drawing(again, shape, alt, [*layers, *missed])
    notes = [escape(picture.caption), counts]
    if shape != (height, width):
        notes.append(f"shown: the middle {shape[1]} × {shape[0]} of {width} × {height} pixels")
    row = "".join(f"<figure>{svg}<figcaption>{title}</figcaption></figure>" for title, svg in figures.items())
    about = " · ".join(note for note in notes if note)
    return f'<article><h3>{escape(picture.name)}</h3><p>{about}</p><div class="row">{row}</div></article>'


def _kinds(picture: Picture) -> dict[str, Ids]:
    """The ids of each class, in the order of `KINDS`."""
    scored = np.concatenate([picture.matched, picture.false_positive])
    return {
        "matched": picture.matched,
        "false-positive": picture.false_positive,
        "missed": picture.missed,
        "unscored": np.setdiff1d(picture.predicted[picture.predicted > 0], scored),
    }


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
    """SVG path data of the outlines of `ids` in `labels`, along the edges of pixels.

    >>> outlines(np.array([[0, 0, 0], [0, 5, 0], [0, 0, 0]]), np.array([5]))
    'M1 1h1v1h-1z'
    """
    wanted = np.where(np.isin(labels, ids), labels, 0)
    present, ranks = np.unique(wanted, return_inverse=True)
    # Ranks from 1 up: labels may have gaps, and a list of boxes should not.
    ranked = ranks.reshape(labels.shape) + (present[0] > 0)
    return "".join(
        _path(ring, box[0].start, box[1].start)
        for number, box in enumerate(ndimage.find_objects(ranked), start=1)
        for polygon in trace(ranked[box] == number)
        for ring in polygon
    )


def _path(ring: Ring, top: int, left: int) -> str:
    """A ring as its first corner and steps along rows (h) and columns (v); the last step is in the closing."""
    lines = (f"h{u - x}" if v == y else f"v{v - y}" for (x, y), (u, v) in pairwise(ring))
    return f"M{left + ring[0][0]} {top + ring[0][1]}{''.join(lines)}z"


def image_element(pixels: Pixels, name: str) -> str:
    """The image as an SVG element of that name; `<use href="#name"/>` shows it again at no cost."""
    height, width = pixels.shape[:2]
    return f'<image id="{name}" href="{picture_data(pixels)}" width="{width}" height="{height}"/>'


def drawing(below: str, shape: tuple[int, int], alt: str, layers: Sequence[tuple[str, str]] = ()) -> str:
    """An `svg` element: the element `below`, and on it `layers` of outlines, (class, path data) each."""
    # Each outline lies on a dark, wider one, so that it shows on any ground.
    paths = [*(("under", data) for _, data in layers), *layers]
    lines = "".join(f'<path class="{name}" d="{data}"/>' for name, data in paths if data)
    box = f'viewBox="0 0 {shape[1]} {shape[0]}"'
    return f'<svg class="picture" {box} role="img" aria-label="{escape(alt)}">{below}{lines}</svg>'
