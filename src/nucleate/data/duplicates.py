"""Images of one and the same picture, also where it was turned, mirrored, resized, re-encoded, or brightened.

Each image is averaged over a grid, and what is compared is the correlation of two grids, which does not see brightness
and contrast, in all eight orientations. A coarse grid finds pairs quickly; but two fields under one uneven lamp, or
with nuclei in one corner, may agree in it. So a pair must also agree in the detail of a finer grid, its local mean
taken away, where noise and other nuclei do not.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleate.types import Image, Pixels

COARSE, FINE = 32, 64
"""Cells along a side of the two grids."""

ALIKE, SURE = 0.95, 0.7
"""The correlation of two near-duplicates is above the first in the coarse grid, above the second in the detail of the
fine one. Of all 133,903 pairs of 518 real images one has both, two moments of one embryo, and no other has either
(BBBC038v1, November 2026)."""

_SMOOTH, _MARGIN = 3.0, 6  # cells of the fine grid: what counts as the local mean, and where that lacks a side
_SAID = 20  # pictures that are named
_BLOCK = 1024  # images whose correlations with all others are in memory at once

Grid = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """What is compared of an image: its grids, of mean 0 and length 1."""

    coarse: Grid
    fine: Grid

    @classmethod
    def of(cls, pixels: Pixels) -> Thumbnail | None:
        """Those of an image (height, width, channels), the mean of its channels; None where there is nothing to
        compare, as in a constant image.

        >>> Thumbnail.of(np.zeros((90, 70, 1), np.uint8)) is None
        True
        >>> Thumbnail.of(np.arange(90 * 70).reshape(90, 70, 1) % 97).fine.shape
        (52, 52)
        """
        grey = pixels.mean(axis=2, dtype=np.float32 if pixels.dtype.itemsize < 4 else np.float64)
        fine = _averaged(_averaged(grey, FINE).T, FINE).T
        coarse = fine.reshape(COARSE, FINE // COARSE, COARSE, FINE // COARSE).mean((1, 3))
        detail: NDArray[np.floating] = fine
        for _ in range(2):  # once would leave the curvature of uneven light
            detail = detail - ndimage.gaussian_filter(detail, _SMOOTH, mode="nearest", radius=_MARGIN)
        whole, inner = _unit(coarse), _unit(detail[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN])
        return None if whole is None or inner is None else cls(whole, inner)


def near_duplicates(thumbnails: Sequence[Thumbnail | None]) -> list[list[int]]:
    """The groups of two or more images that show the same picture, each by their numbers, in order.

    Of an image that is None none is found. Two images are of one group also where only others lead from one to the
    other, as in a film that moves slowly.

    >>> image = np.random.default_rng(0).random((80, 80, 1))
    >>> near_duplicates([Thumbnail.of(one) for one in (image, 1 - image, np.rot90(image) * 90 + 7)])
    [[0, 2]]
    """
    known = [number for number, one in enumerate(thumbnails) if one is not None]
    if not known:
        return []
    present = [one for one in thumbnails if one is not None]
    coarse = np.stack([one.coarse.reshape(-1) for one in present])
    group = np.arange(len(present))
    for begin in range(0, len(present), _BLOCK):
        block = present[begin : begin + _BLOCK]
        best = np.max([_turned(block, "coarse", turn) @ coarse[begin:].T for turn in range(8)], axis=0)
        for row, one in enumerate(block, start=begin):
            likely = row + 1 + np.flatnonzero(best[row - begin, row - begin + 1 :] > ALIKE)
            likely = likely[group[likely] != group[row]]
            for place in likely[_agrees(one, [present[place] for place in likely])]:
                group[group == group[place]] = group[row]
    found = [[known[place] for place in np.flatnonzero(group == number)] for number in np.unique(group)]
    return sorted(one for one in found if len(one) > 1)


class Pictures:
    """The pictures of many images, some of them held for validation, of which those are named that are the same."""

    def __init__(self) -> None:
        self._names, self._held = list[str](), list[bool]()
        self._digests, self._thumbnails = list[str](), list[Thumbnail | None]()

    def add(self, name: str, image: Image, *, held: bool = False) -> None:
        """One more image; nothing of it is kept but a few numbers."""
        self._names.append(name)
        self._held.append(held)
        self._digests.append(_digest(image))
        self._thumbnails.append(Thumbnail.of(image.pixels))

    def sentences(self) -> list[str]:
        """One for each picture that several images show; what training and validation share comes first."""
        found = [*map(self._copies, self._files), *map(self._alike, self._alike_groups)]
        return [*self.leaks(), *_first([*filter(None, found)])]

    def leaks(self) -> list[str]:
        """One for each picture that is shown both in training and in validation."""
        alike = self._alike_groups
        # Copies of a constant image, in which nothing can be compared, are in no group of the others.
        groups = [*alike, *(one for one in self._files if not any(set(one) <= set(other) for other in alike))]
        return _first([self._leak(one) for one in groups if len({self._held[number] for number in one}) > 1])

    @cached_property
    def _files(self) -> list[list[int]]:
        """The groups of images that are the same file."""
        files = defaultdict[str, list[int]](list)
        for number, digest in enumerate(self._digests):
            files[digest].append(number)
        return [group for group in files.values() if len(group) > 1]

    @cached_property
    def _alike_groups(self) -> list[list[int]]:
        return near_duplicates(self._thumbnails)

    def _own(self, group: Sequence[int], *, held: bool = False) -> list[str]:
        return [self._names[number] for number in group if self._held[number] == held]

    def _leak(self, group: Sequence[int]) -> str:
        own, held = self._own(group), self._own(group, held=True)
        return (
            f"{listed(own)} and, for validation, {listed(held)} show the same picture, so a score on it is too good:"
            " take it out of one of the two."
        )

    def _copies(self, group: Sequence[int]) -> str | None:
        own = self._own(group)
        return f"{', '.join(own)} are the same file." if len(own) > 1 else None

    def _alike(self, group: Sequence[int]) -> str | None:
        own = self._own(group)
        if len(own) < 2 or len({self._digests[number] for number in group if not self._held[number]}) < 2:
            return None
        return (
            f"{listed(own)} show the same picture or nearly so (near-duplicates): keep one, as the others teach little"
            " and a score on them is too good."
        )


def shared(training: Iterable[Image], validation: Iterable[Image]) -> list[str]:
    """A sentence for each picture that images of both show; none for those of one alone."""
    pictures = Pictures()
    for image in training:
        pictures.add(image.name, image)
    for image in validation:
        pictures.add(image.name, image, held=True)
    return pictures.leaks()


def listed(names: Sequence[str]) -> str:
    """The first names of many."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _first(sentences: Sequence[str]) -> list[str]:
    left = len(sentences) - _SAID
    return [*sentences[:_SAID], *([f"So it is with {left} more pictures."] if left > 0 else [])]


