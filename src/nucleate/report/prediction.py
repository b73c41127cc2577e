"""The report of a prediction: counts, sizes and intensities of the nuclei of each image and of all, a contact sheet
with their outlines, and what failed; from what `nucleate predict` left in its folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nucleate.data.dataset import images_in
from nucleate.data.predictions import GIVE, RESUME, contents_of, some
from nucleate.errors import InputError, NucleateError
from nucleate.io.label_file import read_labels
from nucleate.io.prediction_json import PredictionRecord, is_unlike, read_record
from nucleate.io.reader import open_reader
from nucleate.report.collect import Value
from nucleate.report.html import document, facts, section, shown
from nucleate.report.pictures import SIDE, drawing, image_element, middle, outlines
from nucleate.report.plots import histogram_svg
from nucleate.sentences import count
from nucleate.types import Box, Labels, Pixels

PICTURES = 48
"""Images on the contact sheet; of more, some that lie evenly among them."""

BINS = 24
"""Of a histogram."""

_SPARK = 120, 28  # width and height of the histogram of one image, in pixels of the page

_STYLE = """
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr)); gap: 20px; }
.sheet figcaption { margin-top: 6px; color: var(--quiet); font-size: 0.875rem; }
.spark { width: 120px; height: 28px; display: inline-block; }
.spark path { fill: var(--train); }
td.note { white-space: normal; min-width: 16em; text-align: left; font-size: 0.875rem; }
.notes { margin: 0; padding-left: 20px; }
"""

Numbers = NDArray[np.float64]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One image of the folder: its record, what its table says of the nuclei (empty without a table), in micrometres
    and in pixels, and where its files lie."""

    name: str
    folder: Path
    record: PredictionRecord
    diameters: Numbers
    diameters_um: Numbers
    intensities: Numbers


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """One measurement of the nuclei: its name, its unit, and its values by image."""

    name: str
    unit: str
    values: list[Numbers]

    @property
    def edges(self) -> Numbers:
        """Of the bins of all histograms, which so have one range."""
        return np.histogram_bin_edges(np.concatenate(self.values), BINS)


