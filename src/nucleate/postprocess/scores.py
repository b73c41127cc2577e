"""The scores of a set of images, which follow exactly from what `nucleate.postprocess.matching.match` found in each.

Pooled scores come from counts summed over images, means over images from each image's own counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nucleate.errors import InputError
from nucleate.postprocess.matching import Matching, ratio


@dataclass(frozen=True, slots=True)
class ThresholdScores:
    """Counts at one IoU threshold, summed over images, and the ratios that follow from them.

    A ratio of nothing to nothing is 1 where no nucleus is there on either side and 0 otherwise. `mean_ap` is the mean
    over images of each image's own AP; an image without nuclei on either side counts as 1.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    mean_ap: float

    @property
    def precision(self) -> float:
        """TP / (TP + FP), in 0..1."""
        return ratio(self.tp, self.tp + self.fp, empty=float(self.fn == 0))

    @property
    def recall(self) -> float:
        """TP / (TP + FN), in 0..1."""
        return ratio(self.tp, self.tp + self.fn, empty=float(self.fp == 0))

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN), in 0..1."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn, empty=1.0)

    @property
    def ap(self) -> float:
        """TP / (TP + FP + FN), in 0..1: the average precision of the 2018 Data Science Bowl, from pooled counts."""
        return ratio(self.tp, self.tp + self.fp + self.fn, empty=1.0)


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a set of images; all of 0..1, higher is better.

    `panoptic_quality` is the sum of IoU over the pairs matched at 0.5, divided by TP + FP / 2 + FN / 2; it is the
    product of `segmentation_quality` (mean IoU of the pairs) and `recognition_quality` (F1 at 0.5); counts are pooled
    over images (Kirillov et al. 2019). `aji` pools intersections and unions over images (Kumar et al. 2017);
    `mean_aji` is the mean of each image's own, which is what MoNuSeg ranks by.
    """

    images: int
    n_true: int
    n_predicted: int
    at: tuple[ThresholdScores, ...]
    panoptic_quality: float
    segmentation_quality: float
    recognition_quality: float
    aji: float
    mean_aji: float

    def as_dict(self) -> dict[str, object]:
        """Return the scores as plain dicts, lists and numbers that `json.dumps` takes."""
        ratios = ("threshold", "tp", "fp", "fn", "precision", "recall", "f1", "ap", "mean_ap")
        return {
            "images": self.images,
            "n_true": self.n_true,
            "n_predicted": self.n_predicted,
            "thresholds": [{name: getattr(row, name) for name in ratios} for row in self.at],
            "panoptic_quality": self.panoptic_quality,
            "segmentation_quality": self.segmentation_quality,
            "recognition_quality": self.recognition_quality,
            "aji": self.aji,
            "mean_aji": self.mean_aji,
        }


def pool(matchings: Iterable[Matching]) -> Scores:
    """Make the scores of a set of images from the matchings of each.

    Raises `InputError` for no matching at all, or for matchings made at different thresholds.

    >>> import numpy as np
    >>> from nucleate.postprocess.matching import match
    >>> one = match(np.array([[1, 1, 0, 2]]), np.array([[1, 1, 0, 0]]))
    >>> scores = pool([one, one])
    >>> scores.at[0].tp, scores.at[0].fn, scores.at[0].ap
    (2, 2, 0.5)
    """
    found = tuple(matchings)
    if not found:
        raise InputError("There is no image to score; give at least one pair of a true and a predicted label image.")
    if len({m.thresholds for m in found}) > 1:
        raise InputError("Images matched at different IoU thresholds cannot be pooled; match all at the same ones.")
    n_true, n_predicted = sum(m.n_true for m in found), sum(m.n_predicted for m in found)
    pairs = sum(len(m.pairs) for m in found)
    iou_sum = sum(iou for m in found for _, _, iou in m.pairs)
    nothing = float(n_true + n_predicted == 0)
    return Scores(
        images=len(found),
        n_true=n_true,
        n_predicted=n_predicted,
        at=tuple(_score(found, k) for k in range(len(found[0].thresholds))),
        panoptic_quality=ratio(2 * iou_sum, n_true + n_predicted, empty=1.0),
        segmentation_quality=ratio(iou_sum, pairs, empty=nothing),
        recognition_quality=ratio(2 * pairs, n_true + n_predicted, empty=1.0),
        aji=ratio(sum(m.intersection for m in found), sum(m.union for m in found), empty=1.0),
        mean_aji=sum(m.aji for m in found) / len(found),
    )


def mean_ap(
    scores: Scores, thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9), *, over_images: bool = False
) -> float:
    """Return the mean over `thresholds` of the AP from pooled counts, or with `over_images` of the mean over images.

    Raises `InputError` for a threshold that the scores do not hold.

    >>> import numpy as np
    >>> from nucleate.postprocess.matching import match
    >>> labels = np.array([[1, 1, 0, 2]])
    >>> mean_ap(pool([match(labels, labels)]))
    1.0
    """
    held = {row.threshold: row.mean_ap if over_images else row.ap for row in scores.at}
    for t in thresholds:
        if t not in held:
            raise InputError(f"The scores hold no IoU threshold {t}, only {sorted(held)}; match at {t} as well.")
    return sum(held[t] for t in thresholds) / len(thresholds)


def _score(found: Sequence[Matching], k: int) -> ThresholdScores:
    each = [ratio(m.tp[k], m.n_true + m.n_predicted - m.tp[k], empty=1.0) for m in found]
    tp, fp, fn = (sum(column) for column in zip(*((m.tp[k], m.fp[k], m.fn[k]) for m in found), strict=True))
    return ThresholdScores(found[0].thresholds[k], tp, fp, fn, mean_ap=sum(each) / len(each))
