"""The nuclei of one tile: where each lies, which pixels it has, and what is measured over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleate.postprocess import kernels
from nucleate.postprocess.instances_from_maps import MAX_DISTANCE, Candidates, Votes
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
bits, NaN where it was not asked for;
`bounded`: it extends to the longest distance that is searched, so it may be larger."""


def nucleus_type(channels: int = 0) -> np.dtype[np.void]:
    """`NUCLEUS`, and after it the mean of its pixels in each of so many channels: channel 0, channel 1 ..."""
    return np.dtype([*NUCLEUS.descr, *((f"channel {place}", "<f8") for place in range(channels))])


@dataclass(frozen=True, slots=True)
class Measured:
    """`rows` (K,) of a `nucleus_type` in the order of their names, and their `masks`: of each nucleus in turn the
    pixels of its box in reading order, eight to a byte, the last byte filled up with 0."""

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
    every: Pixels | None = None,
) -> Measured:
    """Of the nuclei in `box`, label k + 1 that of centre k, those that are `own` and have a pixel there.

    Centroid, area, mean over the nucleus' pixels and all channels of the image's own values, score (the heat at the
    centre), mean entropy, and the means in the channels of `every`. Each sum runs over the pixels of the nucleus in
    reading order, so that it is the same to the last bit in whichever box the nucleus lies.
    """
    columns = {"mean": pixels[..., 0] if pixels.shape[2] == 1 else pixels.mean(axis=2, dtype=np.float64)}
    columns |= {name: one for name, one in (("entropy", entropy), ("bounded", at_bound)) if one is not None}
    channels = 0 if every is None else every.shape[2]
    columns |= {f"channel {place}": every[..., place] for place in range(channels) if every is not None}
    area, sums, edges = kernels.accumulate(labels, own, np.stack([*columns.values()], dtype=np.float64))
    there = np.flatnonzero(area)
    rows = np.zeros(len(there), dtype=nucleus_type(channels))
    rows["entropy"] = np.nan
    for name, total in zip(columns, sums[2:, there], strict=True):
        rows[name] = total > 0 if name == "bounded" else total / area[there]
    # Whole numbers, so exact, in whichever box.
    rows["y"], rows["x"] = (
        (sums[axis] + area * begin)[there] / area[there] for axis, begin in enumerate((box.y, box.x))
    )
    rows["name"], rows["score"], rows["area"] = names(centres.position)[there], centres.heat[there], area[there]
    top, left, bottom, right = edges[there].T
    rows["top"], rows["left"], rows["height"], rows["width"] = top + box.y, left + box.x, bottom - top, right - left
    return Measured(rows, kernels.pack_masks(labels, there, edges))


def reaches_bound(votes: Votes, box: Box, area: Box) -> NDArray[np.bool_]:
    """Which pixels of `area`, a part of the box that the votes hold, point as far as can be."""
    inner = area.within(box)
    return np.asarray((np.abs(votes.points[:, *inner].astype(np.int16)) == MAX_DISTANCE).any(axis=0))
