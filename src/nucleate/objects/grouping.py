"""What the network gives at each pixel -> nuclei.

1. Candidates are the local maxima of the heat in a window of 5 x 5 pixels, above `heat`.
2. A candidate is a centre unless a better one lies within `separation` times its own predicted radius. Better means
   a higher heat; of equal heats, the smaller coordinate. A candidate is compared with all others, also with those
   that are themselves no centres, so that the answer depends on a bounded surrounding only.
3. A pixel is nucleus where the probability of background is below 1 - `foreground`. It points at pixel + offset and
   belongs to the centre nearest to that point, if one lies within `reach` times that centre's radius.
4. Of each nucleus the largest connected piece stays, its holes are filled, and it is dropped below `smallest` pixels.

Separation and reach are at least 2 pixels, and every distance is at most `BOUND`, so the label of a pixel depends only
on what lies within a known distance, and a nucleus is named by the coordinates of its centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_pieces

from nucleate.types import Labels

Map = NDArray[np.float32]

BOUND = 64
"""Pixels: no offset, separation or reach extends further."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What turns maps into nuclei; tuned on validation images and stored with the model."""

    foreground: float = 0.5
    heat: float = 0.3
    separation: float = 0.6
    reach: float = 0.7
    smallest: int = 12


@dataclass(frozen=True, slots=True)
class Maps:
    """Network output of one image, float32: `foreground` and `heat` probabilities and `radius` in pixels, (H, W);
    `offset` (2, H, W) in pixels, (y, x)."""

    foreground: Map
    heat: Map
    offset: Map
    radius: Map


@dataclass(frozen=True, slots=True)
class Grouped:
    """`labels` (H, W), 0..N in the order of the centres' coordinates; `centre` (N, 2); `score` (N,), the heat there."""

    labels: Labels
    centre: NDArray[np.int64]
    score: Map


