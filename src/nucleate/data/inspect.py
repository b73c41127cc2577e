"""A look through a folder of images before time is spent on it: what is there, and what is odd."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from nucleate.data.channels import question as channel_question
from nucleate.data.dataset import find
from nucleate.errors import ImageError
from nucleate.io.axes import RGB
from nucleate.io.reader import read_image, read_labels
from nucleate.types import Image, Labels, Sample

_SMALL = 10  # pixels; below it a nucleus is more likely a slip of the brush
_SATURATED = 0.05

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


def _inspect_image(sample: Sample, image: Image) -> tuple[ImageReport, NDArray[np.int64]]:
    """The report on an image, and the areas of its nuclei."""
    height, width = image.pixels.shape[:2]
    oddities = _image_oddities(image)
    if (question := channel_question(image)) is not None:
        oddities.append(question)
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
