"""The images of a folder without their masks, labelled or not, and which of them are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.data.channels import common
from nucleate.data.dataset import images_in, skipped_in
from nucleate.data.normalization import normalise
from nucleate.data.planes import each_plane
from nucleate.errors import DatasetError, ImageError
from nucleate.io.axes import name_of
from nucleate.io.digest import digest_of_arrays
from nucleate.io.reader import read_image
from nucleate.io.stack import Choice
from nucleate.networks.manifest import DataPart
from nucleate.sentences import count
from nucleate.training.hold_out import FEWEST
from nucleate.types import Image, Sample

Pixels = NDArray[np.float32]
"""A normalised image, (channels, H, W)."""


@dataclass(frozen=True, slots=True)
class UnlabelledImages:
    """The images of a folder, normalised: those to learn from, those held out, and how they were chosen; `warnings` say
    what may be wrong with them."""

    training: list[Pixels]
    held_out: list[Pixels]
    rule: str
    channels: tuple[str, ...]
    pixel_size: float | None
    count: int
    warnings: tuple[str, ...]

    def digest(self) -> str:
        """Of all pixels: equal where the same images were read."""
        return digest_of_arrays((*self.training, *self.held_out))

    def part(self, source: str) -> DataPart:
        """The same as the manifest tells it."""
        return DataPart(
            source=source,
            labelled=0,
            unlabelled=self.count,
            nuclei=0,
            median_diameter=0.0,
            validation=self.rule,
            channels=self.channels,
        )


def load_unlabelled(folder: Path, channel: str | int | None = None, stacks: Choice | None = None) -> UnlabelledImages:
    """Read all images of a folder. No mask is read.

    Images that cannot be read, that show one value throughout or that are copies of others are left out, with a
    warning.

    Args:
        folder: Holds images; see `data.dataset`.
        channel: Picks one of several by its name or its number from 1; see `data.channels.common`.
        stacks: What is taken of files with several images and of stacks.

    Raises:
        DatasetError: There is no image to learn from, or all are the same.
    """
    warnings, read = skipped_in([folder]), list[Image]()
    samples = [Sample(name_of(path), path) for path in images_in([folder])]
    for sample in each_plane(samples, stacks):
        try:
            read.append(read_image(sample.image, sample.plane))
        except (ImageError, OSError) as error:
            warnings.append(f"{sample.image.name} is left out: {error}")
    if not read:
        raise DatasetError(f"No image of {folder} can be read. {warnings[-1]}")
    images, channels = common(read, folder, channel)
    found: dict[str, Pixels] = {}
    flat = 0
    for image in images:
        pixels = normalise(image, len(channels))
        if np.ptp(pixels):
            found.setdefault(digest_of_arrays([pixels]), pixels)
        else:
            flat += 1
    different = list(found.values())
    if not different:
        raise DatasetError(
            f"None of the {len(images)} images in {folder} shows anything, each has one value throughout: export them"
            " again."
        )
    copies = len(images) - flat - len(different)
    if len(different) == 1 and copies:
        raise DatasetError(
            f"All {len(images)} images in {folder} are the same one: give images that differ, as pre-training learns"
            " to tell them apart."
        )
    if flat:
        warnings.append(f"{count(flat, 'image')} with one value throughout left out.")
    if copies:
        warnings.append(f"{count(copies, 'image')} left out as copies of others.")
    if len(different) == 1:
        warnings.append(
            f"{folder} holds one image: its parts are told apart, but not how images differ. More images teach more."
        )
    training, held, rule = hold_out_images(different)
    sizes = {image.pixel_size for image in read}
    return UnlabelledImages(
        training=training,
        held_out=held,
        rule=rule,
        channels=channels,
        pixel_size=sizes.pop() if len(sizes) == 1 else None,
        count=len(different),
        warnings=tuple(warnings),
    )


def hold_out_images(images: Sequence[Pixels]) -> tuple[list[Pixels], list[Pixels], str]:
    """Every fifth image is held out, from the third on; of fewer than `FEWEST` the last fifth of the longer side of
    each. Training images, those held out, and what was done as a sentence.

    >>> training, held, rule = hold_out_images([np.zeros((1, 40, 100), np.float32)])
    >>> training[0].shape, held[0].shape, rule
    ((1, 40, 80), (1, 40, 20), 'Held out: the last fifth of 1 image.')
    """
    if len(images) >= FEWEST:
        held = [image for index, image in enumerate(images) if index % 5 == 2]
        kept = [image for index, image in enumerate(images) if index % 5 != 2]
        return kept, held, f"Held out: {len(held)} of {len(images)} images."
    kept, held = [], []
    for image in images:
        axis = 1 + int(image.shape[2] >= image.shape[1])
        edge = image.shape[axis] - max(1, image.shape[axis] // 5)
        one, other = np.split(image, [edge], axis=axis)
        kept.append(np.ascontiguousarray(one))
        held.append(np.ascontiguousarray(other))
    return kept, held, f"Held out: the last fifth of {count(len(images), 'image')}."
