"""The sentinel set: crops that are never learnt from on-line, whose score says whether a model forgets.

An update is taken back where it lets the average precision at an IoU of 0.5 fall, and by more than `tolerance` below
that of the model before any correction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nucleate.inference.backends import Backend
from nucleate.postprocess.instances_from_maps import instances_from_maps
from nucleate.postprocess.matching import Matching, match
from nucleate.postprocess.scores import pool
from nucleate.training.hold_out import Pair
from nucleate.training.parallel import Parallel
from nucleate.types import Labels, Thresholds


def sentinel_score(engine: Backend, thresholds: Thresholds, pairs: Sequence[Pair], parallel: Parallel) -> float:
    """Average precision at 0.5 over all crops together, 0..1; 1 where there is none."""

    def one(pair: Pair) -> Matching:
        image, labels = pair
        return match(labels, instances_from_maps(engine(image), thresholds).labels, (0.5,))

    return pool(parallel.map(one, pairs)).at[0].ap if pairs else 1.0


def is_too_low(now: float, before: float, base: float, tolerance: float) -> bool:
    """Whether an update is taken back: scores of the sentinel set after it, before it, and before any.

    >>> is_too_low(0.70, 0.78, 0.80, 0.05), is_too_low(0.76, 0.78, 0.80, 0.05), is_too_low(0.70, 0.69, 0.80, 0.05)
    (True, False, False)
    """
    return now < before and now < base - tolerance


def tile_score(true: Labels, predicted: Labels) -> float | None:
    """Average precision at 0.5 on the known pixels of a tile; None where no nucleus is there, true or predicted.

    >>> true = np.array([[1, 1, 0, -1, -1, -1]], np.int32)
    >>> tile_score(true, np.array([[5, 5, 0, 7, 7, 7]], np.int32)), tile_score(true * 0, true * 0)
    (1.0, None)
    """
    found = match(true, np.asarray(predicted), (0.5,))
    return pool([found]).at[0].ap if found.n_true + found.n_predicted else None
