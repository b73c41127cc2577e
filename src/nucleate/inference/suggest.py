"""Which unlabelled images to label first: those that are least like what is labelled already, or like one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nucleate.data.channels import choose_channels, with_places
from nucleate.data.colours import is_grey, of_colours
from nucleate.data.dataset import find
from nucleate.data.duplicates import Thumbnail, near_duplicates
from nucleate.data.normalization import normalise
from nucleate.errors import DatasetError, ImageError
from nucleate.inference.backends import Backend
from nucleate.inference.select import choose
from nucleate.io.axes import RGB
from nucleate.io.reader import MemoryReader, read_image
from nucleate.networks.decode import to_entropy
from nucleate.networks.embedding import embed_array, tiles
from nucleate.networks.prototypes import k_centre, standardised
from nucleate.networks.store import Model
from nucleate.sentences import count
from nucleate.types import Box, Dataset, Image, Sample

COVERAGE = (
    "Rule: first the image nearest to the middle of all, then each time the one farthest from those before (k-centre)."
    " A distance of 1 is one standard deviation of these images."
)
BOTH = (
    "Rule: each time the image with the largest product of its distance to the nearest labelled or suggested image and"
    " the rank of its entropy, of how unsure the model is. A distance of 1 is one standard deviation of these images."
)

_GLANCED = 12  # images that tell which model of the package fits


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One image: its `distance` to the nearest that is labelled or suggested before it, in standard deviations, None of
    the first of a folder without labels; the model's mean predictive `entropy` in bits, None in such a folder."""

    name: str
    file: str
    distance: float | None
    entropy: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What to label first in a folder, `images` in their order; by which `rule`, and `notes` on what was left out."""

    folder: str
    model: str
    labelled: int
    unlabelled: int
    rule: str
    images: tuple[Suggestion, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """An image as the network saw it: its point, the mean of those of its tiles, and what tells that it shows the same
    picture as another one."""

    sample: Sample
    point: NDArray[np.float32]
    thumbnail: Thumbnail | None


def fitting(folder: Path) -> str:
    """The model of the package for the images of a folder: brightfield where most of the first are colour images of
    stained tissue, else fluorescence.

    Raises `DatasetError` where `data.dataset.find` does.
    """
    images = [image for image in map(_read, _every(find(folder))[:_GLANCED]) if isinstance(image, Image)]
    stained = sum(_is_stained(image) for image in images)
    return "brightfield" if 2 * stained > len(images) else "fluorescence"


def suggest(folder: Path, model: Model, number: int, channel: str | None = None) -> Suggestions:
    """Which images of a folder to label first.

    Without labels: greedy k-centre over the images (`networks.prototypes.k_centre`), which covers what the folder
    holds. With labels, each time the image is taken that has the largest

        distance to the nearest image that is labelled or taken  x  (rank of its mean predictive entropy) / candidates

    Of images that show the same picture only the first is a candidate, and none where one of them is labelled.

    Args:
        folder: holds the images, in a layout that `nucleate check` knows.
        model: whose encoder sees the images, and whose entropy is taken.
        number: of images to suggest.
        channel: which of several is looked at, by its name or its number from 1.

    Raises:
        DatasetError: there is no image that is not labelled, or none that can be used.
        ImageError: the model needs other channels.
    """
    dataset = find(folder)
    if not dataset.unlabelled:
        labelled = count(len(dataset.labelled), "image")
        raise DatasetError(
            f"{folder} holds {labelled} and no unlabelled one to suggest: add images, or train on these."
        )
    seen, notes = list[_Seen](), list[str]()
    for sample in _every(dataset):
        image = _read(sample)
        found = image if isinstance(image, str) else _look(sample, image, model, channel)
        if isinstance(found, str):
            notes.append(f"{sample.name} is left out: {found}")
        else:
            seen.append(found)
    covered, candidates = ([one for one in seen if (one.sample.mask is None) == free] for free in (False, True))
    if not candidates:
        raise DatasetError(f"None of the unlabelled images of {folder} can be used. {notes[-1]}")
    left = _distinct(covered, candidates)
    if len(left) < len(candidates):
        alike = count(len(candidates) - len(left), "image")
        notes.append(f"Left out, as near-duplicates of labelled images or of one another: {alike}.")
    return Suggestions(
        folder=str(folder),
        model=model.manifest.name,
        labelled=len(covered),
        unlabelled=len(dataset.unlabelled),
        rule=BOTH if covered else COVERAGE,
        images=tuple(_chosen(covered, left, number, model, channel)),
        notes=(*notes, *([f"No more than {len(left)} can be suggested."] if number > len(left) else [])),
    )


def _chosen(
    covered: Sequence[_Seen], left: Sequence[_Seen], number: int, model: Model, channel: str | None
) -> list[Suggestion]:
    scaled, _, _ = standardised(np.stack([one.point for one in (*covered, *left)]))
    before, points = scaled[: len(covered)], scaled[len(covered) :]
    bits: list[float] | None = None
    weights = None
    if covered:
        engine = choose(model)
        bits = [_entropy(one.sample, model, channel, engine) for one in left]
        weights = np.array([sum(other <= one for other in bits) for one in bits]) / len(bits)
    chosen, distances = k_centre(points, number, before, weights)
    # What equals another in all that is measured comes last.
    rest = [place for place in range(len(left)) if place not in chosen][: max(0, number - len(chosen))]
    found = list[Suggestion]()
    for place, distance in zip([*chosen, *rest], [*distances, *[0.0] * len(rest)], strict=True):
        first = not covered and not found
        entropy = None if bits is None else round(bits[place], 4)
        found.append(
            Suggestion(
                name=left[place].sample.name,
                file=str(left[place].sample.image),
                distance=None if first else round(distance, 3),
                entropy=entropy,
                reason=_reason(distance, entropy, bits, first=first, total=len(left)),
            )
        )
    return found


def _reason(distance: float, entropy: float | None, bits: Sequence[float] | None, *, first: bool, total: int) -> str:
    if first:
        return "the only one there is" if total == 1 else f"nearest to the middle of {total} images"
    if entropy is None or bits is None:
        return f"farthest from those above: {distance:.2f}"
    rank = sum(round(one, 4) > entropy for one in bits) + 1
    return (
        f"{distance:.2f} from the nearest labelled or suggested image; {entropy:.3f} bits of entropy, place {rank} of"
        f" {len(bits)}"
    )


def _distinct(covered: Sequence[_Seen], candidates: Sequence[_Seen]) -> list[_Seen]:
    """The candidates that show no picture that is labelled, or another one's."""
    every = [*covered, *candidates]
    again = {place for group in near_duplicates([one.thumbnail for one in every]) for place in group[1:]}
    return [one for place, one in enumerate(every) if place not in again and place >= len(covered)]


