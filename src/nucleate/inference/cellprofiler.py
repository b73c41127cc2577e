"""What `--format cellprofiler` measures of each nucleus, and the tables of a whole run.

Names and values are those of CellProfiler 4's modules MeasureObjectSizeShape and MeasureObjectIntensity on the label
image (Stirling et al., CellProfiler 4: improvements in speed, utility and usability, BMC Bioinformatics 2021), which
takes shapes from scikit-image, in pixels counted from the label image's own first one, and intensities from 0 to 1:
whole numbers are divided by the largest one of their type.
"""

from __future__ import annotations

import codecs
import csv
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import regionprops

from nucleate.errors import OutputError
from nucleate.inference.sources import Source
from nucleate.inference.summary import Failed, ImageResult
from nucleate.io.atomic import atomic
from nucleate.io.base import Reader
from nucleate.io.formats import FORMATS
from nucleate.io.formats.cellprofiler import IMAGE, OBJECTS
from nucleate.io.formats.table import channel_names
from nucleate.io.instances import Instance
from nucleate.io.prediction_json import relative_to
from nucleate.types import Box

IMAGE_TABLE, OBJECT_TABLE = "CellProfiler_Image.csv", f"CellProfiler_{OBJECTS}.csv"
"""The tables of a run: one row an image, which CellProfiler's LoadData reads, and one row a nucleus."""

SHAPE = {
    "Area": "area",
    "BoundingBoxArea": "area_bbox",
    "Eccentricity": "eccentricity",
    "EquivalentDiameter": "equivalent_diameter_area",
    "EulerNumber": "euler_number",
    "Extent": "extent",
    "MajorAxisLength": "axis_major_length",
    "MinorAxisLength": "axis_minor_length",
    "Perimeter": "perimeter",
    "Solidity": "solidity",
}
"""Of CellProfiler's names those that are a property of scikit-image's."""

PLACES = ("Center_X", "Center_Y", *(f"BoundingBox{end}_{axis}" for end in ("Minimum", "Maximum") for axis in "XY"))
INTENSITY = ("IntegratedIntensity", "MeanIntensity", "StdIntensity", "MinIntensity", "MaxIntensity")


class CellProfilerMeasurements:
    """The columns of the nuclei of one image.

    Args:
        reader: the image, from which the pixels of each nucleus are read.
        origin: (y, x) of the region that was segmented, from which boxes count.
    """

    def __init__(self, reader: Reader, origin: tuple[int, int]) -> None:
        self._reader, self._origin = reader, origin
        self._largest = float(np.iinfo(reader.dtype.name).max) if reader.dtype.kind in "ui" else 1.0
        shape = (*SHAPE, "FormFactor", "Orientation", *PLACES)
        self.columns = (
            "Location_Center_X",
            "Location_Center_Y",
            *(f"AreaShape_{name}" for name in shape),
            *(f"Intensity_{name}_{channel}" for channel in channel_names(reader.channels) for name in INTENSITY),
        )

    def __call__(self, found: Instance) -> Sequence[float]:
        """The values of one nucleus, in the order of `columns`."""
        box = found.box
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a nucleus that is a line, whose convex hull is itself
            (region,) = regionprops(found.mask.astype(np.uint8))
            shape = [float(region[name]) for name in SHAPE.values()]
        y, x = (centre + begin for centre, begin in zip(region.centroid, (box.y, box.x), strict=True))
        form = 4 * math.pi * region.area / region.perimeter**2 if region.perimeter else math.inf
        place = (x, y, box.x, box.y, box.right, box.bottom)
        pixels = self._reader.read(Box(box.y + self._origin[0], box.x + self._origin[1], *box.shape))[found.mask]
        numbers = pixels.astype(np.float64) / self._largest
        intensity = np.stack([getattr(numbers, of)(axis=0) for of in ("sum", "mean", "std", "min", "max")], axis=1)
        return [x, y, *shape, form, math.degrees(region.orientation), *place, *intensity.ravel().tolist()]


def refuse_others(out: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` where the tables of a run would replace what is none: their first column tells."""
    for path in () if overwrite else (out / IMAGE_TABLE, out / OBJECT_TABLE):
        try:
            ours = path.read_bytes()[: len(IMAGE)] == IMAGE.encode() if path.exists() else True
        except OSError:
            ours = False
        if not ours:
            raise OutputError(
                f"{path} is there already and is no table of CellProfiler's: choose another --out, or replace it with"
                " --overwrite."
            )


def write_tables(images: Sequence[Source], results: Mapping[str, ImageResult], out: Path) -> None:
    """Write the tables of a run, from those of its images; those that are done are numbered from 1 in their order."""
    done = [(one, result.count) for one in images if not isinstance(result := results[one.name], Failed)]
    tables = [one.folder(out) / FORMATS["cellprofiler"].file(one.stem) for one, _ in done]
    heads = [next(_rows(path)) for path in tables]
    found = zip(done, heads, strict=True)
    places = [_image_row(number, source, nuclei, head, out) for number, ((source, nuclei), head) in enumerate(found, 1)]
    _write(out / IMAGE_TABLE, places, places)
    numbered = (row | {IMAGE: n} for n, path in enumerate(tables, 1) for row in islice(_rows(path), 1, None))
    _write(out / OBJECT_TABLE, heads, numbered)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The names of the columns, each with its own, then the rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        yield {name: name for name in rows.fieldnames or ()}
        yield from rows


def _image_row(number: int, source: Source, nuclei: int, head: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """What CellProfiler's LoadData needs of an image: where it and its labels are, as seen from `out`."""
    mean = "Intensity_MeanIntensity_"
    row: dict[str, Any] = {IMAGE: number, f"Count_{OBJECTS}": nuclei}
    for channel in (name.removeprefix(mean) for name in head if name.startswith(mean)):
        row |= {f"FileName_{channel}": source.path.name, f"PathName_{channel}": _place(source.path, out)}
    labels = source.folder(out) / FORMATS["tif"].file(source.stem)
    return row | {f"ObjectsFileName_{OBJECTS}": labels.name, f"ObjectsPathName_{OBJECTS}": _place(labels, out)}


def _place(file: Path, out: Path) -> str:
    folder = file.resolve().parent
    return relative_to(out, folder) or str(folder)  # another drive has no way from here


def _write(path: Path, heads: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table with the columns of all heads; one that a row has not is empty there."""
    with atomic(path) as file:
        names = dict.fromkeys([IMAGE, *(name for head in heads for name in head)])
        lines = csv.DictWriter(codecs.getwriter("utf-8")(file), [*names], restval="", lineterminator="\n")
        lines.writeheader()
        lines.writerows(rows)
