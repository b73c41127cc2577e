"""The inner loops of post-processing in plain NumPy: what `nucleate.postprocess.kernels` must equal to the last bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_pieces

from nucleate.postprocess.kernels import BACKGROUND
from nucleate.types import Labels

Taps = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Of each output of an interpolation along an axis the two pixels that it lies between, and the share of the latter."""

_WINDOW = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if dy or dx]
"""Steps from a pixel to the others of the 5 x 5 around it."""


def resample_bilinear(x: NDArray[np.float32], rows: Taps, columns: Taps) -> NDArray[np.float32]:
    """Bilinear interpolation of planes (C, H, W), first down the columns, then along the rows: each output of an axis
    is (1 - part) x[low] + part x[high], rounded to float32 after each product and sum."""
    for axis, (low, high, part) in ((1, rows), (2, columns)):
        weight = part[:, None] if axis == 1 else part
        x = x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight
    return x


def local_maxima(
    heat: NDArray[np.float32], top: int, left: int, height: int, width: int, least: float
) -> NDArray[np.int64]:
    """Where in a part of `heat`, counted from its corner, it is at least `least` and the highest of 5 x 5 pixels:
    (N, 2), in reading order."""
    y, x = np.nonzero(heat[top : top + height, left : left + width] >= least)
    around = np.pad(heat, 2, constant_values=-np.inf)
    across = around.shape[1]
    middle = (y + top + 2) * across + x + left + 2
    flat = around.reshape(-1)
    for dy, dx in sorted(_WINDOW, key=lambda step: step[0] ** 2 + step[1] ** 2):
        stays = flat[middle] >= flat[middle + dy * across + dx]
        middle, y, x = middle[stays], y[stays], x[stays]
    return np.stack([y, x], axis=1)


def vote_targets(
    foreground: NDArray[np.float32],
    offset: NDArray[np.float32],
    corner: tuple[int, int],
    shape: tuple[int, int],
    least: float,
    bound: int,
) -> NDArray[np.int8]:
    """For each pixel of a part of an image of this shape how far (y, x), int8 (2, H, W), it is to the pixel that its
    offset leads to, which lies in the image; `BACKGROUND` where the foreground is less than `least`."""
    points = np.full((2, *foreground.shape), BACKGROUND, dtype=np.int8)
    y, x = np.nonzero(foreground >= least)
    for axis, place in enumerate((y + corner[0], x + corner[1])):
        step = np.rint(np.clip(offset[axis, y, x], -bound, bound)).astype(np.int64)
        points[axis, y, x] = np.clip(place + step, 0, shape[axis] - 1) - place
    return points


