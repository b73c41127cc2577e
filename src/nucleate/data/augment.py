"""Augmentation: which crop of which image is a training sample and how it varies, and the batch that comes of it.

The parameters of a sample are a function of the seed and the sample's number. They do not depend on the batch size, on
the number of processes, or on what was drawn before. Crops are resampled once (turn, flip, scale and stretch
together), then their intensities vary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nucleate.postprocess.rescale import true_diameter, zoom
from nucleate.postprocess.targets import Centres, Targets, centres, encode, importance
from nucleate.types import Labels

Samples = TypeVar("Samples")
"""A batch: a dataclass of tensors, and of further such dataclasses, whose first axis are the samples."""

MANY_IMAGES = 100
"""Labelled images, from which on each is varied less; see `AugmentationConfig.suited`."""


@dataclass(frozen=True, slots=True)
class AugmentationConfig:
    """How far samples are varied. `scale` and `stretch` are factors, `turn` radians, the rest are in units of the
    normalised intensity; each is the bound or the standard deviation named in `draw_parameters`."""

    crop: int = 256
    scale: float = 1.3
    unzoomed: float = 0.2
    stretch: float = 1.06
    turn: float = math.pi
    turned: float = 0.5
    gamma: float = 0.2
    gain: float = 0.25
    shift: float = 0.08
    noise: float = 0.05
    blur: float = 1.5
    blurred: float = 0.2
    stain: float = 0.15

    @classmethod
    def suited(cls, images: int) -> AugmentationConfig:
        """What suits a run on so many images: few show less of what there is, so each of them is varied further.

        >>> AugmentationConfig.suited(5).scale, AugmentationConfig.suited(300).scale
        (1.5, 1.3)
        """
        if images >= MANY_IMAGES:
            return cls()
        return cls(scale=1.5, stretch=1.12, gamma=0.3, gain=0.35, noise=0.07, blurred=0.3)


@dataclass(frozen=True, slots=True)
class CropParameters:
    """One sample: image `index`; `matrix` (2, 3) takes crop coordinates (y, x, 1), in pixels from the crop's centre,
    to image coordinates; then the changes of intensity, in the order in which they are applied."""

    index: int
    matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    blur: float
    gamma: float
    gain: tuple[float, ...]
    shift: tuple[float, ...]
    noise: float
    noise_seed: int


def draw_parameters(
    seed: int,
    sample: int,
    shapes: Sequence[tuple[int, int]],
    *,
    channels: int,
    zooms: Sequence[float] | None = None,
    counts: Sequence[int] | None = None,
    variation: AugmentationConfig | None = None,
) -> CropParameters:
    """Sample number `sample` (0, 1, ...) of the run with this seed, over images of these (height, width).

    An image is chosen with a probability in proportion to sqrt(1 + n), n the number of its nuclei in `counts` (0 by
    default, all images alike): a crowd shows more than one nucleus alone, but not in proportion. It is resized by its
    factor in `zooms` (1 by default), but for a share `unzoomed` of the crops, since the size of nuclei is judged on
    such ones.

    >>> first, again = (draw_parameters(0, 5, [(64, 64), (99, 20)], channels=1) for _ in range(2))
    >>> bool((first.matrix == again.matrix).all()), first.noise_seed == again.noise_seed
    (True, True)
    """
    v = variation or AugmentationConfig()
    rng = np.random.default_rng([seed, sample])
    resized = np.ones(len(shapes)) if zooms is None else np.asarray(zooms)
    weights = np.ones(len(shapes)) if counts is None else np.sqrt(1.0 + np.asarray(counts))
    index = int(np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(), side="right"))
    index = min(index, len(shapes) - 1)
    scale = math.exp(rng.uniform(-1, 1) * math.log(v.scale))
    if rng.random() >= v.unzoomed:
        scale *= resized[index]
    stretch = math.exp(rng.uniform(-1, 1) * math.log(v.stretch))
    angle = rng.uniform(-v.turn, v.turn) if rng.random() < v.turned else (math.pi / 2) * int(rng.integers(4))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = rotation @ np.diag([flip / (scale * stretch), stretch / scale])
    reach = np.abs(linear).sum(axis=1) * (v.crop / 2)
    size = np.array(shapes[index], dtype=float)
    slack = np.abs(size / 2 - reach)
    centre = (size - 1) / 2 + rng.uniform(-1, 1, 2) * slack
    return CropParameters(
        index, np.concatenate([linear, centre[:, None]], axis=1), **draw_intensities(rng, v, channels=channels)
    )


def draw_intensities(rng: Generator, v: AugmentationConfig, *, channels: int) -> dict[str, Any]:
    """The changes of intensity of `CropParameters`, by their names there."""
    tints = rng.normal(0, v.stain if channels > 1 else 0.0, channels)
    gain = math.exp(rng.normal(0, v.gain))
    shift = rng.normal(0, v.shift) + (rng.normal(0, v.stain / 3, channels) if channels > 1 else np.zeros(channels))
    return {
        "blur": float(rng.uniform(0.3, v.blur)) if rng.random() < v.blurred else 0.0,
        "gamma": math.exp(rng.normal(0, v.gamma)),
        "gain": tuple(gain * np.exp(tints)),
        "shift": tuple(shift),
        "noise": float(rng.uniform(0, v.noise)) if rng.random() < 0.5 else 0.0,
        "noise_seed": int(rng.integers(2**62)),
    }


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One training image in memory: `image` (channels, H, W) float32, normalised; `raised` (1, 2, H, W) float32, the
    labels + 2, unknown as 1, and the importance of each pixel; the centres of its nuclei; how far it is resized."""

    image: Tensor
    raised: Tensor
    centres: Centres
    zoom: float

    @classmethod
    def of(
        cls,
        image: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
        labels: Labels,
        unknown: NDArray[np.bool_] | None = None,
    ) -> TrainingImage:
        """Of an image and its labels. `unknown` pixels count for the centre and the size of a nucleus, but are not
        learnt."""
        found, factor = centres(labels), zoom(true_diameter(labels))
        values = np.maximum(labels, -1) if unknown is None else np.where(unknown, -1, np.maximum(labels, -1))
        raised = np.stack([values + 2, importance(labels, factor * found.radius)], dtype=np.float32)
        return cls(torch.from_numpy(image), torch.from_numpy(raised)[None], found, factor)

    @property
    def shape(self) -> tuple[int, int]:
        return self.raised.shape[2], self.raised.shape[3]


