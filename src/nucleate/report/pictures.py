"""The pictures of a report: for each image a row of image, truth and prediction, and one legend for all."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from nucleate.report.collect import Ids, Picture
from nucleate.report.svg import drawing, image_element, middle, outlines

KINDS = {
    "matched": ("matched at IoU 0.5", "matched at IoU 0.5"),
    "false-positive": ("false positive", "false positives"),
    "missed": ("missed", "missed"),
    "unscored": ("predicted, not scored", "predicted, not scored"),
}
"""Each class of outlines, in the order of the legend, and how one and several are named."""


def legend(pictures: Sequence[Picture]) -> str:
    """The classes of outlines that occur in `pictures`, or "" where there are none."""
    found = [_kinds(picture) for picture in pictures]
    present = [kind for kind in KINDS if any(ids[kind].size for ids in found)]
    keys = "".join(f'<span class="key outline {kind}">{KINDS[kind][0]}</span>' for kind in present)
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
