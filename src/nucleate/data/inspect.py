"""A look at images and masks before time is spent on them: what is there, what is odd, and what surely is wrong.

`nucleate check`, `train` and `evaluate` use the same: `inspect` reports on a folder, `labelled` gives the pairs to
train on and refuses what surely is a mistake. What is wrong with a mask is found in `masks`, for scoring, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.data.channels import question as channel_question
from nucleate.data.dataset import find
from nucleate.data.duplicates import Pictures, listed
from nucleate.data.masks import Masks, Mistake, interpret, is_outlines, size_mistake
from nucleate.data.planes import expanded
from nucleate.errors import DatasetError, ImageError
from nucleate.io.axes import RGB
from nucleate.io.label_file import read_label_file, was_changed
from nucleate.io.reader import read_image
from nucleate.io.stack import Choice
from nucleate.types import Dataset, Image, Labels, Sample

_SATURATED = 0.05

Range = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ImageReport:
    """One image. `nuclei` is None without a mask that can be used; `diameters` are 5th, 50th and 95th percentile, in
    pixels. `mistakes` are what training and scoring refuse, `oddities` what they warn of.

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
    mistakes: tuple[str, ...]
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
        return not (self.unreadable or self.oddities or any(one.oddities or one.mistakes for one in self.images))


@dataclass(frozen=True, slots=True)
class Looked:
    """A sample that was read and looked at; `labels` are None where there is no mask that can be used."""

    sample: Sample
    image: Image
    labels: Labels | None
    mistakes: tuple[Mistake, ...]
    oddities: tuple[str, ...]
    areas: NDArray[np.int64]
    validation: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class LabelledPairs:
    """The labelled images of a folder with their labels, and a sentence for each thing that may be wrong with them.

    `validation` has for each pair the pixels (height, width) that were set aside for validation, None where none were.
    """

    pairs: list[tuple[Image, Labels]]
    warnings: tuple[str, ...]
    validation: tuple[NDArray[np.bool_] | None, ...] = ()


def inspect(
    folder: Path, masks: Masks = "auto", validation: Path | None = None, stacks: Choice | None = None
) -> FolderReport:
    """Read every image and mask of a folder and report on them.

    Images that show the same picture are named, also those that are among the labelled ones of `validation`, too. An
    unreadable file is reported, not raised; `DatasetError` is raised where `nucleate.data.dataset.find` does.
    The report is JSON-able through `dataclasses.asdict`.
    """
    dataset = expanded(find(folder), stacks)
    samples = sorted((*dataset.labelled, *dataset.unlabelled), key=lambda sample: sample.name)
    reports, areas, unreadable = [], [np.zeros(0, np.int64)], []
    together = _Together()
    for sample in samples:
        try:
            looked = look(sample, masks)
        except (ImageError, OSError) as error:
            unreadable.append(str(error))
            continue
        together.add(looked)
        reports.append(_image_report(looked))
        areas.append(looked.areas)
    for sample in expanded(find(validation), stacks).labelled if validation is not None else ():
        try:
            together.hold(sample.name, read_image(sample.image, sample.plane))
        except (ImageError, OSError) as error:
            unreadable.append(str(error))
    every = np.concatenate(areas)
    return FolderReport(
        folder=str(folder),
        layout=dataset.layout,
        images=tuple(reports),
        unreadable=tuple(unreadable),
        nuclei=every.size,
        diameters=_diameters(every),
        oddities=(*dataset.notes, *together.oddities()),
    )


def labelled(folder: Path, masks: Masks = "auto", stacks: Choice | None = None) -> LabelledPairs:
    """The labelled images of a folder, read for training; of files with several images and of stacks what
    `stacks` says.

    An image that cannot be read is left out, with a warning.

    Raises:
        DatasetError: there is no mask, none can be read, or one surely is a mistake.
    """
    dataset = expanded(find(folder), stacks)
    if not dataset.labelled:
        raise _no_masks(dataset)
    together, pairs, wrong = _Together(), list[tuple[Image, Labels]](), list[tuple[Path, Mistake]]()
    validation = list[NDArray[np.bool_] | None]()
    warnings, odd = list(dataset.notes), defaultdict[str, list[str]](list)
    for sample in dataset.labelled:
        try:
            looked = look(sample, masks, strict=True)
        except (ImageError, OSError) as error:
            warnings.append(f"{sample.name} is left out: {error}")
            continue
        together.add(looked)
        wrong += [(sample.mask or sample.image, mistake) for mistake in looked.mistakes]
        for oddity in looked.oddities:
            odd[oddity].append(sample.name)
        if looked.labels is not None:
            pairs.append((looked.image, looked.labels))
            validation.append(looked.validation)
    if wrong:
        raise _refusal(wrong, len(dataset.labelled))
    if not pairs:
        raise DatasetError(f"No labelled image of {folder} can be read. {warnings[-1]}")
    warnings += [*together.oddities(), *(f"{listed(names)}: {oddity}" for oddity, names in odd.items())]
    return LabelledPairs(pairs, tuple(warnings), tuple(validation))