def non_maximum_suppression(
    position: NDArray[np.int64], heat: NDArray[np.float32], squared: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which candidates have no better one within a squared distance; they are sorted by y, then x."""
    y, x = position.T
    keep = np.ones(y.size, dtype=np.bool_)
    # Rank 0 is the best: coordinates ascend and the sort is stable, so equal heats keep them.
    rank = np.empty(y.size, dtype=np.int64)
    rank[np.argsort(-heat, kind="stable")] = np.arange(y.size)
    furthest = int(np.ceil(np.sqrt(squared.max(initial=0.0))))
    for block in np.array_split(np.arange(y.size), y.size // 1024 + 1) if y.size else ():
        near = np.flatnonzero((y >= y[block[0]] - furthest) & (y <= y[block[-1]] + furthest))
        away = (y[block, None] - y[None, near]) ** 2 + (x[block, None] - x[None, near]) ** 2
        keep[block] = ~((away <= squared[block, None]) & (rank[None, near] < rank[block, None])).any(axis=1)
    return keep


def assign_pixels(points: NDArray[np.int8], centre: NDArray[np.int64], squared: NDArray[np.float64]) -> Labels:
    """For each pixel 1 + the index of the centre that is nearest to where it points, of those within their `squared`
    distance; 0 for background, for a pixel that points out of the array, and where there is no such centre."""
    height, width = points.shape[1:]
    labels = np.zeros((height, width), dtype=np.int32)
    if len(centre) == 0:
        return labels
    owner = _nearest(centre, squared, (height, width))
    y, x = np.nonzero(points[0] != BACKGROUND)
    row, column = y + points[0, y, x], x + points[1, y, x]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    y, x = y[inside], x[inside]
    labels[y, x] = owner[row[inside], column[inside]]
    return labels


def _nearest(centre: NDArray[np.int64], squared: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.int32]:
    """For each pixel, 1 + the index of the nearest centre that reaches it, else 0; of equal distances the first."""
    height, width = shape
    extent = int(np.ceil(np.sqrt(squared.max())))
    dy, dx = np.mgrid[-extent : extent + 1, -extent : extent + 1].reshape(2, -1)
    away = dy**2 + dx**2
    order = np.argsort(away, kind="stable")
    dy, dx, away = dy[order], dx[order], away[order]
    count = np.searchsorted(away, squared, side="right")
    best = np.full(height * width, np.iinfo(np.int64).max)
    for part in np.array_split(np.arange(len(centre)), int(count.sum() // 4_000_000) + 1):
        n = count[part]
        which = np.repeat(part, n)
        step = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        y, x = centre[which, 0] + dy[step], centre[which, 1] + dx[step]
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        key = away[step] * (len(centre) + 1) + which + 1
        np.minimum.at(best, (y * width + x)[inside], key[inside])
    owner = np.where(best == np.iinfo(np.int64).max, 0, best % (len(centre) + 1))
    return owner.reshape(height, width).astype(np.int32)


def keep_largest_component(labels: Labels, min_area: int) -> Labels:
    """As `instances_from_maps.keep_largest_component`."""
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
    keep[stays] = np.where(size[stays] >= min_area, first[stays], 0)
    return _fill_holes(keep[pieces])


def _fill_holes(labels: Labels) -> Labels:
    """Gives each 4-connected piece of background that touches one label only, and not the border, that label."""
    pieces, count = ndimage.label(labels == 0)
    enclosed = np.ones(count + 1, dtype=np.bool_)
    enclosed[0] = False
    for border in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        enclosed[border] = False
    flat = np.flatnonzero(enclosed[pieces])
    piece, around = pieces.reshape(-1)[flat], labels.reshape(-1)
    lowest = np.full(count + 1, np.iinfo(np.int32).max, dtype=np.int32)
    highest = np.zeros(count + 1, dtype=np.int32)
    for step in (-labels.shape[1], -1, 1, labels.shape[1]):
        near = around[flat + step]
        edge = near > 0
        np.minimum.at(lowest, piece[edge], near[edge])
        np.maximum.at(highest, piece[edge], near[edge])
    filled = labels.copy()
    filled.reshape(-1)[flat] = np.where(lowest == highest, highest, 0)[piece]
    return filled


def accumulate(
    labels: Labels, chosen: NDArray[np.bool_], columns: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Of each label k + 1 that is `chosen` how many pixels it has, the sums over them of y, of x and of each of the
    columns (C, H, W), together (2 + C, K), and their box: top, left, bottom, right, (K, 4).

    A sum runs over the pixels in reading order, so that it is the same to the last bit in whichever array they lie.
    """
    count = len(chosen)
    flat = np.flatnonzero(np.concatenate([[False], chosen])[labels])
    ids = labels.reshape(-1)[flat]
    area = np.bincount(ids, minlength=count + 1)[1:]
    weights = [*np.divmod(flat, labels.shape[1]), *(one.reshape(-1)[flat] for one in columns)]
    sums = np.array([np.bincount(ids, weights=one, minlength=count + 1)[1:] for one in weights], dtype=np.float64)
    edges = np.zeros((count, 4), dtype=np.int64)
    for k, place in enumerate(ndimage.find_objects(labels, max_label=count)):
        if place is not None and chosen[k]:
            edges[k] = place[0].start, place[1].start, place[0].stop, place[1].stop
    return area, sums, edges


def pack_masks(labels: Labels, which: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Of each label k + 1, k in `which`, the pixels of its box in reading order, eight to a byte, the last filled up
    with 0."""
    parts = [
        np.packbits(labels[top:bottom, left:right] == k + 1) for k, (top, left, bottom, right) in _of(which, edges)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint8)


def _of(which: NDArray[np.int64], edges: NDArray[np.int64]) -> list[tuple[int, list[int]]]:
    return list(zip(which.tolist(), edges[which].tolist(), strict=True))


def paint_masks(
    labels: NDArray[np.uint32],
    packed: NDArray[np.uint8],
    starts: NDArray[np.int64],
    edges: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> None:
    """Write numbers into `labels` where masks have pixels: mask k, as `pack` makes it, begins at byte `starts[k]`, and
    its box, (K, 4) as above, may lie in part outside."""
    height, width = labels.shape
    for start, (top, left, bottom, right), number in zip(
        starts.tolist(), edges.tolist(), numbers.tolist(), strict=True
    ):
        size = (bottom - top) * (right - left)
        mask = np.unpackbits(packed[start : start + (size + 7) // 8], count=size).reshape(bottom - top, right - left)
        y, x, below, beyond = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
        if y < below and x < beyond:
            labels[y:below, x:beyond][mask[y - top : below - top, x - left : beyond - left] > 0] = number
