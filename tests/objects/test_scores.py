"""Scores of several images."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleate.objects.matching import THRESHOLDS, match
from nucleate.objects.scores import gain, mean_ap, pool


def test_pooled_and_mean_scores_weigh_images_differently():
    one = np.array([[1, 0, 0, 0, 0, 0]])
    three = np.array([[1, 0, 2, 0, 3, 0]])
    scores = pool([match(one, one), match(three, one)])
    assert (scores.at[0].tp, scores.at[0].fn) == (2, 2)
    assert scores.at[0].ap == 2 / 4
    assert scores.at[0].mean_ap == pytest.approx((1 + 1 / 3) / 2)
    assert scores.aji == 2 / 4
    assert scores.mean_aji == pytest.approx((1 + 1 / 3) / 2)
    assert (scores.at[0].precision, scores.at[0].recall, scores.at[0].f1) == (1, 0.5, pytest.approx(2 / 3))


def test_scores_are_plain_json():
    true = np.array([[1, 1, 0, 2]], np.int32)
    scores = pool([match(true, true)])
    back = json.loads(json.dumps(scores.as_dict()))
    assert back == scores.as_dict()
    assert [row["threshold"] for row in back["thresholds"]] == list(THRESHOLDS)
    assert back["thresholds"][0] == {
        "threshold": 0.5, "tp": 2, "fp": 0, "fn": 0, "precision": 1, "recall": 1, "f1": 1, "ap": 1, "mean_ap": 1,
    }  # fmt: skip


LABELS = hnp.arrays(np.int32, (2, 4), elements=st.integers(0, 3))


@settings(deadline=None, max_examples=60)
@given(images=st.lists(st.tuples(LABELS, LABELS, LABELS), min_size=2, max_size=6))
def test_a_gain_and_its_error_are_those_of_scores_without_each_image_in_turn(images):
    before, after = ([match(true, found[k]) for true, *found in images] for k in (0, 1))
    won, error = gain(before, after)
    assert won == pytest.approx(mean_ap(pool(after)) - mean_ap(pool(before)))
    without = [
        mean_ap(pool(after[:i] + after[i + 1 :])) - mean_ap(pool(before[:i] + before[i + 1 :]))
        for i in range(len(images))
    ]
    n = len(images)
    assert error == pytest.approx(((n - 1) * np.var(without)) ** 0.5)
    assert gain(after, before) == pytest.approx((-won, error))
    assert gain(before, before) == (0, 0)


def test_from_one_image_no_error_is_known():
    true = np.array([[1, 1, 0, 2]], np.int32)
    assert gain([match(true, true * 0)], [match(true, true)]) == (1, np.inf)
