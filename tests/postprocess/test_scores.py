"""Scores of several images."""

import json

import numpy as np
import pytest

from nucleate.postprocess.matching import THRESHOLDS, match
from nucleate.postprocess.scores import pool


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