def prediction_report(folder: Path) -> str:
    """The report as one HTML page, which needs nothing else: no network, no script.

    Images that lie beside those that were segmented and have no result here are tried, and why they cannot be read is
    said.

    Raises:
        InputError: the folder holds no prediction, or its tables cannot be read.
    """
    paths, unfinished = contents_of(folder)
    found, failed = list[Found](), list[str]()
    for path in paths:
        try:
            record = read_record(path)
        except InputError as error:
            failed.append(str(error))
            continue
        if record is not None:
            found.append(_found(path.relative_to(folder).with_suffix("").as_posix(), path.parent, record))
    if not found:
        raise InputError(failed[0] if failed else f"{folder} holds no prediction: {GIVE}.")
    if unfinished:
        failed.append(f"Not finished: {some(unfinished)}; {RESUME}.")
    failed += _without_result(found)
    size, light = _diameters(found), Measure("Mean intensity", "grey levels", [one.intensities for one in found])
    every = np.concatenate(size.values)
    parts = [
        facts(_facts(found)),
        section("All nuclei", _charts(size, light)) if every.size else "",
        section("Images", _table(found, size, light)),
        section("Contact sheet", _sheet(found[:: -(-len(found) // PICTURES)], len(found))),
        section("What failed", _list(failed)) if failed else "",
    ]
    headline: list[tuple[str, Value]] = [("Nuclei", sum(one.record.count for one in found)), ("Images", len(found))]
    headline += [(f"Median diameter ({size.unit})", float(np.median(every)))] if every.size else []
    headline += [("Failed", len(failed))] if failed else []
    title = "Nucleate: nuclei that were found"
    return document(title, _summary(found), headline, [one for one in parts if one], _STYLE)


def _found(name: str, folder: Path, record: PredictionRecord) -> Found:
    columns: dict[str, list[float]] = {"diameter": [], "diameter_um": [], "mean_intensity": []}
    table = folder / record.files["csv"] if "csv" in record.files else None
    if table is not None and table.exists():
        try:
            with table.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    for column, values in columns.items():
                        if row.get(column):
                            values.append(float(row[column]))
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{table} cannot be read as a table ({error}): run nucleate predict again.") from error
    return Found(name, folder, record, *(np.array(values, np.float64) for values in columns.values()))


def _diameters(found: Sequence[Found]) -> Measure:
    """In micrometres where all images have a pixel size, else in pixels."""
    if all(one.diameters_um.size == one.diameters.size for one in found):
        return Measure("Diameter", "µm", [one.diameters_um for one in found])
    return Measure("Diameter", "pixels", [one.diameters for one in found])


def _without_result(found: Sequence[Found]) -> list[str]:
    """A sentence for each image that lies beside those that were segmented and has no result."""
    done = {one.record.locate(one.folder).resolve() for one in found}
    sentences = []
    for folder in sorted({image.parent for image in done}):
        with suppress(NucleateError, OSError):
            sentences += [_why_not(image) for image in images_in([folder]) if image.resolve() not in done]
    return sentences


def _why_not(image: Path) -> str:
    try:
        open_reader(image).close()
    except NucleateError as error:
        return str(error)
    return f"{image} has no result here: {RESUME}."


def _facts(found: Sequence[Found]) -> list[tuple[str, Value]]:
    """What all images have in common."""
    known: list[tuple[str, Value]] = []
    if engines := sorted({one.record.environment.engine for one in found if one.record.environment is not None}):
        known.append(("Engine", ", ".join(engines)))
    sizes = {one.record.pixel_size for one in found}
    rest = ", some not known" if None in sizes and len(sizes) > 1 else ""
    listed = ", ".join(f"{size:.4g}" for size in sorted(size for size in sizes if size is not None)[:4])
    known.append(("Pixel size (µm)", (listed or "not known") + rest))
    if unlike := [one.name for one in found if is_unlike(one.record.novelty)]:
        known.append(("Unlike the training images", f"{count(len(unlike), 'image')}: {some(unlike)}"))
    return known


def _summary(found: Sequence[Found]) -> str:
    empty = [one.name for one in found if not one.record.count]
    said = f"No nucleus was found in {count(len(empty), 'image')}: {some(empty)}." if empty else ""
    tables = sum(one.record.count > one.diameters.size for one in found)
    without = (
        f" {count(tables, 'image')} without a table: sizes and intensities are those of the others." if tables else ""
    )
    return (said + without).strip()


def _charts(*measures: Measure) -> str:
    known = [(one, np.concatenate(one.values)) for one in measures]
    charts = [histogram_svg(one.name, one.unit, values, one.edges) for one, values in known if values.size]
    return '<div class="charts">' + "".join(f"<figure>{chart}</figure>" for chart in charts) + "</div>"


def _table(found: Sequence[Found], *measures: Measure) -> str:
    names = ["Image", "Nuclei"]
    for measure in measures:
        names += [f"{measure.name} ({measure.unit})", "5 to 95 %", "All"]
    noted = any(one.record.notes for one in found)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names + ["Notes"] * noted)
    rows = []
    for number, one in enumerate(found):
        cells = [shown(one.record.count), *(cell for measure in measures for cell in _cells(measure, number, one.name))]
        last = f'<td class="note">{shown(" ".join(one.record.notes))}</td>' if noted else ""
        told = "".join(f"<td>{cell}</td>" for cell in cells) + last
        rows.append(f'<tr><th scope="row">{shown(one.name)}</th>{told}</tr>\n')
    caption = "Each image: medians, ranges, and histograms from the lowest to the highest value of all images"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cells(measure: Measure, number: int, name: str) -> tuple[str, str, str]:
    """Median, range and histogram of one image."""
    values = measure.values[number]
    if not values.size:
        return "–", "–", ""
    low, middle, high = (shown(float(one)) for one in np.percentile(values, (5, 50, 95)))
    return middle, f"{low} to {high}", _spark(values, measure.edges, f"{measure.name} in {name}")


def _spark(values: Numbers, edges: Numbers, alt: str) -> str:
    """A small histogram as an `svg` element; its highest bar is as high as the picture."""
    counts, (width, height) = np.histogram(values, edges)[0], _SPARK
    step = width / counts.size
    bars = "".join(
        f"M{step * n:.4g} {height}v{-height * part:.4g}h{0.9 * step:.4g}v{height * part:.4g}z"
        for n, part in enumerate(counts / counts.max())
        if part
    )
    box = f'viewBox="0 0 {width} {height}"'
    return f'<svg class="spark" {box} role="img" aria-label="{escape(alt)}"><path d="{bars}"/></svg>'


def _sheet(found: Sequence[Found], total: int) -> str:
    figures = "".join(_figure(one, number) for number, one in enumerate(found, start=1))
    said = f"<p>{len(found)} of {count(total, 'image')}.</p>" if len(found) < total else ""
    return f'{said}<div class="sheet">{figures}</div>'


def _figure(one: Found, number: int) -> str:
    """The middle of an image with the outlines of its nuclei."""
    rows, columns = middle(*one.record.shape)
    box = Box(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
    problems = list[str]()
    pixels = _tried(lambda: _pixels(one, box), problems)
    labels = _tried(lambda: _labels(one, box), problems)
    said = [count(one.record.count, "nucleus", "nuclei"), *map(escape, problems)]
    if max(one.record.shape) > SIDE:
        said.append(f"the middle {box.width} × {box.height} of {one.record.shape[1]} × {one.record.shape[0]} pixels")
    ground = pixels if pixels is not None else np.zeros((*box.shape, 1), np.uint8)
    layers = [] if labels is None else [("unscored", outlines(labels, np.unique(labels[labels > 0])))]
    svg = drawing(image_element(ground, f"image-{number}"), box.shape, f"Outlines of the nuclei of {one.name}", layers)
    return f"<figure>{svg}<figcaption><b>{escape(one.name)}</b><br>{' · '.join(said)}</figcaption></figure>"


def _tried(read: Callable[[], _T], problems: list[str]) -> _T | None:
    try:
        return read()
    except (NucleateError, OSError) as error:
        problems.append(str(error))
        return None


def _pixels(one: Found, box: Box) -> Pixels:
    record, (y, x) = one.record, one.record.origin
    with closing(open_reader(record.locate(one.folder), record.level, plane=record.plane)) as reader:
        return reader.read(Box(y + box.y, x + box.x, box.height, box.width))


def _labels(one: Found, box: Box) -> Labels | None:
    """The labels of a box, from the format that is read most easily; None where only a table was written."""
    kinds = [kind for kind in ("tif", "zarr", "geojson", "roi") if kind in one.record.files]
    if not kinds:
        return None
    path = one.folder / one.record.files[kinds[0]]
    if kinds[0] in ("tif", "zarr"):
        with closing(open_reader(path, labels=True)) as reader:
            return np.asarray(reader.read(box)[..., 0], np.int32)
    return read_labels(path)[box.y : box.bottom, box.x : box.right]


def _list(sentences: Sequence[str]) -> str:
    return '<ul class="notes">' + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>"
