"""What the network gives at each pixel -> nuclei.

1. Candidates are the local maxima of the heat in a window of 5 x 5 pixels, above `heat`, where the foreground is sure:
   its mean over the 3 x 3 pixels there is at least `certainty`.
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

from nucleate.postprocess.plain_steps import NOTHING
from nucleate.postprocess.steps import fastest
from nucleate.types import Box, Labels, Map, Maps, Thresholds

BOUND = 64
"""Pixels: no offset, separation or reach extends further."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """`labels` (H, W), 0..N in the order of the centres' coordinates; `centre` (N, 2); `score` (N,), the heat there."""

    labels: Labels
    centre: NDArray[np.int64]
    score: Map


@dataclass(frozen=True, slots=True)
class Candidates:
    """Places that may be centres: `position` (N, 2) in the whole image, sorted by y, then x; the `heat` and the
    predicted `radius` (N,) there."""

    position: NDArray[np.int64]
    heat: Map
    radius: Map

    def __getitem__(self, chosen: NDArray[np.generic]) -> Candidates:
        return Candidates(self.position[chosen], self.heat[chosen], self.radius[chosen])


@dataclass(frozen=True, slots=True)
class Votes:
    """All that grouping needs of the maps in a box: for each pixel, int8 (2, H, W), how far (y, x) it is to the pixel
    that it points at, `NOTHING` in both where it is no nucleus; and the candidates in the box."""

    points: NDArray[np.int8]
    candidates: Candidates


def vote(maps: Maps, thresholds: Thresholds, box: Box, core: Box, shape: tuple[int, int]) -> Votes:
    """The votes in `core`, from maps of `box` in an image of this shape.

    `box` holds 2 pixels more than `core` on each side, or ends with the image there.
    """
    inner = core.within(box)
    steps, heat = fastest(maps.heat.size), np.ascontiguousarray(maps.heat)
    peaks = steps.peaks(heat, inner[0].start, inner[1].start, *core.shape, np.float32(thresholds.heat))
    y, x = peaks.T
    peaks = peaks[_sureness(maps.foreground, y + inner[0].start, x + inner[1].start) >= thresholds.certainty]
    y, x = peaks.T
    candidates = Candidates(peaks + np.array([core.y, core.x]), maps.heat[inner][y, x], maps.radius[inner][y, x])
    points = steps.point(
        maps.foreground[inner],
        maps.offset[:, *inner],
        (core.y, core.x),
        shape,
        np.float32(thresholds.foreground),
        BOUND,
    )
    return Votes(points, candidates)


def _sureness(foreground: Map, y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over the 3 x 3 pixels at each place; those of the border are repeated beyond it."""
    height, width = foreground.shape
    rows, columns = np.clip(y[:, None] + (-1, 0, 1), 0, height - 1), np.clip(x[:, None] + (-1, 0, 1), 0, width - 1)
    # In float64 nine probabilities are added without rounding that could depend on their order.
    mean: NDArray[np.float64] = foreground[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2), dtype=np.float64)
    return mean


def select(candidates: Candidates, separation: float) -> NDArray[np.bool_]:
    """Which candidates are centres: those without a better one within `separation` times their own radius."""
    within = np.clip(separation * candidates.radius, 2.0, BOUND).astype(np.float64) ** 2
    keep: NDArray[np.bool_] = fastest(0).select(candidates.position, candidates.heat, within)
    return keep


def follow(points: NDArray[np.int8], box: Box, centres: Candidates, reach: float) -> Labels:
    """Label image of `box`: for each nucleus pixel 1 + the index of the centre that it points to, or 0.

    A pixel that points out of the box gets 0; so do the pixels of centres that are not given.
    """
    within = (np.clip(reach * centres.radius, 2.0, BOUND) ** 2).astype(np.float64)
    labels: Labels = fastest(points[0].size).follow(
        np.ascontiguousarray(points), centres.position - (box.y, box.x), within
    )
    return labels


@dataclass(frozen=True, slots=True)
class Extent:
    """How far things reach, in whole pixels along an axis: from a pixel to where it points, from there to its centre,
    from a candidate to its rival. Each is at most `BOUND`; where nuclei are small, much less."""

    points: int = BOUND
    reach: int = BOUND
    separation: int = BOUND

    @classmethod
    def of(cls, votes: Votes, thresholds: Thresholds) -> Extent:
        """The furthest that these votes reach."""
        # In whole numbers without sign, background, -128, becomes the largest instead of the smallest.
        raised = votes.points.view(np.uint8) - np.uint8(NOTHING + 1 & 255)
        largest = float(votes.candidates.radius.max(initial=0.0))
        reach, separation = (
            int(np.ceil(np.clip(share * largest, 2.0, BOUND))) for share in (thresholds.reach, thresholds.separation)
        )
        lowest = int(raised.min(initial=-NOTHING - 1)) + NOTHING + 1
        return cls(max(int(votes.points.max(initial=0)), -lowest), reach, separation)

    def __or__(self, other: Extent) -> Extent:
        return Extent(
            max(self.points, other.points), max(self.reach, other.reach), max(self.separation, other.separation)
        )

    @property
    def nucleus(self) -> int:
        """No pixel of a nucleus is further from its centre."""
        return self.points + self.reach

    @property
    def context(self) -> int:
        """A nucleus, all its pixels, depends on no votes further from its centre.

        Its pixels and its holes lie within `nucleus` of the centre. What lies in a hole may be a pixel of another
        nucleus, which falls away if a larger piece of that one lies elsewhere, within twice `nucleus`; one pixel more
        shows where that piece ends. Each of these pixels belongs to some centre within `nucleus` of it, and whether
        that is a centre depends on rivals within `separation`.
        """
        return 4 * self.nucleus + 1 + self.separation


def join(votes: Votes, box: Box, thresholds: Thresholds) -> tuple[Labels, Candidates]:
    """The nuclei of a box: label k + 1 for centre k, and the centres. Those whose centre lies within `Extent.context`
    of an edge of the box that is no edge of the image may differ from those of the image."""
    centres = votes.candidates[select(votes.candidates, thresholds.separation)]
    labels = follow(votes.points, box, centres, thresholds.reach)
    return tidy(labels, thresholds.smallest), centres


def tidy(labels: Labels, smallest: int) -> Labels:
    """Of each label the largest 4-connected piece (of equal ones the first), dropped below `smallest` pixels, its
    holes filled. A hole is background enclosed by one nucleus alone. Labels keep their numbers.

    >>> import numpy as np
    >>> ring = np.zeros((5, 9), dtype=np.int32); ring[:, :5] = 3; ring[2, 2] = 0; ring[0, 8] = 3
    >>> (tidy(ring, 1) == 3).sum()
    np.int64(25)
    """
    tidied: Labels = fastest(labels.size).tidy(np.ascontiguousarray(labels), smallest)
    return tidied


def group(maps: Maps, thresholds: Thresholds) -> Grouped:
    """The nuclei of one image, numbered 1..N in the order of their centres."""
    shape = maps.heat.shape[0], maps.heat.shape[1]
    whole = Box(0, 0, *shape)
    labels, centres = join(vote(maps, thresholds, whole, whole, shape), whole, thresholds)
    present = np.bincount(labels.ravel(), minlength=len(centres.position) + 1)[1:] > 0
    number = np.zeros(len(present) + 1, dtype=np.int32)
    number[1:][present] = np.arange(1, present.sum() + 1)
    return Grouped(number[labels], centres.position[present], centres.heat[present])
