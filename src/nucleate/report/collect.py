"""What a report says, as plain data. Nothing here is drawn, scored or written."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nucleate.curves.curves import Curves
from nucleate.errors import InputError
from nucleate.postprocess.matching import Matching
from nucleate.postprocess.scores import Scores
from nucleate.sentences import count
from nucleate.types import Image, Labels, Pixels

Value = str | int | float
"""What a cell may hold; a float is shown with three decimals, one that is not finite as a dash."""

Ids = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a caption; the first cell of each row names the row."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One image with what was predicted on it and, where it is known, the truth.

    `pixels` (height, width, channels); `truth` and `predicted` label images of the same height and width. `matched`
    and `false_positive` are ids of `predicted`, `missed` ids of `truth`, all at IoU 0.5. A predicted nucleus in
    neither (on ground marked as unknown) is shown as not scored.
    """

    name: str
    pixels: Pixels
    predicted: Labels
    truth: Labels | None = None
    matched: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    false_positive: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    missed: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    caption: str = ""

    def __post_init__(self) -> None:
        shapes = {labels.shape for labels in (self.predicted, self.truth) if labels is not None}
        if self.pixels.ndim != 3 or shapes != {self.pixels.shape[:2]}:
            raise InputError(
                f"{self.name}: pixels {self.pixels.shape} do not fit labels {sorted(shapes)};"
                " give (height, width, channels) and (height, width)."
            )


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report.

    `headline` is shown large, `facts` as a list, `accuracy` as curves over the IoU threshold; `images` has a row for
    each image. Every part but the title may be left out.
    """

    title: str
    summary: str = ""
    headline: tuple[tuple[str, Value], ...] = ()
    facts: tuple[tuple[str, Value], ...] = ()
    scores: Table | None = None
    curves: Curves | None = None
    pictures: tuple[Picture, ...] = ()
    accuracy: Scores | None = None
    images: Table | None = None


def headline(scores: Scores) -> tuple[tuple[str, Value], ...]:
    """The four numbers that say most about a segmentation."""
    return (
        ("Panoptic quality", scores.panoptic_quality),
        ("Segmentation quality", scores.segmentation_quality),
        ("Recognition quality (F1)", scores.recognition_quality),
        ("Aggregated Jaccard index", scores.aji),
    )


def score_table(scores: Scores) -> Table:
    """Counts and ratios at each IoU threshold, pooled over the images."""
    return Table(
        caption=f"{scores.n_true:,} true and {count(scores.n_predicted, 'predicted nucleus', 'predicted nuclei')} in"
        f" {count(scores.images, 'image')}",
        head=("IoU", "Matched", "False positive", "Missed", "Precision", "Recall", "F1", "AP"),
        rows=tuple(
            (f"{row.threshold:g}", row.tp, row.fp, row.fn, row.precision, row.recall, row.f1, row.ap)
            for row in scores.at
        ),
    )


def picture(
    image: Image, predicted: Labels, truth: Labels | None = None, matching: Matching | None = None, caption: str = ""
) -> Picture:
    """A picture of one image; `matching` is that of `nucleate.postprocess.matching.match(truth, predicted)`.

    >>> from nucleate.postprocess.matching import match
        >>> truth, predicted = np.array([[1, 1, 0, 2]]), np.array([[1, 1, 3, 0]])
        >>> image = Image("a.png", np.zeros((1, 4, 1), np.uint8), ("grey",))
        >>> shown = picture(image, predicted, truth, match(truth, predicted))
        >>> shown.matched, shown.false_positive, shown.missed
        (array([1]), array([3]), array([2]))
    """
    if truth is None or matching is None:
        return Picture(image.name, image.pixels, predicted, truth, caption=caption)
    return Picture(image.name, image.pixels, predicted, truth, *classes(truth, predicted, matching), caption)


def classes(truth: Labels, predicted: Labels, matching: Matching) -> tuple[Ids, Ids, Ids]:
    """The ids of `predicted` that are matched and that are false positives, and those of `truth` that are missed."""
    matched = np.array([found for _, found, _ in matching.pairs], np.int64)
    hit = np.array([true for true, _, _ in matching.pairs], np.int64)
    ids, areas = np.unique(predicted[predicted > 0], return_counts=True)
    on_unknown, outside = np.unique(predicted[(predicted > 0) & (truth < 0)], return_counts=True)
    ignored = on_unknown[2 * outside > areas[np.searchsorted(ids, on_unknown)]]
    false_positive = np.setdiff1d(ids, np.concatenate([matched, ignored]))
    return matched, false_positive, np.setdiff1d(truth[truth > 0], hit)
