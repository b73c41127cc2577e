"""What a finished model says of images without labels, for another training to learn from (Lee, 2013).

A pixel that the model is not sure of is unknown, and so are those about an outline: there a model that learnt from few
labels is wrong most often, and what it misses would be taught as background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy.ndimage import binary_dilation
from skimage.segmentation import find_boundaries

from nucleate.data.channels import common
from nucleate.data.dataset import find
from nucleate.data.normalization import normalise
from nucleate.data.planes import expanded
from nucleate.errors import DatasetError, ImageError, ModelError
from nucleate.inference.backends import Backend
from nucleate.io.atomic import atomic
from nucleate.io.reader import read_image
from nucleate.io.stack import Choice
from nucleate.postprocess.instances_from_maps import instances_from_maps
from nucleate.types import Image, Labels, Maps, Thresholds

SURE = 0.9
"""A pixel is known where the model gives the class that it takes this probability or more."""

ABOUT = 2
"""Pixels to each side of an outline that are unknown."""

LARGEST = 4096 * 4096
"""Pixels of an image; larger ones are left out, with a warning."""


@dataclass(frozen=True, slots=True)
class PseudoLabelled:
    """A normalised `image` (channels, H, W), its `labels` as the model gives them, and which pixels are `unknown`."""

    image: NDArray[np.float32]
    labels: Labels
    unknown: NDArray[np.bool_]


def doubtful(maps: Maps, labels: Labels) -> NDArray[np.bool_]:
    """The pixels about outlines, and those whose class the model is not sure of.

    >>> foreground = np.full((9, 9), 0.01, np.float32)
    >>> foreground[0, 0] = 0.5
    >>> empty = np.zeros((9, 9), np.float32)
    >>> maps = Maps(foreground, empty, np.zeros((2, 9, 9), np.float32), empty)
    >>> int(doubtful(maps, np.zeros((9, 9), np.int32)).sum())
    1
    """
    sure = np.where(labels > 0, maps.foreground, 1 - maps.foreground) >= SURE
    outlines = find_boundaries(labels, mode="thick", background=0)
    return np.asarray(~sure | binary_dilation(outlines, iterations=ABOUT - 1), dtype=np.bool_)


def pseudo_labels(engine: Backend, thresholds: Thresholds, image: NDArray[np.float32]) -> PseudoLabelled:
    """What a model says of a normalised image."""
    maps = engine(image)
    labels = instances_from_maps(maps, thresholds).labels
    return PseudoLabelled(image, labels, doubtful(maps, labels))


def unlabelled_images(
    folder: Path, channel: str | int | None, channels: Sequence[str], stacks: Choice | None = None
) -> tuple[list[NDArray[np.float32]], list[str]]:
    """The images of a folder that have no mask, normalised, in the order of their names; and what was left out.

    Raises:
        DatasetError: there is none, or they have other channels than the labelled ones.
    """
    read, warnings = list[Image](), list[str]()
    for sample in expanded(find(folder), stacks).unlabelled:
        try:
            image = read_image(sample.image, sample.plane)
        except (ImageError, OSError) as error:
            warnings.append(f"{sample.name} is left out: {error}")
            continue
        if image.pixels.shape[0] * image.pixels.shape[1] > LARGEST:
            warnings.append(f"{sample.name} is left out: it has more than {LARGEST:,} pixels; give parts of it.")
        elif not np.ptp(image.pixels):
            warnings.append(f"{sample.name} is left out: it has one value throughout.")
        else:
            read.append(image)
    if not read:
        reason = f" {warnings[-1]}" if warnings else ""
        raise DatasetError(f"{folder} holds no image without labels to learn from: leave --unlabelled out.{reason}")
    images, found = common(read, folder, channel)
    if tuple(found) != tuple(channels):
        raise DatasetError(
            f"The images without labels in {folder} have the channels {', '.join(found)}, the labelled ones "
            f"{', '.join(channels)}: take one kind away, or give --channel."
        )
    return [normalise(image, len(channels)) for image in images], warnings


def write(path: Path, labelled: Sequence[PseudoLabelled], of: Mapping[str, str]) -> None:
    """Keep the labels in a file, with the checksums of what they are `of`."""
    tensors = {}
    for index, one in enumerate(labelled):
        tensors[f"{index}/labels"] = torch.from_numpy(one.labels)
        tensors[f"{index}/unknown"] = torch.from_numpy(one.unknown)
    with atomic(path) as file:
        file.write(save(tensors, dict(of)))


def read(path: Path, images: Sequence[NDArray[np.float32]], of: Mapping[str, str]) -> list[PseudoLabelled]:
    """What `write` kept of these images.

    Raises:
        ModelError: the file is damaged, or belongs to other images or another model.
    """
    try:
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        if any(f'"{name}":"{value}"'.encode() not in content[8 : 8 + size] for name, value in of.items()):
            raise ValueError("it is of other images, or of another model")
        tensors = load(content)
        return [
            PseudoLabelled(image, tensors[f"{index}/labels"].numpy(), tensors[f"{index}/unknown"].numpy())
            for index, image in enumerate(images)
        ]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be used ({error}): delete {path.parent.parent} and train without --resume."
        ) from error
