"""Which labelled pixels are held out, to choose the epoch and the thresholds on and to score the model.

The rule. With `FEWEST` labelled images or more, every tenth is held out, from the fifth on, in the order of their
names. With fewer, every image gives a strip instead: the last fifth of its longer side. A nucleus belongs to the strip
when its centre does; what is held out is unknown to training, and what is not is unknown to validation.

A score says something only of nuclei. So where these parts hold less than a fifth of all nuclei (and fewer than
`ENOUGH`), further images are held out, or wider strips, or strips are laid where the nuclei are; of images with one
nucleus each, some are held out whole. Half of all nuclei at least are left to learn from; where that cannot be, nothing
is held out.

Strips do not see that the look of an image is learnt by heart. Leaving each of few images out of a run in turn would,
but such runs over-fit at other epochs than the one that learns from all: `benchmarks/own_curves.py` measures both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import DatasetError
from nucleate.postprocess.targets import centres
from nucleate.types import Labels

FEWEST = 10
"""From this number of labelled images on, whole images are held out; below it, strips."""

STRIPS = (0.2, 0.25, 0.3, 0.35)
"""The part of the longer side that a strip takes: the first that holds enough nuclei."""

ENOUGH = 100
"""Held-out nuclei that suffice, however many there are in all."""

Pair = tuple[NDArray[np.float32], Labels]
"""A normalised image (channels, H, W) and its labels (H, W)."""


def hold_out(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair], str]:
    """Training pairs, validation pairs, and what was done as a sentence; no validation pairs where none can be."""
    counts = [_count(labels) for _, labels in pairs]
    total = sum(counts)
    need = max(1, min(-(-total // 5), ENOUGH))
    if chosen := _whole_images(counts, need):
        where = f"{len(chosen)} of {len(pairs)} labelled images"
        cuts: list[Cut] = [
            _all_held(labels) if index in chosen else (labels, None) for index, (_, labels) in enumerate(pairs)
        ]
    else:
        cuts, where = _strips([labels for _, labels in pairs], counts, need)
    images = [image for image, _ in pairs]
    training = [(image, kept) for image, (kept, _) in zip(images, cuts, strict=True) if kept is not None]
    validation = [(image, held) for image, (_, held) in zip(images, cuts, strict=True) if held is not None]
    nuclei = sum(_count(labels) for _, labels in validation)
    if not nuclei:
        none = "The only labelled nucleus cannot" if total == 1 else f"None of {total} labelled nuclei can"
        return list(pairs), [], f"{none} be held out for validation, so there is no score."
    are = "nucleus is" if total == 1 else "nuclei is" if nuclei == 1 else "nuclei are"
    return training, validation, f"{nuclei} of {total} {are} held out for validation: {where}."


def unheld(pairs: Sequence[Pair], parts: Sequence[NDArray[np.bool_] | None]) -> list[Pair]:
    """Pairs without what a person has set aside for validation, which is unknown in them; those without anything else
    are left out."""
    kept = [
        (image, labels if part is None else np.where(part, -1, labels).astype(np.int32))
        for (image, labels), part in zip(pairs, parts, strict=True)
    ]
    return [(image, labels) for image, labels in kept if (labels >= 0).any()]


def drawn(pairs: Sequence[Pair], parts: Sequence[NDArray[np.bool_] | None]) -> tuple[list[Pair], list[Pair], str]:
    """The same as `hold_out` gives, where a person has drawn what is to be held out.

    Args:
        pairs: normalised images with their labels.
        parts: for each pair True where it is for validation, None where nothing is.

    Raises:
        DatasetError: no nucleus is left to learn from, or none is for validation.
    """
    training = unheld(pairs, parts)
    validation = unheld(pairs, [np.ones(1, np.bool_) if part is None else ~part for part in parts])
    left, nuclei = (sum(_count(labels) for _, labels in some) for some in (training, validation))
    if not left or not nuclei:
        which = "all in" if not left else "none of them in"
        raise DatasetError(
            f"Of {left + nuclei} labelled nuclei {which} rectangles of the class Validation: draw some, and around them"
            f" rectangles of the class {'Training' if not left else 'Validation'}."
        )
    where = f"those in Validation rectangles of {len(validation)} of {len(pairs)} labelled images"
    return training, validation, f"{nuclei} of {left + nuclei} nuclei are held out for validation: {where}."


Cut = tuple[Labels | None, Labels | None]
"""The labels that training keeps and those that validation gets, -1 where the other has it; None for no image."""


def _count(labels: Labels | None) -> int:
    return 0 if labels is None else int(np.unique(labels[labels > 0]).size)


def _whole_images(counts: Sequence[int], need: int) -> set[int]:
    """The images to hold out whole: every tenth where they hold enough, else as many with nuclei as it takes."""
    total, tenths = sum(counts), range(4, len(counts), 10)
    if len(counts) < FEWEST:
        return set()
    if need <= sum(counts[index] for index in tenths) <= total / 2:
        return set(tenths)
    chosen, held = set[int](), 0
    for index in dict.fromkeys(chain(tenths, range(9, len(counts), 10), range(len(counts)))):
        if held < need and counts[index] and held + counts[index] <= total / 2:
            chosen.add(index)
            held += counts[index]
    return chosen if held >= need else set()


def _strips(images: Sequence[Labels], counts: Sequence[int], need: int) -> tuple[list[Cut], str]:
    """Of each image the end of its longer side, a fifth or a little more where that holds too little, and where this
    is in words; where it does not suffice, what the nuclei ask for."""
    each = "the labelled image" if len(images) == 1 else f"each of {len(images)} labelled images"
    for part in STRIPS:
        axes = [int(labels.shape[1] >= labels.shape[0]) for labels in images]
        edges = [int(labels.shape[axis] * (1 - part)) for labels, axis in zip(images, axes, strict=True)]
        cuts: list[Cut] = [_cut(labels, axis, 1, edge) for labels, axis, edge in zip(images, axes, edges, strict=True)]
        if need <= sum(_count(held) for _, held in cuts) <= sum(counts) / 2:
            return cuts, f"those in the last {'fifth' if part == STRIPS[0] else f'{part:.0%}'} of {each}"
    cuts = _cuts_by_nuclei(images, counts, need)
    if len(images) == 1:
        return cuts, "those in a part of the labelled image"
    return cuts, f"from {sum(held is not None for _, held in cuts)} of {len(images)} labelled images"


def _cuts_by_nuclei(images: Sequence[Labels], counts: Sequence[int], need: int) -> list[Cut]:
    """A fifth of the nuclei of each image that has two or more, then images of one nucleus, as many as it takes."""
    cuts: list[Cut] = []
    for labels, count in zip(images, counts, strict=True):
        strip = _strip_with(labels, -(-count // 5)) if count > 1 else None
        cuts.append((labels, None) if strip is None else _cut(labels, *strip))
    held = sum(_count(one) for _, one in cuts)
    for index in reversed(range(len(images))):
        if held < need and cuts[index][1] is None and counts[index] and held + counts[index] <= sum(counts) / 2:
            cuts[index] = _all_held(images[index])
            held += counts[index]
    return cuts


def _strip_with(labels: Labels, wanted: int) -> tuple[int, int, float] | None:
    """Axis, direction and beginning of a strip with so many nuclei or more, but not all; None where there is none.

    It lies at the end of the longer side unless it would be large there, and smaller on another side.
    """
    position = centres(labels).position[np.unique(labels[labels > 0])]
    longer = int(labels.shape[1] >= labels.shape[0])
    found: list[tuple[float, tuple[int, int, float]]] = []
    for axis in (longer, 1 - longer):
        for direction in (1, -1):
            along = np.sort(direction * position[:, axis])
            inner = along[along < along[-wanted]]
            if inner.size:
                edge = float(inner[-1] + along[-wanted]) / 2
                length = labels.shape[axis]
                part = (length - 1 - edge if direction > 0 else -edge) / length
                found.append((part, (axis, direction, edge)))
    fits = [strip for part, strip in found if part <= STRIPS[-1]]
    return fits[0] if fits else min(found)[1] if found else None


def _cut(labels: Labels, axis: int, direction: int, edge: float) -> tuple[Labels, Labels]:
    """Cut off the strip that begins at `edge`, towards higher (`direction` 1) or lower (-1) numbers."""
    position = direction * centres(labels).position[:, axis]
    strip = direction * np.indices(labels.shape)[axis] >= edge
    in_strip = np.where(labels > 0, position[np.maximum(labels, 0)] >= edge, strip)
    return np.where(in_strip, -1, labels).astype(np.int32), np.where(in_strip, labels, -1).astype(np.int32)


def _all_held(labels: Labels) -> Cut:
    return None, labels
