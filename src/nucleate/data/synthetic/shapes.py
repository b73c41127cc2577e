"""Outlines of drawn nuclei: smooth random closed shapes, placed so that some touch and a few overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, cos, exp, pi, sin, sqrt

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from nucleate.types import Labels

FloatImage = NDArray[np.float64]

SMALLEST_AREA = 10
"""Pixels: a nucleus with fewer visible pixels (a sliver at the border, say) gets no label."""

_REACH = 1.7
"""A patch covers a nucleus out to this many times its own outline, so that its cytoplasm can be drawn too."""


@dataclass(frozen=True, slots=True)
class NucleusKind:
    """How one sort of nucleus looks: size and stain relative to the usual one, aspect ratio, texture."""

    size: float = 1.0
    aspect: float = 1.3
    strength: float = 1.0
    clumps: float = 0.2
    rim: float = 0.0
    roughness: float = 0.045


@dataclass(frozen=True, slots=True)
class Patch:
    """A drawn nucleus: `level` is 0 at the centre and 1 on the outline; `cover` the share of each pixel inside."""

    kind: NucleusKind
    radius: float
    box: tuple[slice, slice]
    level: FloatImage
    cover: FloatImage


def place(
    rng: Generator,
    shape: tuple[int, int],
    diameter: float,
    cover: float,
    clustering: float,
    choose: Callable[[float, float], tuple[NucleusKind, float] | None],
) -> list[Patch]:
    """Draw nuclei, one on top of the other, until they cover the share asked for or no more fit.

    A share `clustering` of them is set beside one that is there already, so that nuclei touch; a tenth of all may
    overlap. Centres may lie outside, so that the border cuts nuclei as it does in a real image.
    """
    taken = np.zeros(shape, bool)
    patches: list[Patch] = []
    centres: list[tuple[float, float, float]] = []
    margin = diameter / 2
    for _ in range(ceil(12 * shape[0] * shape[1] / diameter**2)):
        radius = diameter / 2 * exp(rng.normal(0, 0.17))
        y, x = (rng.uniform(-margin, side + margin) for side in shape)
        if centres and rng.random() < clustering:
            near_y, near_x, near_radius = centres[rng.integers(len(centres))]
            away, turn = (radius + near_radius) * rng.uniform(0.85, 1.1), rng.uniform(0, 2 * pi)
            y, x = near_y + away * sin(turn), near_x + away * cos(turn)
        if 0 <= y < shape[0] and 0 <= x < shape[1] and taken[int(y), int(x)]:
            continue
        chosen = choose(y, x)
        patch = _draw(rng, shape, y, x, radius, *chosen) if chosen else None
        if patch is None:
            continue
        inside = patch.level < 1
        limit = 0.25 if rng.random() < 0.1 else 0.02
        if not inside.any() or np.count_nonzero(taken[patch.box] & inside) > limit * np.count_nonzero(inside):
            continue
        taken[patch.box] |= inside
        patches.append(patch)
        centres.append((y, x, patch.radius))
        if taken.mean() >= cover:
            break
    return patches


def _draw(
    rng: Generator, shape: tuple[int, int], y: float, x: float, radius: float, kind: NucleusKind, angle: float
) -> Patch | None:
    """Rasterise one outline: an ellipse times exp(sum of harmonics 2..6), which is smooth, closed and star-shaped."""
    radius *= kind.size
    stretch = sqrt(kind.aspect * exp(rng.normal(0, 0.12)))
    orders = np.arange(2, 7)
    waves = kind.roughness * (2 / orders) ** 1.2 * (rng.normal(size=5) + 1j * rng.normal(size=5))
    reach = _REACH * radius * max(stretch, 1 / stretch)
    rows, columns = (
        slice(max(int(centre - reach), 0), min(ceil(centre + reach) + 1, side))
        for centre, side in zip((y, x), shape, strict=True)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    down = np.arange(rows.start, rows.stop)[:, None] - y
    across = np.arange(columns.start, columns.stop)[None, :] - x
    point = (across * cos(angle) + down * sin(angle)) / stretch + 1j * (
        down * cos(angle) - across * sin(angle)
    ) * stretch
    distance = np.abs(point)
    unit = point / np.maximum(distance, 1e-9)
    wave = np.zeros_like(unit)
    for amplitude in waves[::-1]:
        wave = (wave + amplitude) * unit
    level = distance / (radius * np.exp((wave * unit).real))
    cover = np.clip((1 - level) * radius / max(stretch, 1 / stretch) + 0.5, 0, 1)
    return Patch(kind, radius, (rows, columns), level, cover)


def label_image(shape: tuple[int, int], patches: list[Patch]) -> Labels:
    """Number the nuclei 1..N; a later one lies on top and keeps the pixels. Each label is one 4-connected piece."""
    drawn = np.zeros(shape, np.int32)
    for number, patch in enumerate(patches, start=1):
        drawn[patch.box][patch.level < 1] = number
    clean = np.zeros(shape, np.int32)
    count = 0
    for number, box in enumerate(ndimage.find_objects(drawn), start=1):
        if box is None:
            continue
        pieces, _ = ndimage.label(drawn[box] == number)
        areas = np.bincount(pieces.ravel())[1:]
        if areas.max() >= SMALLEST_AREA:
            count += 1
            clean[box][pieces == areas.argmax() + 1] = count
    return clean
