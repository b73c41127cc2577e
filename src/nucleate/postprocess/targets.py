"""Label image -> what the network is asked to give at each pixel.

A nucleus is named by its centre. At a pixel of nucleus k with centre c_k and equivalent radius r_k = sqrt(area / pi):

    class      1 (0 outside every nucleus)
    offset     c_k - pixel, in pixels, (y, x)
    heat       exp(-|offset|^2 / (2 (0.4 r_k)^2)), so that the peak is as wide as its nucleus (0 outside)
    radius     r_k, in pixels

The offset reaches to the true centre of the whole nucleus also where the nucleus is cut by the edge of a crop, so
that two tiles that share a nucleus name the same centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from nucleate.postprocess.rescale import true_diameter, zoom
from nucleate.types import Labels

HEAT_WIDTH = 0.4
"""Standard deviation of the heat as a part of the nucleus' equivalent radius."""

SMALLEST_SIGMA = 1.0
"""Pixels; keeps the heat of the smallest nuclei wider than one pixel."""


@dataclass(frozen=True, slots=True)
class Centres:
    """Centre (y, x) and equivalent radius of each nucleus of one image, row k for label k; row 0 is not used."""

    position: NDArray[np.float32]
    radius: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets of a batch: `classes` (N, H, W) uint8; `known` (N, H, W) bool, false where nothing is to be learnt;
    `heat` and `radius` (N, 1, H, W), `offset` (N, 2, H, W), float32, in pixels; `weight` (N, H, W) by `importance`."""

    classes: Tensor
    known: Tensor
    heat: Tensor
    offset: Tensor
    radius: Tensor
    weight: Tensor


def centres(labels: Labels) -> Centres:
    """The centre of each nucleus: its centroid, or its own pixel nearest to that where the centroid lies outside.

    >>> import numpy as np
    >>> found = centres(np.array([[1, 1, 1, 0], [0, 0, 0, 2]], dtype=np.int32))
    >>> found.position[1:].tolist()
    [[0.0, 1.0], [1.0, 3.0]]
    """
    count = max(int(labels.max(initial=0)), 0)
    flat = np.flatnonzero(labels > 0)
    ids = labels.ravel()[flat]
    y, x = np.divmod(flat, labels.shape[1])
    area = np.maximum(np.bincount(ids, minlength=count + 1), 1)
    position = np.stack([np.bincount(ids, weights=axis, minlength=count + 1) / area for axis in (y, x)], axis=1)
    nearest = np.floor(position + 0.5).astype(np.int64)  # half up: the same for any place in the image
    outside = labels[nearest[:, 0], nearest[:, 1]] != np.arange(count + 1)
    for label in np.flatnonzero(outside[1:]) + 1:
        own = flat[ids == label]
        if own.size:
            oy, ox = np.divmod(own, labels.shape[1])
            best = np.argmin((oy - position[label, 0]) ** 2 + (ox - position[label, 1]) ** 2)
            position[label] = oy[best], ox[best]
    return Centres(position.astype(np.float32), np.sqrt(area / np.pi).astype(np.float32))


def importance(labels: Labels, radius: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much each pixel counts in training, (H, W): 10 / r, in 0.5..3, in and within 3 pixels of a nucleus of
    radius r, else 0.5. A pixel's share in the overlap of a small nucleus is larger, and there are fewer of them.

    `radius` holds the radius of each label, row 0 not used.
    """
    table = np.clip(10.0 / radius, 0.5, 3.0).astype(np.float32)
    table[0] = 0.5
    own: NDArray[np.float32] = table[np.maximum(labels, 0)]
    around: NDArray[np.float32] = ndimage.maximum_filter(own, size=7)
    return np.where(labels > 0, own, around)


def encode(labels: Tensor, offset: Tensor, radius: Tensor, weight: Tensor) -> Targets:
    """Targets from label values (N, H, W; negative unknown), offsets (N, 2, H, W), radii (N, 1, H, W) and weights.

    >>> flat = torch.ones(1, 1, 3)
    >>> t = encode(torch.tensor([[[0, 1, -1]]]), torch.zeros(1, 2, 1, 3), torch.full((1, 1, 1, 3), 5.0), flat)
    >>> t.classes.tolist(), t.known.tolist(), t.heat.tolist()
    ([[[0, 1, 0]]], [[[True, True, False]]], [[[[0.0, 1.0, 0.0]]]])
    """
    nucleus = (labels > 0).unsqueeze(1)
    sigma = (HEAT_WIDTH * radius).clamp_min(SMALLEST_SIGMA)
    # Bounded, as exp is twenty times slower where its result is no normal number.
    heat = torch.exp((-0.5 * offset.square().sum(1, keepdim=True) / sigma.square()).clamp_min(-80.0))
    return Targets(
        classes=nucleus[:, 0].to(torch.uint8),
        known=labels >= 0,
        heat=torch.where(nucleus, heat, 0.0),
        offset=torch.where(nucleus, offset, 0.0),
        radius=torch.where(nucleus, radius, 1.0),
        weight=weight,
    )


def whole(labels: Labels) -> Targets:
    """The targets of one whole image, as a batch of one."""
    known = centres(labels)
    ids = np.maximum(labels, 0)
    grid = np.indices(labels.shape, dtype=np.float32)
    offset = np.moveaxis(known.position[ids], 2, 0) - grid
    return encode(
        torch.from_numpy(labels.astype(np.int64))[None],
        torch.from_numpy(offset)[None],
        torch.from_numpy(known.radius[ids])[None, None],
        torch.from_numpy(importance(labels, zoom(true_diameter(labels)) * known.radius))[None],
    )