@dataclass(frozen=True, slots=True)
class Batch:
    """`image` (N, channels, crop, crop) float32 and its targets."""

    image: Tensor
    targets: Targets


def make_batch(sources: Sequence[TrainingImage], draws: Sequence[CropParameters], crop: int) -> Batch:
    """The batch of these draws; sample i depends on `draws[i]` alone. Outside the image: 0, and unknown."""
    channels = sources[0].image.shape[0]
    image = torch.empty(len(draws), channels, crop, crop)
    labels = torch.empty(len(draws), crop, crop, dtype=torch.int32)
    places = torch.empty(len(draws), 3, crop, crop)
    weight = torch.empty(len(draws), crop, crop)

    for i, one in enumerate(draws):
        image[i], labels[i], weight[i], places[i] = _sample(sources[one.index], one, crop)
    return Batch(image, encode(labels, places[:, :2], places[:, 2:], weight))


def joined(batches: Sequence[Samples]) -> Samples:
    """The samples of all these batches in one, in their order."""
    first: Any = batches[0]
    parts = ([getattr(batch, part.name) for batch in batches] for part in fields(first))
    whole: Samples = type(first)(*(torch.cat(one) if isinstance(one[0], Tensor) else joined(one) for one in parts))
    return whole


def _sample(source: TrainingImage, draw: CropParameters, crop: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image (channels, crop, crop); labels, weights (crop, crop); offset and radius at each pixel (3, crop, crop)."""
    matrix, line = torch.from_numpy(draw.matrix).float(), _line(crop)
    grid = positions(matrix, crop, source.shape)
    # Labels are exact in float32 below 2^24; they are raised by 2 so that 0 is outside the image and 1 is unknown.
    raised, weight = F.grid_sample(source.raised, grid, mode="nearest", align_corners=False)[0]
    image = vary(F.grid_sample(source.image[None], grid, mode="bilinear", align_corners=False)[0], draw)
    # At prediction there is nothing but zeros beyond the border of an image: so here.
    image.mul_(raised > 0)
    # Each nucleus' centre and radius in the crop's own frame, then looked up at every pixel.
    inverse = torch.linalg.inv(matrix[:, :2])
    centre = inverse @ (torch.from_numpy(source.centres.position).T - matrix[:, 2:])
    radius = torch.from_numpy(source.centres.radius)[None] * torch.linalg.det(inverse).abs().sqrt()
    labels = raised.sub_(2).clamp_min_(-1).int()
    places = torch.cat([centre, radius]).index_select(1, labels.clamp_min(0).view(-1)).view(3, crop, crop)
    places[0].sub_(line[:, None])
    places[1].sub_(line)
    return image, labels, weight, places


def _line(crop: int) -> Tensor:
    """The pixels along a crop, counted from its centre."""
    return torch.arange(crop, dtype=torch.float32) - (crop - 1) / 2


def positions(matrix: Tensor, crop: int, shape: tuple[int, int]) -> Tensor:
    """Where in an image of this (height, width) each pixel of a crop lies, (1, crop, crop, 2), as (x, y) in the units
    of grid_sample: -1 and 1 are the outer edges."""
    (height, width), line = shape, _line(crop)
    y = torch.add((matrix[0, 0] * line + matrix[0, 2])[:, None], matrix[0, 1] * line)
    x = torch.add((matrix[1, 0] * line + matrix[1, 2])[:, None], matrix[1, 1] * line)
    y.mul_(2).add_(1).div_(height).sub_(1)
    x.mul_(2).add_(1).div_(width).sub_(1)
    return torch.stack([x, y], dim=-1)[None]


def vary(image: Tensor, draw: CropParameters, *, noise: bool = True) -> Tensor:
    """Blur, gamma, gain and shift, and unless it is not wanted noise."""
    channels = image.shape[0]
    if draw.blur:
        image = _blur(image, draw.blur)
    bright = image.clamp_min(1e-6)
    image = image + (bright.pow(draw.gamma) - bright)
    gain = torch.tensor(draw.gain, dtype=torch.float32).view(channels, 1, 1)
    shift = torch.tensor(draw.shift, dtype=torch.float32).view(channels, 1, 1)
    image.mul_(gain).add_(shift)
    if draw.noise and noise:
        random = torch.Generator().manual_seed(draw.noise_seed)
        image.add_(torch.randn(image.shape, generator=random), alpha=draw.noise)
    return image


def _blur(image: Tensor, sigma: float) -> Tensor:
    reach = max(1, round(2.5 * sigma))
    line = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (line / sigma) ** 2)
    kernel = kernel / kernel.sum()
    height, width = image.shape[1:]
    padded = F.pad(image[None], (reach, reach, reach, reach), mode="replicate")[0]
    # A sum of shifted images: ten times as fast as a convolution of one channel.
    columns = sum(share * padded[:, i : i + height] for i, share in enumerate(kernel.tolist()))
    blurred: Tensor = sum(share * columns[:, :, i : i + width] for i, share in enumerate(kernel.tolist()))
    return blurred
