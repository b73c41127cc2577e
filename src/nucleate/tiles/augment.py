"""Draws -> a batch: crops are resampled once (turn, flip, scale and stretch together), then their intensities vary."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.objects.targets import Centres, Targets, centres, encode
from nucleate.tiles.sample import Draw
from nucleate.types import Labels


@dataclass(frozen=True, slots=True)
class Source:
    """One training image in memory: `image` (channels, H, W) float32, normalised; `labels` (H, W) int32."""

    image: Tensor
    labels: Tensor
    centres: Centres

    @classmethod
    def of(cls, image: np.ndarray[tuple[int, ...], np.dtype[np.float32]], labels: Labels) -> Source:
        return cls(torch.from_numpy(image), torch.from_numpy(np.ascontiguousarray(labels)), centres(labels))

    @property
    def shape(self) -> tuple[int, int]:
        return self.labels.shape[0], self.labels.shape[1]


@dataclass(frozen=True, slots=True)
class Batch:
    """`image` (N, channels, crop, crop) float32 and its targets."""

    image: Tensor
    targets: Targets


def make_batch(sources: Sequence[Source], draws: Sequence[Draw], crop: int, workers: Executor | None = None) -> Batch:
    """The batch of these draws; sample i depends on `draws[i]` alone. Outside the image: 0, and unknown."""
    run = map if workers is None else workers.map
    parts = list(run(lambda one: _sample(sources[one.index], one, crop), draws))
    labels, offset, radius, image = (torch.stack(part) for part in zip(*parts, strict=True))
    return Batch(image, encode(labels, offset, radius))


def _sample(source: Source, draw: Draw, crop: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    matrix = torch.from_numpy(draw.matrix).float()
    half = (crop - 1) / 2
    line = torch.arange(crop, dtype=torch.float32) - half
    # Image coordinates of every crop pixel: the affine map is separable into a row part and a column part.
    y = (matrix[0, 0] * line + matrix[0, 2])[:, None] + (matrix[0, 1] * line)[None, :]
    x = (matrix[1, 0] * line + matrix[1, 2])[:, None] + (matrix[1, 1] * line)[None, :]
    height, width = source.shape
    row, column = y.round().long(), x.round().long()
    outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
    index = row.clamp_(0, height - 1) * width + column.clamp_(0, width - 1)
    labels = source.labels.view(-1)[index].masked_fill_(outside, -1).long()
    inside = labels.clamp_min(0)
    # Offsets: the centre in the image, less the pixel, taken back into the crop's own frame.
    position = torch.from_numpy(source.centres.position)[inside]
    inverse = torch.linalg.inv(matrix[:, :2])
    dy, dx = position[..., 0] - y, position[..., 1] - x
    offset = torch.stack([inverse[0, 0] * dy + inverse[0, 1] * dx, inverse[1, 0] * dy + inverse[1, 1] * dx])
    magnification = torch.linalg.det(inverse).abs().sqrt()
    radius = torch.from_numpy(source.centres.radius)[inside] * magnification
    image = _vary(_bilinear(source.image, y, x), draw)
    # At prediction there is nothing but zeros beyond the border of an image: so here.
    return labels, offset, radius[None], image.masked_fill_(outside, 0.0)


def _bilinear(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    height, width = image.shape[1:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(image[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0]


def _vary(image: Tensor, draw: Draw) -> Tensor:
    """Blur, gamma, gain and shift, noise."""
    channels = image.shape[0]
    if draw.blur:
        image = _blur(image, draw.blur)
    image = image.sign() * image.abs().clamp_min(1e-6).pow(draw.gamma)
    gain = torch.tensor(draw.gain, dtype=torch.float32).view(channels, 1, 1)
    shift = torch.tensor(draw.shift, dtype=torch.float32).view(channels, 1, 1)
    image.mul_(gain).add_(shift)
    if draw.noise:
        random = torch.Generator().manual_seed(draw.noise_seed)
        image.add_(torch.randn(image.shape, generator=random), alpha=draw.noise)
    return image


def _blur(image: Tensor, sigma: float) -> Tensor:
    reach = max(1, round(2.5 * sigma))
    line = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (line / sigma) ** 2)
    kernel = kernel / kernel.sum()
    stack = F.pad(image[:, None], (reach, reach, reach, reach), mode="replicate")
    stack = F.conv2d(stack, kernel.view(1, 1, -1, 1))
    return F.conv2d(stack, kernel.view(1, 1, 1, -1))[:, 0]
