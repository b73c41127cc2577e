"""Two views of one place in an image, whose geometry is known: what learning without labels compares.

The network computes the same for an image that is turned by quarter turns or mirrored, so such views would teach it
nothing. The views differ in scale, free angle, place, stretch, brightness, contrast, stain, blur and noise, and parts
of both are hidden. A place that both show is known in either, as a point between pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nucleate.data.augment import AugmentationConfig, CropParameters, draw_intensities, positions, vary

VISIBLE, TRIES = 0.05, 8
"""The standard deviation of intensities from which on a place shows something, and how often another one is drawn."""

VARIATION = AugmentationConfig(crop=64, scale=1.2, blurred=0.3)
"""How far views differ."""


@dataclass(frozen=True, slots=True)
class ViewConfig:
    """What views are. `variation` bounds their scale, stretch and intensities, its `crop` is their side in pixels.

    Args:
        variation: see `AugmentationConfig`; the angle is always free.
        place: how far the centre of each view may lie from the place, along either axis, as a part of the side.
        points: places that both views show, matched in each pair.
        hidden: the part of each view that is replaced by noise, in squares.
        square: the side of these squares, pixels.
        visible: what a pixel that is not hidden counts in the reconstruction; a hidden one counts 1.
    """

    variation: AugmentationConfig = field(default_factory=lambda: VARIATION)
    place: float = 0.08
    points: int = 64
    hidden: float = 0.2
    square: int = 8
    visible: float = 0.1


@dataclass(frozen=True, slots=True)
class PairParameters:
    """One pair of views of image `views[0].index`: how each is taken, which squares of each are hidden, and `points`
    (2, P, 2): the matched places in either view as (x, y), where -1 and 1 are the outer edges of the view."""

    views: tuple[CropParameters, CropParameters]
    hidden: NDArray[np.bool_]
    points: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Views:
    """A batch of N pairs of views of side S with C channels.

    `image` (N, 2, C, S, S) is what the network sees; `clean` the same without noise and with nothing hidden; `weight`
    (N, 2, S, S) is what each pixel counts in the reconstruction, 0 outside the image; `points` (N, 2, P, 2) are as in
    `PairParameters`.
    """

    image: Tensor
    clean: Tensor
    weight: Tensor
    points: Tensor

    def to(self, device: torch.device) -> Views:
        """The same on a device."""
        return Views(*(getattr(self, part.name).to(device, non_blocking=True) for part in fields(self)))


Place = tuple[int, float, float]
"""The number of an image, and a place in it, (y, x) in pixels."""


def draw_place(seed: int, sample: int, images: Sequence[Tensor], crop: int) -> Place:
    """The place that pair number `sample` shows: an image in proportion to the root of its area, and in it a place
    about which a crop fits, where the image is large enough for one.

    Places are drawn until one shows something, as empty ground cannot be told from other empty ground; of `TRIES` that
    show nothing, the one that shows most is taken.

    >>> images = [torch.rand(1, 64, 64), torch.rand(1, 99, 40)]
    >>> draw_place(0, 3, images, 32) == draw_place(0, 3, images, 32)
    True
    """
    rng = np.random.default_rng([seed, sample, 0])
    roots = np.cumsum([math.sqrt(image[0].numel()) for image in images])
    best, most = (0, 0.0, 0.0), -1.0
    for _ in range(TRIES):
        index = min(int(np.searchsorted(roots, rng.random() * roots[-1], side="right")), len(images) - 1)
        size = np.array(images[index].shape[1:], dtype=float)
        y, x = (size - 1) / 2 + rng.uniform(-1, 1, 2) * np.maximum(size - crop, 0) / 2
        place = index, float(y), float(x)
        shown = contrast_at(images[index], y, x, crop)
        if shown > most:
            best, most = place, shown
        if shown >= VISIBLE:
            break
    return best


def contrast_at(image: Tensor, y: float, x: float, crop: int) -> float:
    """The standard deviation of the normalised intensities (C, H, W) in a crop about a place.

    >>> round(contrast_at(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), 0.5, 0.5, 8), 3)
    0.5
    """
    top, left = max(0, round(y - crop / 2)), max(0, round(x - crop / 2))
    part = image[:, top : round(y + crop / 2), left : round(x + crop / 2)]
    return float(part.std(correction=0)) if part.numel() else 0.0


def draw_pair(
    seed: int, sample: int, place: Place, shape: tuple[int, int], *, channels: int, config: ViewConfig | None = None
) -> PairParameters:
    """Pair number `sample` (0, 1, ...) of the run with this seed, of a place in an image of this (height, width)."""
    config = config or ViewConfig()
    rng = np.random.default_rng([seed, sample, 1])
    first, second = (_draw_view(rng, place, config, channels) for _ in range(2))
    cells = -(-config.variation.crop // config.square)
    hidden = np.zeros((2, cells * cells), dtype=bool)
    for row in hidden:
        row[rng.permutation(cells * cells)[: round(config.hidden * cells * cells)]] = True
    points = _matched(rng, first.matrix, second.matrix, shape, config.variation.crop, config.points)
    return PairParameters((first, second), hidden.reshape(2, cells, cells), points)


def _draw_view(rng: Generator, place: Place, config: ViewConfig, channels: int) -> CropParameters:
    v = config.variation
    index, *centre = place
    scale = math.exp(rng.uniform(-1, 1) * math.log(v.scale))
    stretch = math.exp(rng.uniform(-1, 1) * math.log(v.stretch))
    angle, flip = rng.uniform(-math.pi, math.pi), -1.0 if rng.random() < 0.5 else 1.0
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = rotation @ np.diag([flip / (scale * stretch), stretch / scale])
    shift = rng.uniform(-1, 1, 2) * config.place * v.crop
    matrix = np.concatenate([linear, (centre + shift)[:, None]], axis=1)
    return CropParameters(index, matrix, **draw_intensities(rng, v, channels=channels))


def _matched(
    rng: Generator,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    shape: tuple[int, int],
    crop: int,
    count: int,
) -> NDArray[np.float64]:
    """Places drawn evenly over the part of the image that both views show."""
    found, size = np.empty((0, 2, 2)), np.array(shape)
    # Between pixels that are all shown: so values there are those of the image, whatever lies around it.
    inner, margin = crop / 2 - 1, np.minimum(2.0, (size - 1) / 4)
    back = np.linalg.inv(second[:, :2])
    while len(found) < count:
        one = rng.uniform(-inner, inner, (4 * count, 2))
        there = one @ first[:, :2].T + first[:, 2]
        other = (there - second[:, 2]) @ back.T
        shown = np.all((np.abs(other) < inner) & (there >= margin) & (there <= size - 1 - margin), axis=1)
        found = np.concatenate([found, np.stack([one, other], axis=1)[shown]])
    # From (y, x) in pixels from the centre to (x, y) in halves of the side.
    return np.moveaxis(found[:count, :, ::-1], 1, 0) * (2 / crop)


def make_views(images: Sequence[Tensor], draws: Sequence[PairParameters], config: ViewConfig) -> Views:
    """The batch of these draws; pair i depends on `draws[i]` and its image (C, H, W) alone."""
    channels, crop, count = images[0].shape[0], config.variation.crop, len(draws)
    image, clean = (torch.empty(count, 2, channels, crop, crop) for _ in range(2))
    weight = torch.empty(count, 2, crop, crop)
    for i, draw in enumerate(draws):
        for j, view in enumerate(draw.views):
            hidden = torch.from_numpy(draw.hidden[j]).repeat_interleave(config.square, 0)
            hidden = hidden.repeat_interleave(config.square, 1)[:crop, :crop]
            image[i, j], clean[i, j], weight[i, j] = _view(images[view.index], view, hidden, config)
    points = torch.from_numpy(np.stack([draw.points for draw in draws])).float()
    return Views(image, clean, weight, points)


def _view(source: Tensor, draw: CropParameters, hidden: Tensor, config: ViewConfig) -> tuple[Tensor, Tensor, Tensor]:
    """What the network sees of a view (C, S, S), what it is to reconstruct, and what each pixel counts (S, S)."""
    crop = config.variation.crop
    grid = positions(torch.from_numpy(draw.matrix).float(), crop, (source.shape[1], source.shape[2]))
    inside = grid[0].abs().amax(dim=-1) < 1
    clean = vary(F.grid_sample(source[None], grid, mode="bilinear", align_corners=False)[0], draw, noise=False)
    clean = clean * inside
    random = torch.Generator().manual_seed(draw.noise_seed)
    noise = torch.randn(clean.shape, generator=random)
    image = clean + draw.noise * noise * inside
    spread, mean = torch.std_mean(clean, dim=(1, 2), keepdim=True)
    image = torch.where(hidden, mean + spread * noise, image)
    return image, clean, torch.where(hidden, 1.0, config.visible) * inside


class ViewSampler:
    """The pairs of views of a run, numbered from 0 without an end.

    Args:
        images: normalised, (C, H, W) each.
        seed: of the run; the same seed and number give the same pair, on any machine.
        config: what views are.
        places: those to show, one a pair; by default each pair draws its own.
    """

    def __init__(
        self, images: Sequence[Tensor], seed: int, config: ViewConfig, places: Sequence[Place] | None = None
    ) -> None:
        self.images, self.seed, self.config, self.places = images, seed, config, places
        self._shapes = [(image.shape[1], image.shape[2]) for image in images]

    def place(self, sample: int) -> Place:
        """What this pair shows."""
        if self.places is not None:
            return self.places[sample]
        return draw_place(self.seed, sample, self.images, self.config.variation.crop)

    def batch(self, samples: range) -> Views:
        """The pairs of these numbers, in their order."""
        channels = self.images[0].shape[0]
        draws = []
        for sample in samples:
            place = self.place(sample)
            shape = self._shapes[place[0]]
            draws.append(draw_pair(self.seed, sample, place, shape, channels=channels, config=self.config))
        return make_views(self.images, draws, self.config)
