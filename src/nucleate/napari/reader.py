"""What `nucleate predict` wrote, as layers: the labels with their measurements, and the image that they were found in.

Which files belong together is read from NAME.json beside them. A corrected label image is opened without the
measurements, which are those of the nuclei before.
"""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.errors import InputError, NucleateError, NucleateWarning
from nucleate.io.axes import name_of
from nucleate.io.label_file import read_labels, was_changed
from nucleate.io.prediction_json import PredictionRecord, read_record, record_file
from nucleate.io.reader import open_reader, unmarked
from nucleate.napari.samples import LayerData, picture
from nucleate.types import Box

LABELS = ("tif", "zarr")
"""The formats that can be opened, the first one that is there."""


def get_reader(path: str | Sequence[str]) -> Callable[[str], list[LayerData]] | None:
    """`read`, where it can read a path; None of anything else, which is left to other readers.

    Args:
        path: NAME_labels.tif or NAME_labels.zarr with NAME.json beside it, or NAME.json itself.
    """
    if not isinstance(path, (str, os.PathLike)):
        return None
    try:
        return None if _record(Path(path)) is None else read
    except InputError:
        return None


def read(path: str) -> list[LayerData]:
    """The layers of a result: of NAME.json the image, if it is there still, and the labels; of labels these alone.

    Both lie where they do in the whole image at full resolution, in its pixels, whatever level or region was segmented.
    The table of measurements, NAME.csv, gives the features of the labels, a row a nucleus.

    Raises:
        InputError: a file is missing, broken, or too large to be opened as a whole.
    """
    where = Path(path)
    record = _record(where)
    if record is None:
        raise InputError(f"{where} is no result of nucleate predict: open NAME_labels.tif with NAME.json beside it.")
    folder, file = where.parent, where.name
    if file not in record.files.values():
        file = next((record.files[kind] for kind in LABELS if kind in record.files), "")
        if not file:
            raise InputError(f"{where} names no label image: run nucleate predict again with --format tif,csv.")
    place = {
        "scale": (record.downsample, record.downsample),
        # The middle of a pixel that spans several lies between those of the whole image.
        "translate": tuple((begin + 0.5) * record.downsample - 0.5 for begin in record.origin),
        "metadata": {"pixel size in micrometres": record.pixel_size, "notes": record.notes},
    }
    labels = read_labels(folder / file)
    features = None if was_changed(folder / file) else _features(folder, record)
    options = {**place, "name": f"{where.stem} nuclei" if file != where.name else name_of(where), "features": features}
    found: list[LayerData] = [(labels, options, "labels")]
    return found if where.name == file else [*_image(folder, record, place), *found]


def _record(path: Path) -> PredictionRecord | None:
    """The record of a result, where the path is one."""
    if path.suffix == ".json":
        return read_record(path)
    beside = path.with_name(record_file(unmarked(name_of(path))))
    record = read_record(beside) if beside.is_file() else None
    named = () if record is None else [record.files.get(kind) for kind in LABELS]
    return record if path.name in named else None


def _image(folder: Path, record: PredictionRecord, place: dict[str, Any]) -> list[LayerData]:
    """The part of the image that was segmented; nothing where it cannot be read, which is said."""
    try:
        image = record.locate(folder)
        with open_reader(image, record.level, plane=record.plane) as reader:
            pixels = reader.read(Box(*record.origin, *record.shape))
            return [picture(pixels, {**place, "name": reader.name})]
    except NucleateError as error:
        warnings.warn(NucleateWarning(f"The labels are opened without their image: {error}"), stacklevel=2)
        return []


def _features(folder: Path, record: PredictionRecord) -> dict[str, Any] | None:
    """The measurements, with the label of each row under `index`, as napari has it."""
    table = folder / record.files.get("csv", "")
    if "csv" not in record.files or not table.is_file() or was_changed(table):
        return None
    with table.open(encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
    columns = {name: np.array(column, float) for name, column in zip(names, zip(*rows, strict=True), strict=False)}
    if not columns:
        return None
    return {"index": columns.pop("id").astype(int), **columns}
