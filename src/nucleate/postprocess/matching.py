"""Compare a predicted label image with the true one: which nuclei match.

`match` compares one image. What it gives, `Matching`, holds counts only; `postprocess.scores` makes scores of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nucleate.errors import InputError
from nucleate.types import Labels

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
"""The IoU thresholds that scores are given at unless others are asked for."""

_Integers = NDArray[np.intp]
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Matching:
    """What `match` found in one image.

    `tp[k]` nuclei are matched at IoU >= `thresholds[k]`, and `iou_sum[k]` is the sum of their IoU. `pairs` are the
    matches at IoU >= 0.5 as (true id, predicted id, IoU), sorted by true id. `intersection` and `union` are the two
    pixel counts whose ratio is the aggregated Jaccard index.
    """

    n_true: int
    n_predicted: int
    thresholds: tuple[float, ...]
    tp: tuple[int, ...]
    iou_sum: tuple[float, ...]
    pairs: tuple[tuple[int, int, float], ...]
    intersection: int
    union: int

    @property
    def fp(self) -> tuple[int, ...]:
        """Predicted nuclei without a partner, at each threshold."""
        return tuple(self.n_predicted - tp for tp in self.tp)

    @property
    def fn(self) -> tuple[int, ...]:
        """True nuclei without a partner, at each threshold."""
        return tuple(self.n_true - tp for tp in self.tp)

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index, `intersection / union`; 1 where there is nothing on either side."""
        return ratio(self.intersection, self.union, empty=1.0)


def match(true: Labels, predicted: Labels, thresholds: Sequence[float] = THRESHOLDS) -> Matching:
    """Match the nuclei of two label images of one shape one to one, at each threshold.

    A pair may be matched where IoU(a, b) = |a ∩ b| / |a ∪ b| >= t. Of all one-to-one matchings the one taken has the
    most pairs and, among those, the largest sum of IoU (the Hungarian method; Kuhn 1955). Above 0.5 there is never
    a choice (Kirillov et al. 2019); at 0.5 and below there can be.

    Ids are any positive integers, gaps allowed. Pixels that are negative in `true` are unknown: they are taken out
    of both images, and a predicted nucleus with more than half of its area on them is ignored. Zero and negative
    pixels of `predicted` are background.

    The aggregated Jaccard index is that of Algorithm 1 of Kumar et al. (2017): each true nucleus G takes the
    predicted nucleus S of largest IoU, whether or not another has taken it already; |G ∩ S| is added to
    `intersection` and |G ∪ S| to `union`; at the end the area of every prediction that nobody took is added to
    `union`. A true nucleus that touches no prediction adds its own area to `union`. The evaluation script that MoNuSeg
    gave out differs: there a prediction that was taken is no longer to be had, so its result depends on the order of
    the ids. Equal IoU goes to the prediction that comes first from top to bottom, left to right.

    Raises `InputError` for shapes that differ or are not 2-D, arrays that are not integers, and thresholds that do
    not lie in (0, 1].

    >>> true = np.array([[1, 1, 1, 0, 2, 2]])
    >>> predicted = np.array([[7, 7, 0, 0, 0, 9]])
    >>> found = match(true, predicted, thresholds=(0.5, 0.6))
    >>> found.tp, found.fp, found.fn
    ((2, 1), (0, 1), (0, 1))
    >>> [(t, p) for t, p, _ in found.pairs], found.aji
    ([(1, 7), (2, 9)], 0.6)

    Sources: Kumar et al., IEEE Trans. Med. Imaging 36 (2017) 1550; Kirillov et al., CVPR 2019, 9396.
    """
    true, predicted = np.asarray(true), np.asarray(predicted)
    _check(true, predicted, thresholds)
    overlap = _Overlap.between(true, predicted)
    found = {t: _assign(overlap, t) for t in {0.5, *thresholds}}
    pairs = sorted(
        (int(overlap.true_ids[overlap.rows[k]]), int(overlap.predicted_ids[overlap.columns[k]]), float(overlap.iou[k]))
        for k in found[0.5]
    )
    intersection, union = _aggregate(overlap)
    return Matching(
        n_true=len(overlap.true_ids),
        n_predicted=len(overlap.predicted_ids),
        thresholds=tuple(float(t) for t in thresholds),
        tp=tuple(len(found[t]) for t in thresholds),
        iou_sum=tuple(float(overlap.iou[found[t]].sum()) for t in thresholds),
        pairs=tuple(pairs),
        intersection=intersection,
        union=union,
    )


