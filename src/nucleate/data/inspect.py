"""A look through a folder of images before time is spent on it: what is there, and what is odd."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text
from skimage import measure

from nucleate.data.dataset import find
from nucleate.errors import ImageError
from nucleate.io.axes import RGB
from nucleate.io.reader import read_image, read_labels
from nucleate.types import Image, Labels, Sample

_SMALL = 10  # pixels; below it a nucleus is more likely a slip of the brush
_SATURATED = 0.05
_LISTED = 30  # a folder of more images is summed up

Range = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ImageReport:
    """One image. `nuclei` is None without a readable mask; `diameters` are 5th, 50th and 95th percentile, in pixels.

    A diameter is 2 sqrt(area / pi), that of a disc of the same area. `pixel_size` is in micrometres.
    """

    name: str
    file: str
    width: int
    height: int
    channels: tuple[str, ...]
    dtype: str
    pixel_size: float | None
    labelled: bool
    nuclei: int | None
    diameters: Range | None
    oddities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FolderReport:
    """A folder: its readable images, one sentence for each unreadable one, and what is odd about them together."""

    folder: str
    layout: str
    images: tuple[ImageReport, ...]
    unreadable: tuple[str, ...]
    nuclei: int
    diameters: Range | None
    oddities: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is odd or unreadable."""
        return not (self.unreadable or self.oddities or any(image.oddities for image in self.images))


def inspect(folder: Path) -> FolderReport:
    """Read every image and mask of a folder and report on them.

    An unreadable file is reported, not raised; `DatasetError` is raised where `nucleate.data.dataset.find` does.
    The report is JSON-able through `dataclasses.asdict`.
    """
    dataset = find(folder)
    reports, unreadable, areas = [], [], []
    copies: dict[str, list[str]] = defaultdict(list)
    for sample in sorted((*dataset.labelled, *dataset.unlabelled), key=lambda sample: sample.name):
        try:
            image = read_image(sample.image)
        except ImageError as error:
            unreadable.append(str(error))
            continue
        copies[_digest(image)].append(sample.name)
        report, area = _inspect_image(sample, image)
        reports.append(report)
        areas.append(area)
    every = np.concatenate(areas) if areas else np.zeros(0, np.int64)
    oddities = [
        *_mixed("channels", (" + ".join(report.channels) for report in reports)),
        *_mixed("types of number", (report.dtype for report in reports)),
        *(f"{', '.join(names)} are the same file." for names in copies.values() if len(names) > 1),
    ]
    return FolderReport(
        folder=str(folder),
        layout=dataset.layout,
        images=tuple(reports),
        unreadable=tuple(unreadable),
        nuclei=every.size,
        diameters=_diameters(every),
        oddities=tuple(oddities),
    )


def render(report: FolderReport, console: Console) -> None:
    """Print a report: what is there, each image of a small folder, then what is odd."""
    console.print(_summary(report))
    if len(report.images) <= _LISTED:
        console.print(_each(report))
    if report.sound:
        console.print("Nothing odd was found.")
        return
    table = Table(title="What is odd", title_justify="left", show_header=False)
    for sentence in (*report.unreadable, *report.oddities):
        table.add_row("", Text(sentence))
    for image in report.images:
        for sentence in image.oddities:
            table.add_row(Text(image.name), Text(sentence))
    console.print(table)


def _inspect_image(sample: Sample, image: Image) -> tuple[ImageReport, NDArray[np.int64]]:
    """The report on an image, and the areas of its nuclei."""
    height, width = image.pixels.shape[:2]
    oddities = _image_oddities(image)
    areas, readable = np.zeros(0, np.int64), False
    if sample.mask is not None:
        try:
            labels = read_labels(sample.mask, (height, width))
            readable = True
        except ImageError as error:
            oddities.append(str(error))
        else:
            if labels.shape != (height, width):
                oddities.append(
                    f"The image is {width} x {height} pixels and its mask {labels.shape[1]} x {labels.shape[0]}."
                )
            areas, found = _mask_oddities(labels)
            oddities += found
    report = ImageReport(
        name=sample.name,
        file=str(sample.image),
        width=width,
        height=height,
        channels=image.channels,
        dtype=image.pixels.dtype.name,
        pixel_size=image.pixel_size,
        labelled=sample.mask is not None,
        nuclei=areas.size if readable else None,
        diameters=_diameters(areas),
        oddities=tuple(oddities),
    )
    return report, areas


def _digest(image: Image) -> str:
    """The same for the same file; for the same pixels, where an image is a folder."""
    whole = image.path.read_bytes() if image.path is not None and image.path.is_file() else image.pixels.tobytes()
    return hashlib.sha256(whole).hexdigest()