def _digest(image: Image) -> str:
    """The same for the same file; for the same pixels, where an image is a folder."""
    whole = image.path.read_bytes() if image.path is not None and image.path.is_file() else image.pixels.tobytes()
    return hashlib.sha256(whole).hexdigest()


def _agrees(one: Thumbnail, others: Sequence[Thumbnail]) -> NDArray[np.bool_]:
    """Which of the others show the detail of one."""
    if not others:
        return np.zeros(0, np.bool_)
    fine = np.stack([other.fine.reshape(-1) for other in others])
    return np.asarray(np.max([fine @ _turned([one], "fine", turn)[0] for turn in range(8)], axis=0) > SURE)


def _turned(thumbnails: Sequence[Thumbnail], grid: str, turn: int) -> Grid:
    """Their grids in one of eight orientations, a row each."""
    whole = np.stack([getattr(one, grid) for one in thumbnails])
    whole = np.rot90(whole.transpose(0, 2, 1) if turn >= 4 else whole, turn, (1, 2))
    return whole.reshape(len(thumbnails), -1)


def _averaged(rows: NDArray[np.floating], cells: int) -> NDArray[np.float64]:
    """The means over so many equal parts of the first axis, of rows that are cut where a part ends within them."""
    summed = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0, dtype=np.float64)])
    edges = np.arange(cells + 1) * len(rows) / cells
    low = np.minimum(edges.astype(np.int64), len(rows) - 1)
    part = (edges - low)[:, None]
    return np.asarray(np.diff(summed[low] * (1 - part) + summed[low + 1] * part, axis=0) * (cells / len(rows)))


def _unit(grid: NDArray[np.floating]) -> Grid | None:
    """Less its mean, of length 1; None where nothing varies."""
    centred = grid - grid.mean()
    length = float(np.linalg.norm(centred))
    scale = float(np.abs(grid).max()) * grid.size
    return None if length <= 1e-9 * scale else (centred / length).astype(np.float32)