@dataclass(frozen=True, slots=True)
class _Overlap:
    """Every pair of a true and a predicted nucleus that share pixels; nuclei are counted by first pixel, not by id."""

    true_ids: NDArray[np.generic]
    predicted_ids: NDArray[np.generic]
    true_areas: _Integers
    predicted_areas: _Integers
    rows: _Integers
    columns: _Integers
    shared: _Integers
    iou: _Floats

    @classmethod
    def between(cls, true: Labels, predicted: Labels) -> _Overlap:
        """Count shared pixels over runs of equal pairs, which are far fewer than pixels."""
        flat_true, flat_predicted = true.ravel(), predicted.ravel()
        changes = (np.diff(flat_true) != 0) | (np.diff(flat_predicted) != 0)
        starts = np.concatenate([np.zeros(min(1, true.size), np.intp), np.flatnonzero(changes) + 1])
        length = np.diff(starts, append=true.size)
        run_true, run_predicted = flat_true[starts], np.maximum(flat_predicted[starts], 0)
        known = run_true >= 0
        if not known.all():
            ids, index = _ranked(run_predicted)
            outside = _sums(index, np.where(known, 0, length), len(ids))
            ignored = 2 * outside > _sums(index, length, len(ids))
            run_true, length = run_true[known], length[known]
            run_predicted = np.where(ignored[index], 0, run_predicted)[known]
        true_ids, row = _ranked(run_true)
        predicted_ids, column = _ranked(run_predicted)
        shape = (len(true_ids), len(predicted_ids))
        true_areas, predicted_areas = _sums(row, length, shape[0])[1:], _sums(column, length, shape[1])[1:]
        table = coo_array((length, (row, column)), shape=shape).tocsr()[1:, 1:].tocoo()
        rows, columns, shared = table.row.astype(np.intp), table.col.astype(np.intp), table.data
        iou = shared / (true_areas[rows] + predicted_areas[columns] - shared)
        return cls(true_ids[1:], predicted_ids[1:], true_areas, predicted_areas, rows, columns, shared, iou)


def _sums(index: _Integers, length: _Integers, size: int) -> _Integers:
    return np.bincount(index, weights=length, minlength=size).astype(np.intp)


def _ranked(runs: NDArray[np.generic]) -> tuple[NDArray[np.generic], _Integers]:
    """Return 0 and the ids above it in the order of their first run, and the place of every run's id in that list.

    This order, unlike that of the ids, is a property of the image, so that ties do not depend on how nuclei are named.
    """
    ids, first, index = np.unique(np.append(runs, np.zeros(1, runs.dtype)), return_index=True, return_inverse=True)
    order = np.concatenate([[0], np.argsort(first[1:]) + 1])
    return ids[order], np.argsort(order)[index[:-1]]


def _assign(overlap: _Overlap, threshold: float) -> _Integers:
    """Return the indices of the pairs of the best one-to-one matching at IoU >= `threshold`."""
    candidates = np.flatnonzero(overlap.iou >= threshold)
    rows, columns = overlap.rows[candidates], overlap.columns[candidates]
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    if alone.all():
        return candidates
    chosen = [candidates[alone]]
    contested = candidates[~alone]
    n_true, n_predicted = len(overlap.true_ids), len(overlap.predicted_ids)
    ends = (overlap.rows[contested], overlap.columns[contested] + n_true)
    size = n_true + n_predicted
    graph = coo_array((np.ones(len(contested)), ends), shape=(size, size))
    group = connected_components(graph, directed=False)[1][ends[0]]
    order = np.argsort(group, kind="stable")
    blocks = np.split(contested[order], np.flatnonzero(np.diff(group[order])) + 1)
    chosen.extend(_hungarian(overlap, block) for block in blocks)
    return np.sort(np.concatenate(chosen))


def _hungarian(overlap: _Overlap, block: _Integers) -> _Integers:
    """Solve one connected block of contested pairs: the most pairs first, then the largest sum of IoU."""
    rows, row = np.unique(overlap.rows[block], return_inverse=True)
    columns, column = np.unique(overlap.columns[block], return_inverse=True)
    # All IoU together weigh less than one pair more: each is at most 1 and there are at most min(shape) of them.
    gain = np.zeros((len(rows), len(columns)))
    gain[row, column] = 1 + overlap.iou[block] / (2 * min(gain.shape))
    index = np.full(gain.shape, -1)
    index[row, column] = block
    taken: _Integers = index[linear_sum_assignment(gain, maximize=True)]
    return taken[taken >= 0]


def _aggregate(overlap: _Overlap) -> tuple[int, int]:
    """Return the aggregated intersection and union of Kumar et al. (2017), Algorithm 1."""
    # Sorted by row, then by falling IoU: the first of each row is the prediction that this true nucleus takes.
    order = np.lexsort((overlap.columns, -overlap.iou, overlap.rows))
    best = order[np.unique(overlap.rows[order], return_index=True)[1]]
    taken = overlap.columns[best]
    free = np.ones(len(overlap.predicted_ids), dtype=bool)
    free[taken] = False
    intersection = int(overlap.shared[best].sum())
    # The unions |G| + |S| - |G ∩ S|; the sum over G includes those that touch no prediction.
    union = int(overlap.true_areas.sum() + overlap.predicted_areas[taken].sum()) - intersection
    return intersection, union + int(overlap.predicted_areas[free].sum())


def _check(true: Labels, predicted: Labels, thresholds: Sequence[float]) -> None:
    if true.shape != predicted.shape or true.ndim != 2:
        raise InputError(
            f"Two label images must have one shape (height, width), but the true one has {true.shape} and the "
            f"predicted one {predicted.shape}; segment the same image that the labels were drawn on."
        )
    for name, labels in (("true", true), ("predicted", predicted)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"The {name} label image holds {labels.dtype} values; convert it to integers first.")
    for t in thresholds:
        if not 0 < t <= 1:
            raise InputError(f"An IoU threshold must lie in (0, 1], not {t}; for example 0.5.")


def ratio(part: float, whole: float, *, empty: float) -> float:
    """part / whole, or `empty` where both are 0."""
    return float(part / whole) if whole else empty