def _image_oddities(image: Image) -> list[str]:
    pixels = image.pixels
    if pixels.shape[:2] == (1, 1):
        return ["The image is a single pixel."]
    if (pixels == pixels[:1, :1]).all():
        return [f"The image is constant: every pixel is {', '.join(str(value) for value in pixels[0, 0])}."]
    oddities = []
    if image.channels != RGB:  # the white ground of stained tissue is at the maximum by right
        for channel, name in enumerate(image.channels):
            plane = pixels[..., channel]
            part = float(np.mean(plane == plane.max()))
            if _SATURATED < part < 1:
                oddities.append(f"{part:.0%} of {name} is at its maximum, {plane.max()}: the exposure may be too long.")
    return oddities


def _mask_oddities(labels: Labels) -> tuple[NDArray[np.int64], list[str]]:
    """The areas of the nuclei, and what is odd about them."""
    numbers, areas = np.unique(labels[labels > 0], return_counts=True)
    if numbers.size == 0:
        return areas, ["The mask has no nucleus."]
    pieces = measure.label(labels * (labels > 0), connectivity=2)
    oddities = []
    if numbers.size == 1 and (numbers[0] == 255 or pieces.max() > 1):
        oddities.append(
            f"The mask has the single value {numbers[0]} in {_count(int(pieces.max()), 'piece')}: it tells nucleus from"
            " background, not one nucleus from the next."
        )
    elif scattered := _scattered(labels, pieces):
        oddities.append(
            f"{_count(scattered, 'nucleus', 'nuclei')} in pieces far apart: give each piece a number of its own."
        )
    if small := int((areas < _SMALL).sum()):
        oddities.append(f"{_count(small, 'nucleus', 'nuclei')} of fewer than {_SMALL} pixels.")
    return areas, oddities


def _scattered(labels: Labels, pieces: NDArray[np.int64]) -> int:
    """How many nuclei have a piece whose centre is more than the nucleus's diameter from the largest piece's centre."""
    regions = measure.regionprops(pieces)
    owner: dict[int, list[tuple[float, NDArray[np.float64]]]] = defaultdict(list)
    for region in regions:
        owner[int(labels[tuple(region.coords[0])])].append((float(region.area), np.asarray(region.centroid)))
    scattered = 0
    for parts in owner.values():
        diameter = 2 * np.sqrt(sum(area for area, _ in parts) / np.pi)
        largest = max(parts, key=lambda part: part[0])[1]
        scattered += any(np.linalg.norm(centre - largest) > diameter for _, centre in parts)
    return scattered


def _diameters(areas: NDArray[np.int64]) -> Range | None:
    if areas.size == 0:
        return None
    low, middle, high = np.percentile(2 * np.sqrt(areas / np.pi), (5, 50, 95))
    return float(low), float(middle), float(high)


def _mixed(what: str, values: Iterable[str]) -> list[str]:
    counts = Counter(values).most_common()
    if len(counts) < 2:
        return []
    parts = ", ".join(f"{_count(number, 'image')} of {value}" for value, number in counts)
    return [f"The folder mixes {what}: {parts}."]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _summary(report: FolderReport) -> Table:
    images = report.images
    labelled = sum(image.labelled for image in images)
    table = Table(title=Text(report.folder), title_justify="left", show_header=False)
    table.add_row("layout", report.layout)
    table.add_row("images", f"{len(images)}: {labelled} labelled, {len(images) - labelled} unlabelled")
    if report.unreadable:
        table.add_row("unreadable", str(len(report.unreadable)))
    if images:
        table.add_row("sizes", _sizes(images))
        table.add_row("channels", Text(_several(" + ".join(image.channels) for image in images)))
        table.add_row("type", _several(image.dtype for image in images))
        table.add_row("pixel size", _several(_micrometres(image.pixel_size) for image in images))
    table.add_row("nuclei", str(report.nuclei))
    if report.diameters:
        table.add_row("diameter", f"{_range(report.diameters)} pixels (5, 50, 95 %)")
    return table


def _each(report: FolderReport) -> Table:
    table = Table()
    for heading in ("image", "size", "channels", "type", "pixel size", "nuclei", "diameter"):
        # A name that is cut short names nothing: it goes on in the next line.
        table.add_column(heading, overflow="fold")
    for image in report.images:
        table.add_row(
            Text(image.name),
            _size(image),
            Text(" + ".join(image.channels)),
            image.dtype,
            _micrometres(image.pixel_size),
            "unlabelled" if not image.labelled else "?" if image.nuclei is None else str(image.nuclei),
            _range(image.diameters) if image.diameters else "",
        )
    return table


def _several(values: Iterable[str]) -> str:
    """Each value once; the first four of many."""
    distinct = sorted(set(values))
    return ", ".join(distinct[:4]) + (" ..." if len(distinct) > 4 else "")


def _size(image: ImageReport) -> str:
    return f"{image.width} x {image.height}"


def _sizes(images: Sequence[ImageReport]) -> str:
    ordered = sorted(images, key=lambda image: image.width * image.height)
    smallest, largest = _size(ordered[0]), _size(ordered[-1])
    return smallest if len(set(map(_size, images))) == 1 else f"{smallest} to {largest}"


def _micrometres(pixel_size: float | None) -> str:
    return "not given" if pixel_size is None else f"{pixel_size:.4g} µm"


def _range(values: Range) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
