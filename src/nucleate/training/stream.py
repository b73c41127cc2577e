"""A stream of corrections: read one at a time, and on-line learning judged on it (predict, score, learn)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.data.dataset import find, pair
from nucleate.data.masks import Masks, interpret, is_outlines
from nucleate.errors import DatasetError, ImageError, InputError
from nucleate.io.array import ArrayReader
from nucleate.postprocess.instances_from_maps import instances_from_maps
from nucleate.training.online import OnlineLearner, Update
from nucleate.training.polarity import seen
from nucleate.training.sentinel import tile_score
from nucleate.types import Box, Image, Labels, Sample

Tile = tuple[Image, Labels]
"""An image and its labels, below 0 where nothing is known."""

SHOWN = 12
"""Tiles of a stream that are kept to be shown, those with the lowest scores."""


def corrections(
    image: Path, mask: Path | None = None, masks: Masks = "auto", region: Box | None = None
) -> Iterator[Tile]:
    """The corrections of a person: an image and its mask, or the labelled images of a folder by their names.

    Args:
        image: of one correction, or the folder.
        mask: of one correction.
        masks: how masks are taken; see `data.masks`.
        region: what was corrected; all else is unknown. By default the whole image.

    Raises:
        NucleateError: a file cannot be used, or there is none.
    """
    if image.is_dir() and mask is None:
        samples = find(image).labelled
        if not samples:
            raise DatasetError(f"{image} holds no labelled image to learn from: put masks beside the images.")
    elif image.is_dir():
        raise InputError(f"{image} is a folder: give it alone, with images and masks in it, or one image and its mask.")
    elif mask is None:
        raise InputError(f"No mask was given for {image}: give it after the image, or a folder of images and masks.")
    else:
        samples = (Sample(image.stem, image, mask),)
    for sample in samples:
        yield correction(sample, masks, region)


def correction(sample: Sample, masks: Masks = "auto", region: Box | None = None) -> Tile:
    """One correction: the image, and what is known of it."""
    image, labels = pair(sample)
    assert sample.mask is not None
    found = _known(labels, str(sample.mask), masks, region, outlines=is_outlines(sample.mask))
    return replace(image, name=sample.name), found


def array_correction(image: Any, mask: Any, name: str, masks: Masks = "auto", region: Box | None = None) -> Tile:
    """The same of arrays: an image (H, W) or (H, W, C) and its labels (H, W)."""
    reader = ArrayReader(image, name=name)
    if mask is None:
        raise InputError(f"No mask was given for the {name}: give its labels, an array of the same height and width.")
    labels = np.asarray(mask)
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise ImageError(f"The mask of the {name} is no label image: give whole numbers of shape (H, W).")
    found = _known(labels.astype(np.int32), f"The mask of the {name}", masks, region, outlines=False)
    return Image(name, reader.read(reader.box), reader.channels, reader.pixel_size), found


def _known(labels: Labels, subject: str, masks: Masks, region: Box | None, *, outlines: bool) -> Labels:
    """What a mask says, within the region."""
    found = interpret(labels, masks, outlines=outlines)
    if found.mistake is not None:
        raise ImageError(found.mistake.sentence(subject))
    if region is None:
        return found.labels
    height, width = labels.shape
    if min(region.y, region.x) < 0 or min(region.shape) < 1 or region.bottom > height or region.right > width:
        raise InputError(
            f"The region {region.y} {region.x} {region.height} {region.width} (first row, first column, height, width)"
            f" lies outside of the image, which has {height} rows and {width} columns."
        )
    within = np.full_like(labels, -1)
    part = slice(region.y, region.bottom), slice(region.x, region.right)
    within[part] = found.labels[part]
    return within


@dataclass(frozen=True, slots=True)
class Judged:
    """One tile of a stream: what learning from it did, and the `frozen` model's score on it."""

    update: Update
    frozen: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A tile with what was predicted before it was learnt, and its score."""

    image: Image
    labels: Labels
    predicted: Labels
    score: float


@dataclass(frozen=True, slots=True)
class StreamResult:
    """Every tile in its order, and those with the lowest prequential scores, to be looked at."""

    rows: tuple[Judged, ...]
    worst: tuple[Shown, ...]


def judge(
    learner: OnlineLearner, tiles: Iterator[Tile], observe: Callable[[Judged], None] | None = None
) -> StreamResult:
    """Predict, score and learn, tile after tile; the model as it is now, frozen, is scored beside."""
    frozen, levels = learner.serving, learner.state.numbers.levels
    rows, worst = list[Judged](), list[Shown]()
    for image, labels in tiles:
        number = learner.record(image, labels, image.name)
        known = learner.tile(number)[1]
        plain = learner.plain(number)
        predicted = learner.predict(plain)[0]
        without = tile_score(known, instances_from_maps(frozen(seen(plain, levels)), learner.model.thresholds).labels)
        row = Judged(learner.learn(number), without)
        rows.append(row)
        if row.update.before is not None:
            shown = Shown(image, known, predicted, row.update.before)
            worst = sorted([*worst, shown], key=lambda one: one.score)[:SHOWN]
        if observe is not None:
            observe(row)
    return StreamResult(tuple(rows), tuple(worst))


def running_mean(scores: list[float | None]) -> list[float]:
    """The mean of all scores up to each; those that are None are left out.

    >>> running_mean([1.0, None, 0.0])
    [1.0, 1.0, 0.5]
    """
    found, known = list[float](), list[float]()
    for score in scores:
        known += [] if score is None else [score]
        found.append(sum(known) / len(known) if known else 0.0)
    return found
