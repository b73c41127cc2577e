"""CSV: one nucleus a row, lengths in pixels and, where the pixel size is known, in micrometres."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path

from nucleate.io.atomic import atomic
from nucleate.io.axes import uncounted
from nucleate.io.formats.progress import Observe, observed
from nucleate.io.instances import Instances
from nucleate.types import Nucleus

COLUMNS = tuple(field.name for field in fields(Nucleus) if field.name not in ("entropy", "channel_means"))
"""The columns that every table has: id, y, x, area, diameter, mean_intensity, score."""

MICROMETRES = ("y_um", "x_um", "area_um2", "diameter_um")
"""The columns that follow where the pixel size is known; then `mean_intensity_NAME` for each of several channels,
`entropy` where it was asked for, and `novelty`, one for all nuclei of an image, where the model knows it."""


def intensity_columns(channels: Sequence[str]) -> tuple[str, ...]:
    """The names of the columns of the intensities in these channels, all different.

    >>> intensity_columns(("DAPI - c:1/2", "channel 2", "GFP", "GFP"))
    ('mean_intensity_DAPI', 'mean_intensity_channel_2', 'mean_intensity_GFP', 'mean_intensity_GFP_4')
    """
    return tuple(f"mean_intensity_{name}" for name in channel_names(channels))


def channel_names(channels: Sequence[str]) -> tuple[str, ...]:
    """The names of channels as columns have them, all different.

    >>> channel_names(("DAPI - c:1/2", "GFP", "GFP"))
    ('DAPI', 'GFP', 'GFP_3')
    """
    found: list[str] = []
    for number, name in enumerate(channels, start=1):
        column = re.sub(r"\W+", "_", uncounted(name)).strip("_") or str(number)
        found.append(f"{column}_{number}" if column in found else column)
    return tuple(found)


def write(path: Path, nuclei: Instances, observe: Observe | None = None) -> None:
    """Write the table of all nuclei, in the order of their numbers.

    `y` and `x` are the mean of the nucleus' pixels, counted from the middle of the first pixel of the whole segmented
    level, also where only a region of it was segmented; `y_um` and `x_um` are the same in micrometres.
    """
    names, rows = header_and_rows(nuclei)
    with atomic(path) as file:
        lines = csv.writer(codecs.getwriter("utf-8")(file), lineterminator="\n")
        lines.writerow(names)
        lines.writerows(observed(rows, nuclei.count, observe))


def header_and_rows(nuclei: Instances) -> tuple[tuple[str, ...], Iterator[list[float | int]]]:
    """The names of the columns, and the values of each nucleus; what is measured besides comes last."""
    more = nuclei.further
    found: Iterator[tuple[Nucleus, Sequence[float]]]
    if more is None:
        found = ((one, ()) for one in nuclei.measurements())
    else:
        found = ((one.nucleus, more(one)) for one in nuclei)
    first = next(found, None)
    entropy = first is not None and first[0].entropy is not None
    size = MICROMETRES if nuclei.pixel_size else ()
    last = [*(["entropy"] if entropy else []), *(["novelty"] if nuclei.novelty is not None else [])]
    names = (*COLUMNS, *size, *intensity_columns(nuclei.channels), *last, *(more.columns if more else ()))
    every = chain(() if first is None else (first,), found)
    return names, ([*_row(one, nuclei), *values] for one, values in every)


def _row(nucleus: Nucleus, nuclei: Instances) -> list[float | int]:
    y, x = (round(place + begin, 3) for place, begin in zip((nucleus.y, nucleus.x), nuclei.origin, strict=True))
    row = [nucleus.id, y, x, nucleus.area, nucleus.diameter, nucleus.mean_intensity, nucleus.score]
    size = nuclei.pixel_size
    if size:
        row += [round(value, 4) for value in (y * size, x * size, nucleus.area * size**2, nucleus.diameter * size)]
    row += nucleus.channel_means
    if nucleus.entropy is not None:
        row.append(nucleus.entropy)
    if nuclei.novelty is not None:
        row.append(nuclei.novelty)
    return row
