"""What the network gives at each pixel -> instances, one label a nucleus.

1. Candidates are the local maxima of the centre heatmap in a window of 5 x 5 pixels, above `peak_threshold`, where the
   foreground is sure: its mean over the 3 x 3 pixels there is at least `seed_foreground`.
2. Non-maximum suppression: a candidate is a centre unless a better one lies within `nms_radius` times its own predicted
   radius. Better means a higher heat; of equal heats, the smaller coordinate. A candidate is compared with all others,
   also with suppressed ones, so that the answer depends on a bounded surrounding only.
3. Pixels are assigned: a pixel is nucleus where the probability of the foreground is at least `foreground`. It votes
   for pixel + offset and belongs to the centre nearest to that point, if one lies within `assign_radius` times that
   centre's radius.
4. Of each instance the largest connected component stays, its holes are filled, and it is dropped below `min_area`
   pixels.

Both radii are at least 2 pixels, and every distance is at most `MAX_DISTANCE`, so the label of a pixel depends only on
what lies within a known distance, and an instance is named by the coordinates of its centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleate.postprocess import kernels
from nucleate.postprocess.kernels import BACKGROUND
from nucleate.types import Box, Labels, Map, Maps, Thresholds

MAX_DISTANCE = 64
"""Pixels: no offset, `nms_radius` or `assign_radius` extends further."""


@dataclass(frozen=True, slots=True)
class LabelledCentres:
    """The instances of one image: `labels` (H, W), 0..N in the order of the centres' coordinates; `centre` (N, 2);
    `score` (N,), the heat there."""

    labels: Labels
    centre: NDArray[np.int64]
    score: Map


@dataclass(frozen=True, slots=True)
class Candidates:
    """Peaks of the heatmap that may be centres: `position` (N, 2) in the whole image, sorted by y, then x; the `heat`
    and the predicted `radius` (N,) there."""

    position: NDArray[np.int64]
    heat: Map
    radius: Map

    def __getitem__(self, chosen: NDArray[np.generic]) -> Candidates:
        return Candidates(self.position[chosen], self.heat[chosen], self.radius[chosen])


@dataclass(frozen=True, slots=True)
class Votes:
    """All that is needed of the maps in a box: for each pixel, int8 (2, H, W), how far (y, x) it is to the pixel that
    it votes for, `BACKGROUND` in both where it is no nucleus; and the candidates in the box."""

    points: NDArray[np.int8]
    candidates: Candidates


def cast_votes(maps: Maps, thresholds: Thresholds, box: Box, core: Box, shape: tuple[int, int]) -> Votes:
    """The votes in `core`, from maps of `box` in an image of this (height, width).

    `box` holds 2 pixels more than `core` on each side, or ends with the image there.
    """
    inner = core.within(box)
    heat = np.ascontiguousarray(maps.heat)
    peaks = kernels.local_maxima(
        heat, inner[0].start, inner[1].start, *core.shape, np.float32(thresholds.peak_threshold)
    )
    y, x = peaks.T
    sure = _mean_of_3x3(maps.foreground, y + inner[0].start, x + inner[1].start) >= thresholds.seed_foreground
    peaks = peaks[sure]
    y, x = peaks.T
    candidates = Candidates(peaks + np.array([core.y, core.x]), maps.heat[inner][y, x], maps.radius[inner][y, x])
    points = kernels.vote_targets(
        maps.foreground[inner],
        maps.offset[:, *inner],
        (core.y, core.x),
        shape,
        np.float32(thresholds.foreground),
        MAX_DISTANCE,
    )
    return Votes(points, candidates)


def _mean_of_3x3(foreground: Map, y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over the 3 x 3 pixels at each place; those of the border are repeated beyond it."""
    height, width = foreground.shape
    rows, columns = np.clip(y[:, None] + (-1, 0, 1), 0, height - 1), np.clip(x[:, None] + (-1, 0, 1), 0, width - 1)
    # In float64 nine probabilities are added without rounding that could depend on their order.
    mean: NDArray[np.float64] = foreground[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2), dtype=np.float64)
    return mean


def non_maximum_suppression(candidates: Candidates, nms_radius: float) -> NDArray[np.bool_]:
    """Which candidates are centres: those without a better one within `nms_radius` times their own radius."""
    within = np.clip(nms_radius * candidates.radius, 2.0, MAX_DISTANCE).astype(np.float64) ** 2
    keep: NDArray[np.bool_] = kernels.non_maximum_suppression(candidates.position, candidates.heat, within)
    return keep


