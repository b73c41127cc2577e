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
class Box:
    """A rectangle of pixels, `y` and `x` the first of them: rows y .. y + height - 1, columns x .. x + width - 1.

    >>> Box(0, 0, 4, 6).grown(2, within=(5, 100))
    Box(y=0, x=0, height=5, width=8)
    """

    y: int
    x: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The first row below."""
        return self.y + self.height

    @property
    def right(self) -> int:
        """The first column to the right."""
        return self.x + self.width

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    def grown(self, by: int, *, within: tuple[int, int]) -> Box:
        """With `by` pixels more on each side, as far as an image of this (height, width) goes."""
        y, x = max(0, self.y - by), max(0, self.x - by)
        return Box(y, x, min(within[0], self.bottom + by) - y, min(within[1], self.right + by) - x)

    def common(self, other: Box) -> Box | None:
        """What both cover; None where they do not meet."""
        y, x = max(self.y, other.y), max(self.x, other.x)
        height, width = min(self.bottom, other.bottom) - y, min(self.right, other.right) - x
        return Box(y, x, height, width) if height > 0 and width > 0 else None

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Where it lies in an array that holds `outer`."""
        return (
            slice(self.y - outer.y, self.bottom - outer.y),
            slice(self.x - outer.x, self.right - outer.x),
        )


@dataclass(frozen=True, slots=True)
class Plane:
    """Which image of a file: `series`, from 1, of a file that holds several; of a stack the plane `z`, from 1, or max,
    mean or best of all its planes, and the frame `t`, from 1. None where there is one alone."""

    series: int | None = None
    z: int | str | None = None
    t: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """An image file and, where it is labelled, its mask file. `name` is unique in its data set; `plane` and
    `mask_plane` say which image of each file it is."""

    name: str
    image: Path
    mask: Path | None = None
    plane: Plane = field(default_factory=Plane)
    mask_plane: Plane = field(default_factory=Plane)


@dataclass(frozen=True, slots=True)
class Dataset:
    """The images of a folder, sorted by name. `layout` says which convention was found, `notes` what was not read."""

    root: Path
    layout: str
    labelled: tuple[Sample, ...]
    unlabelled: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


Map = NDArray[np.float32]
"""A number at each pixel, shape (height, width)."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What turns maps into nuclei; tuned on validation images and stored with the model. The defaults suit most
    networks, and tuning begins there: a few held-out nuclei cannot tell all of them."""

    foreground: float = 0.5
    peak_threshold: float = 0.2
    nms_radius: float = 1.2
    assign_radius: float = 1.0
    min_area: int = 20
    seed_foreground: float = 0.95


@dataclass(frozen=True, slots=True)
class Maps:
    """Network output of one image, float32: `foreground` and `heat` probabilities and `radius` in pixels, (H, W);
    `offset` (2, H, W) in pixels, (y, x)."""

    foreground: Map
    heat: Map
    offset: Map
    radius: Map


@dataclass(frozen=True, slots=True)
class Nucleus:
    """One row of the table that prediction writes. Lengths in pixels; `score` in 0..1; `entropy`, where it was asked
    for, the mean over its pixels of the predictive entropy in bits; `channel_means` the mean intensity in each of
    several channels."""

    id: int
    y: float
    x: float
    area: int
    diameter: float
    mean_intensity: float
    score: float
    entropy: float | None = None
    channel_means: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The nuclei of one image: the label image (0..N) and one `Nucleus` for each of 1..N, in order."""

    labels: Labels
    nuclei: tuple[Nucleus, ...] = field(default=())
