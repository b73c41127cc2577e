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

from nucleate.types import Box, Labels

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


NOTHING = -128
"""In `Votes.points`: this pixel is background."""


def vote(maps: Maps, thresholds: Thresholds, box: Box, core: Box, shape: tuple[int, int]) -> Votes:
    """The votes in `core`, from maps of `box` in an image of this shape.

    `box` holds 2 pixels more than `core` on each side, or ends with the image there.
    """
    inner = core.within(box)
    heat = maps.heat
    y, x = _peaks(heat, inner, thresholds.heat)
    candidates = Candidates(np.stack([y + core.y, x + core.x], axis=1), heat[inner][y, x], maps.radius[inner][y, x])
    points = np.full((2, core.height, core.width), NOTHING, dtype=np.int8)
    y, x = np.nonzero(maps.foreground[inner] >= thresholds.foreground)
    for axis, (place, begin, length) in enumerate(((y, core.y, shape[0]), (x, core.x, shape[1]))):
        step = np.rint(np.clip(maps.offset[axis][inner][y, x], -BOUND, BOUND)).astype(np.int64)
        absolute = place + begin
        points[axis, y, x] = np.clip(absolute + step, 0, length - 1) - absolute
    return Votes(points, candidates)


def _peaks(heat: Map, inner: tuple[slice, slice], least: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where in `inner` the heat is at least `least`, and the highest of 5 x 5 pixels; in reading order."""
    y, x = np.nonzero(heat[inner] >= least)
    around = np.pad(heat, 2, constant_values=-np.inf)
    width = around.shape[1]
    middle = (y + inner[0].start + 2) * width + x + inner[1].start + 2
    flat = around.reshape(-1)
    for dy, dx in sorted(_WINDOW, key=lambda step: step[0] ** 2 + step[1] ** 2):
        stays = flat[middle] >= flat[middle + dy * width + dx]
        middle, y, x = middle[stays], y[stays], x[stays]
    return y, x


_WINDOW = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if dy or dx]
"""Steps from a pixel to the others of the 5 x 5 around it."""


def select(candidates: Candidates, separation: float) -> NDArray[np.bool_]:
    """Which candidates are centres: those without a better one within `separation` times their own radius."""
    y, x = candidates.position.T
    keep = np.ones(y.size, dtype=np.bool_)
    if y.size < 2:
        return keep
    radius = np.minimum(separation * candidates.radius, BOUND).astype(np.float64)
    # Rank 0 is the best: coordinates ascend and the sort is stable, so equal heats keep them.
    rank = np.empty(y.size, dtype=np.int64)
    rank[np.argsort(-candidates.heat, kind="stable")] = np.arange(y.size)
    for block in np.array_split(np.arange(y.size), y.size // 1024 + 1):
        near = np.flatnonzero((y >= y[block[0]] - BOUND) & (y <= y[block[-1]] + BOUND))
        squared = (y[block, None] - y[None, near]) ** 2 + (x[block, None] - x[None, near]) ** 2
        within = squared <= np.maximum(radius[block, None], 2.0) ** 2
        keep[block] = ~(within & (rank[None, near] < rank[block, None])).any(axis=1)
    return keep


def follow(points: NDArray[np.int8], box: Box, centres: Candidates, reach: float) -> Labels:
    """Label image of `box`: for each nucleus pixel 1 + the index of the centre that it points to, or 0.

    A pixel that points out of the box gets 0; so do the pixels of centres that are not given.
    """
    labels = np.zeros(box.shape, dtype=np.int32)
    if len(centres.position) == 0:
        return labels
    owner = _nearest_centre(centres.position - (box.y, box.x), centres.radius, box.shape, reach)
    y, x = np.nonzero(points[0] != NOTHING)
    row, column = y + points[0, y, x], x + points[1, y, x]
    inside = (row >= 0) & (row < box.height) & (column >= 0) & (column < box.width)
    y, x = y[inside], x[inside]
    labels[y, x] = owner[row[inside], column[inside]]
    return labels


def _nearest_centre(centre: NDArray[np.int64], radius: Map, shape: tuple[int, int], reach: float) -> NDArray[np.int32]:
    """For each pixel, 1 + the index of the nearest centre that reaches it, else 0; of equal distances the first."""
    height, width = shape
    bound = np.clip(reach * radius, 2.0, BOUND)
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
        # A pixel of background counts as 0, and so can -128 never be met.
        points = np.where(votes.points == NOTHING, 0, votes.points)
        largest = float(votes.candidates.radius.max(initial=0.0))
        reach, separation = (
            int(np.ceil(np.clip(share * largest, 2.0, BOUND))) for share in (thresholds.reach, thresholds.separation)
        )
        return cls(int(max(points.max(initial=0), -int(points.min(initial=0)))), reach, separation)

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


def group(maps: Maps, thresholds: Thresholds) -> Grouped:
    """The nuclei of one image, numbered 1..N in the order of their centres."""
    shape = maps.heat.shape[0], maps.heat.shape[1]
    whole = Box(0, 0, *shape)
    labels, centres = join(vote(maps, thresholds, whole, whole, shape), whole, thresholds)
    present = np.bincount(labels.ravel(), minlength=len(centres.position) + 1)[1:] > 0
    number = np.zeros(len(present) + 1, dtype=np.int32)
    number[1:][present] = np.arange(1, present.sum() + 1)
    return Grouped(number[labels], centres.position[present], centres.heat[present])