def assign_pixels(points: NDArray[np.int8], box: Box, centres: Candidates, assign_radius: float) -> Labels:
    """Label image of `box`: for each nucleus pixel 1 + the index of the centre that it votes for, or 0.

    A pixel that votes for a place outside the box gets 0; so do the pixels of centres that are not given.
    """
    within = (np.clip(assign_radius * centres.radius, 2.0, MAX_DISTANCE) ** 2).astype(np.float64)
    labels: Labels = kernels.assign_pixels(np.ascontiguousarray(points), centres.position - (box.y, box.x), within)
    return labels


@dataclass(frozen=True, slots=True)
class Extent:
    """How far things extend, in whole pixels along an axis: from a pixel to where it votes, from there to its centre,
    from a candidate to its rival. Each is at most `MAX_DISTANCE`; where nuclei are small, much less."""

    vote: int = MAX_DISTANCE
    assign: int = MAX_DISTANCE
    nms: int = MAX_DISTANCE

    @classmethod
    def of(cls, votes: Votes, thresholds: Thresholds) -> Extent:
        """The furthest that these votes extend."""
        # In whole numbers without sign, background, -128, becomes the largest instead of the smallest.
        raised = votes.points.view(np.uint8) - np.uint8(BACKGROUND + 1 & 255)
        largest = float(votes.candidates.radius.max(initial=0.0))
        assign, nms = (
            int(np.ceil(np.clip(share * largest, 2.0, MAX_DISTANCE)))
            for share in (thresholds.assign_radius, thresholds.nms_radius)
        )
        lowest = int(raised.min(initial=-BACKGROUND - 1)) + BACKGROUND + 1
        return cls(max(int(votes.points.max(initial=0)), -lowest), assign, nms)

    def __or__(self, other: Extent) -> Extent:
        return Extent(max(self.vote, other.vote), max(self.assign, other.assign), max(self.nms, other.nms))

    @property
    def nucleus(self) -> int:
        """No pixel of a nucleus is further from its centre."""
        return self.vote + self.assign

    @property
    def context(self) -> int:
        """A nucleus, all its pixels, depends on no votes further from its centre.

        Its pixels and its holes lie within `nucleus` of the centre. What lies in a hole may be a pixel of another
        nucleus, which falls away if a larger component of that one lies elsewhere, within twice `nucleus`; one pixel
        more shows where that component ends. Each of these pixels belongs to some centre within `nucleus` of it, and
        whether that is a centre depends on rivals within `nms`.
        """
        return 4 * self.nucleus + 1 + self.nms


def instances_from_votes(votes: Votes, box: Box, thresholds: Thresholds) -> tuple[Labels, Candidates]:
    """The instances of a box: label k + 1 for centre k, and the centres. Those whose centre lies within
    `Extent.context` of an edge of the box that is no edge of the image may differ from those of the image."""
    centres = votes.candidates[non_maximum_suppression(votes.candidates, thresholds.nms_radius)]
    labels = assign_pixels(votes.points, box, centres, thresholds.assign_radius)
    return keep_largest_component(labels, thresholds.min_area), centres


def keep_largest_component(labels: Labels, min_area: int) -> Labels:
    """Of each label the largest 4-connected component (of equal ones the first), its holes filled.

    A label below `min_area` pixels is dropped. A hole is background enclosed by one instance alone. Labels keep their
    numbers.

    >>> import numpy as np
    >>> ring = np.zeros((5, 9), dtype=np.int32); ring[:, :5] = 3; ring[2, 2] = 0; ring[0, 8] = 3
    >>> (keep_largest_component(ring, 1) == 3).sum()
    np.int64(25)
    """
    kept: Labels = kernels.keep_largest_component(np.ascontiguousarray(labels), min_area)
    return kept


def instances_from_maps(maps: Maps, thresholds: Thresholds) -> LabelledCentres:
    """The instances of one image, numbered 1..N in the order of their centres."""
    shape = maps.heat.shape[0], maps.heat.shape[1]
    whole = Box(0, 0, *shape)
    votes = cast_votes(maps, thresholds, whole, whole, shape)
    labels, centres = instances_from_votes(votes, whole, thresholds)
    present = np.bincount(labels.ravel(), minlength=len(centres.position) + 1)[1:] > 0
    number = np.zeros(len(present) + 1, dtype=np.int32)
    number[1:][present] = np.arange(1, present.sum() + 1)
    return LabelledCentres(number[labels], centres.position[present], centres.heat[present])