def look(sample: Sample, masks: Masks, *, strict: bool = False) -> Looked:
    """Read a sample and look at it; a mask that cannot be read is an oddity, or with `strict` an `ImageError`."""
    image = read_image(sample.image, sample.plane)
    oddities, mistakes, labels, validation = _image_oddities(image), list[Mistake](), None, None
    if sample.mask is not None:
        try:
            file = read_label_file(
                sample.mask,
                image.pixels.shape[:2],
                image=sample.image,
                colours=masks == "colours",
                plane=sample.mask_plane,
            )
            found = interpret(file.labels, masks, outlines=is_outlines(sample.mask))
        except (ImageError, OSError) as error:
            if strict:
                raise
            oddities.append(str(error))
        else:
            wrong = (size_mistake(image.pixels.shape[:2], found.labels.shape), found.mistake)
            mistakes = [one for one in wrong if one is not None]
            oddities += [*file.notes, *found.oddities]
            validation = file.validation
            if was_changed(sample.mask) is False:
                oddities.append(
                    "The mask is what nucleate predict found, and nobody has changed it: correct it, or take it away,"
                    " as a model learns its mistakes."
                )
            labels = None if mistakes else found.labels
    areas = np.zeros(0, np.int64) if labels is None else np.unique(labels[labels > 0], return_counts=True)[1]
    return Looked(sample, image, labels, tuple(mistakes), tuple(oddities), areas, validation)


def _image_report(looked: Looked) -> ImageReport:
    sample, image = looked.sample, looked.image
    height, width = image.pixels.shape[:2]
    mask = "The mask" if sample.mask is None else sample.mask.name
    return ImageReport(
        name=sample.name,
        file=str(sample.image),
        width=width,
        height=height,
        channels=image.channels,
        dtype=image.pixels.dtype.name,
        pixel_size=image.pixel_size,
        labelled=sample.mask is not None,
        nuclei=None if looked.labels is None else looked.areas.size,
        diameters=_diameters(looked.areas),
        mistakes=tuple(mistake.sentence(mask) for mistake in looked.mistakes),
        oddities=(*looked.oddities, *([asked] if (asked := channel_question(image)) is not None else ())),
    )


class _Together:
    """What is odd about images together: several kinds in one folder, and one picture several times."""

    def __init__(self) -> None:
        self.channels, self.types = list[str](), list[str]()
        self.pictures = Pictures()

    def add(self, looked: Looked) -> None:
        self.channels.append(" + ".join(looked.image.channels))
        self.types.append(looked.image.pixels.dtype.name)
        self.pictures.add(looked.sample.name, looked.image)

    def hold(self, name: str, image: Image) -> None:
        """An image that is kept for validation."""
        self.pictures.add(name, image, held=True)

    def oddities(self) -> list[str]:
        mixed = [*_mixed("channels", self.channels), *_mixed("types of number", self.types)]
        return [*mixed, *self.pictures.sentences()]


def _no_masks(dataset: Dataset) -> DatasetError:
    images = _count(len(dataset.unlabelled), "image")
    why = " ".join(dataset.notes) or f"put label images into {dataset.root / 'masks'}."
    return DatasetError(f"{dataset.root} holds {images} and no mask that can be read: {why[0].lower() + why[1:]}")


def _refusal(wrong: Sequence[tuple[Path, Mistake]], total: int) -> DatasetError:
    (path, first), others = wrong[0], len({path for path, _ in wrong}) - 1
    more = f" (and {others} more of {total} masks cannot be used)" if others else ""
    return DatasetError(f"{path} {first.what}{more}: {first.mend}.")


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
