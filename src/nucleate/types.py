"""The values that pass between the parts of Nucleate: plain frozen dataclasses, no behaviour beyond their shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.generic]
"""An image's pixels, shape (height, width, channels), in the type that the file holds."""

Labels = NDArray[np.int32]
"""A label image, shape (height, width): 0 background, 1..N one nucleus each, negative unknown."""


@dataclass(frozen=True, slots=True)
class Image:
    """One plane of one image.

    `pixels` has shape (height, width, channels) and the file's own type (8 or 16 bit unsigned, or float32);
    `channels` names each channel; `pixel_size` is micrometres a pixel, None where the file does not say.
    """

    name: str
    pixels: Pixels
    channels: tuple[str, ...]
    pixel_size: float | None = None
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """An image file and, where it is labelled, its mask file. `name` is unique in its data set."""

    name: str
    image: Path
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The images of a folder, sorted by name. `layout` says which convention was found."""

    root: Path
    layout: str
    labelled: tuple[Sample, ...]
    unlabelled: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Nucleus:
    """One row of the table that prediction writes. Lengths in pixels; `score` in 0..1."""

    id: int
    y: float
    x: float
    area: int
    diameter: float
    mean_intensity: float
    score: float


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The nuclei of one image: the label image (0..N) and one `Nucleus` for each of 1..N, in order."""

    labels: Labels
    nuclei: tuple[Nucleus, ...] = field(default=())