def _every(dataset: Dataset) -> list[Sample]:
    return sorted(chain(dataset.labelled, dataset.unlabelled), key=lambda sample: sample.name)


def _read(sample: Sample) -> Image | str:
    """An image, or why it cannot be read."""
    try:
        return read_image(sample.image, sample.plane)
    except (ImageError, OSError) as error:
        return str(error)


def _normalised(image: Image, model: Model, channel: str | None) -> NDArray[np.float32]:
    manifest = model.manifest
    channels = manifest.architecture.channels
    places, _ = choose_channels(MemoryReader(image), manifest.data.channels, channels, channel)
    return normalise(with_places(image, places), channels, model.normalisation)


def _look(sample: Sample, image: Image, model: Model, channel: str | None) -> _Seen | str:
    points = embed_array(model.network, _normalised(image, model, channel))
    if not len(points):
        return "it shows nothing, as each part has one value throughout."
    return _Seen(sample, points.mean(0), Thumbnail.of(image.pixels))


def _entropy(sample: Sample, model: Model, channel: str | None, engine: Backend) -> float:
    """The mean predictive entropy of an image's tiles, in bits."""
    pixels = _normalised(read_image(sample.image, sample.plane), model, channel)
    shape, classes = (pixels.shape[1], pixels.shape[2]), engine.architecture.classes
    found = [
        to_entropy(engine.zoomed(torch.from_numpy(pixels[:, *box.within(Box(0, 0, *shape))])[None]), classes).mean()
        for box in tiles(shape)
    ]
    return float(np.mean(found))


def _is_stained(image: Image) -> bool:
    return image.channels == RGB and not is_grey(image.pixels) and of_colours(image.pixels) == (0, 1, 2)