def find_centres(maps: Maps, thresholds: Thresholds) -> NDArray[np.int64]:
    """Coordinates (N, 2) of the centres, sorted by y, then x."""
    heat = maps.heat
    peak = (heat >= thresholds.heat) & (heat == ndimage.maximum_filter(heat, size=5, mode="constant"))
    y, x = np.nonzero(peak)
    if y.size < 2:
        return np.stack([y, x], axis=1)
    radius = np.minimum(thresholds.separation * maps.radius[y, x], BOUND).astype(np.float64)
    # Rank 0 is the best: np.nonzero gives ascending coordinates and the sort is stable, so equal heats keep them.
    rank = np.empty(y.size, dtype=np.int64)
    rank[np.argsort(-heat[y, x], kind="stable")] = np.arange(y.size)
    keep = np.ones(y.size, dtype=bool)
    for block in np.array_split(np.arange(y.size), y.size // 1024 + 1):
        near = np.flatnonzero((y >= y[block[0]] - BOUND) & (y <= y[block[-1]] + BOUND))
        squared = (y[block, None] - y[None, near]) ** 2 + (x[block, None] - x[None, near]) ** 2
        within = squared <= np.maximum(radius[block, None], 2.0) ** 2
        keep[block] = ~(within & (rank[None, near] < rank[block, None])).any(axis=1)
    return np.stack([y[keep], x[keep]], axis=1)


def assign(maps: Maps, centre: NDArray[np.int64], thresholds: Thresholds) -> Labels:
    """Label image: for each nucleus pixel 1 + the index of its centre, or 0."""
    height, width = maps.heat.shape
    labels = np.zeros((height, width), dtype=np.int32)
    if len(centre) == 0:
        return labels
    owner = _nearest_centre(centre, maps.radius, thresholds.reach)
    flat = np.flatnonzero(maps.foreground >= thresholds.foreground)
    y, x = np.divmod(flat, width)
    offset = np.clip(maps.offset.reshape(2, -1)[:, flat], -BOUND, BOUND)
    row = np.clip(np.rint(y + offset[0]).astype(np.int64), 0, height - 1)
    column = np.clip(np.rint(x + offset[1]).astype(np.int64), 0, width - 1)
    labels.reshape(-1)[flat] = owner[row, column]
    return labels


def _nearest_centre(centre: NDArray[np.int64], radius: Map, reach: float) -> NDArray[np.int32]:
    """For each pixel, 1 + the index of the nearest centre that reaches it, else 0; of equal distances the first."""
    height, width = radius.shape
    bound = np.clip(reach * radius[centre[:, 0], centre[:, 1]], 2.0, BOUND)
    extent = int(np.ceil(bound.max()))
    dy, dx = np.mgrid[-extent : extent + 1, -extent : extent + 1].reshape(2, -1)
    squared = dy**2 + dx**2
    order = np.argsort(squared, kind="stable")
    dy, dx, squared = dy[order], dx[order], squared[order]
    count = np.searchsorted(squared, bound**2, side="right")
    best = np.full(height * width, np.iinfo(np.int64).max)
    for part in np.array_split(np.arange(len(centre)), int(count.sum() // 4_000_000) + 1):
        n = count[part]
        which = np.repeat(part, n)
        step = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        y, x = centre[which, 0] + dy[step], centre[which, 1] + dx[step]
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        key = squared[step] * (len(centre) + 1) + which + 1
        np.minimum.at(best, (y * width + x)[inside], key[inside])
    owner = np.where(best == np.iinfo(np.int64).max, 0, best % (len(centre) + 1))
    return owner.reshape(height, width).astype(np.int32)


def tidy(labels: Labels, smallest: int) -> Labels:
    """Of each label the largest 4-connected piece (of equal ones the first), dropped below `smallest` pixels, its
    holes filled. A hole is background enclosed by one nucleus alone. Labels keep their numbers.

    >>> import numpy as np
    >>> ring = np.zeros((5, 9), dtype=np.int32); ring[:, :5] = 3; ring[2, 2] = 0; ring[0, 8] = 3
    >>> (tidy(ring, 1) == 3).sum()
    np.int64(25)
    """
    pieces, count = label_pieces(labels, background=0, connectivity=1, return_num=True)
    if count == 0:
        return np.zeros_like(labels)
    size = np.bincount(pieces.ravel(), minlength=count + 1)
    first = np.zeros(count + 1, dtype=np.int32)
    first[pieces.ravel()] = labels.ravel()  # the label of each piece
    # Sorted by label, then from large to small; the first of each label stays. The sort is stable.
    order = 1 + np.lexsort((-size[1:], first[1:]))
    stays = order[np.unique(first[order], return_index=True)[1]]
    keep = np.zeros(count + 1, dtype=np.int32)
    keep[stays] = np.where(size[stays] >= smallest, first[stays], 0)
    return _fill_holes(keep[pieces])


_NEIGHBOURS = (
    (np.s_[1:, :], np.s_[:-1, :]),
    (np.s_[:-1, :], np.s_[1:, :]),
    (np.s_[:, 1:], np.s_[:, :-1]),
    (np.s_[:, :-1], np.s_[:, 1:]),
)
"""Slices that lay an image over itself, one pixel apart."""


def _fill_holes(labels: Labels) -> Labels:
    """Gives each 4-connected piece of background that touches one label only, and not the border, that label."""
    pieces, count = ndimage.label(labels == 0)
    lowest = np.full(count + 1, np.iinfo(np.int32).max, dtype=np.int32)
    highest = np.zeros(count + 1, dtype=np.int32)
    for ahead, behind in _NEIGHBOURS:
        edge = (pieces[ahead] > 0) & (labels[behind] > 0)
        np.minimum.at(lowest, pieces[ahead][edge], labels[behind][edge])
        np.maximum.at(highest, pieces[ahead][edge], labels[behind][edge])
    filling = np.where(lowest == highest, highest, 0).astype(np.int32)
    for border in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        filling[border] = 0
    filling[0] = 0
    filled: Labels = labels + filling[pieces]
    return filled


def group(maps: Maps, thresholds: Thresholds) -> Grouped:
    """The nuclei of one image, numbered 1..N in the order of their centres."""
    centre = find_centres(maps, thresholds)
    labels = tidy(assign(maps, centre, thresholds), thresholds.smallest)
    present = np.bincount(labels.ravel(), minlength=len(centre) + 1)[1:] > 0
    number = np.zeros(len(centre) + 1, dtype=np.int32)
    number[1:][present] = np.arange(1, present.sum() + 1)
    centre = centre[present]
    return Grouped(number[labels], centre, maps.heat[centre[:, 0], centre[:, 1]])
