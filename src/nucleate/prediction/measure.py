"""The nuclei of one tile: where each lies, which pixels it has, and what is measured over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleate.objects.grouping import BOUND, Candidates, Votes
from nucleate.types import Box, Labels, Pixels

NUCLEUS = np.dtype(
    [
        ("name", "<i8"),
        ("y", "<f8"),
        ("x", "<f8"),
        ("mean", "<f8"),
        ("entropy", "<f8"),
        ("score", "<f4"),
        ("area", "<i4"),
        ("top", "<i4"),
        ("left", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("bounded", "<u1"),
    ]
)
"""One nucleus on disk. `name` is y 2^32 + x of its centre, so that names rise in the order of centres; `y`, `x` its
centroid, `top` ... `width` its box, all in pixels of the segmented level; `mean` of its pixels' values; `entropy` in
bits, NaN where it was not asked for; `bounded`: something of it reaches as far as is looked at."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`rows` (K,) of type `NUCLEUS` in the order of their names, and their `masks`: of each nucleus in turn the pixels
    of its box in reading order, eight to a byte, the last byte filled up with 0."""

    rows: NDArray[np.void]
    masks: NDArray[np.uint8]


def names(position: NDArray[np.int64]) -> NDArray[np.int64]:
    """The names of centres (N, 2).

    >>> names(np.array([[0, 7], [1, 0]])).tolist()
    [7, 4294967296]
    """
    return np.asarray(position[:, 0] << 32 | position[:, 1], dtype=np.int64)


def mask_bytes(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """How many bytes each nucleus takes in `Measured.masks`."""
    return np.asarray((rows["height"].astype(np.int64) * rows["width"] + 7) // 8)


def measure(
    labels: Labels,
    box: Box,
    centres: Candidates,
    own: NDArray[np.bool_],
    pixels: Pixels,
    entropy: NDArray[np.float16] | None = None,
    at_bound: NDArray[np.bool_] | None = None,
) -> Measured:
    """Of the nuclei in `box`, label k + 1 that of centre k, those that are `own` and have a pixel there.

    Centroid, area, mean over the nucleus' pixels and all channels of the image's own values, score (the heat at the
    centre) and mean entropy. Each sum runs over the pixels of the nucleus in reading order, so that it is the same to
    the last bit in whichever box the nucleus lies.
    """
    count = len(own)
    chosen = np.concatenate([[False], own])[labels]
    flat = np.flatnonzero(chosen)
    ids = labels.reshape(-1)[flat]
    area = np.bincount(ids, minlength=count + 1)[1:]
    there = np.flatnonzero(area)
    rows = np.zeros(len(there), dtype=NUCLEUS)
    if not len(there):
        return Measured(rows, np.zeros(0, dtype=np.uint8))
    y, x = np.divmod(flat, box.width)
    values = pixels.reshape(-1, pixels.shape[2])[flat]
    bright = values[:, 0] if values.shape[1] == 1 else values.mean(axis=1, dtype=np.float64)
    columns = {"y": y + box.y, "x": x + box.x, "mean": bright}
    if entropy is not None:
        columns["entropy"] = entropy.reshape(-1)[flat]
    rows["entropy"] = np.nan
    for name, weights in columns.items():
        rows[name] = (np.bincount(ids, weights=weights, minlength=count + 1)[1:] / np.maximum(area, 1))[there]
    rows["name"], rows["score"], rows["area"] = names(centres.position)[there], centres.heat[there], area[there]
    if at_bound is not None:
        rows["bounded"] = np.bincount(ids, weights=at_bound.reshape(-1)[flat], minlength=count + 1)[1:][there] > 0
    places = ndimage.find_objects(labels, max_label=count)
    masks = []
    for row, k in zip(rows, there, strict=True):
        down, across = places[k]
        masks.append(np.packbits(labels[down, across] == k + 1))
        row["top"], row["left"] = down.start + box.y, across.start + box.x
        row["height"], row["width"] = down.stop - down.start, across.stop - across.start
    return Measured(rows, np.concatenate(masks))


def reaches_bound(votes: Votes, box: Box, area: Box) -> NDArray[np.bool_]:
    """Which pixels of `area`, a part of the box that the votes hold, point as far as can be."""
    inner = area.within(box)
    return np.asarray((np.abs(votes.points[:, *inner].astype(np.int16)) == BOUND).any(axis=0))
