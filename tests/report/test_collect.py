"""What a report says: curves from any history, pictures from a matching."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.curves.curves import curves
from nucleate.errors import InputError
from nucleate.postprocess.matching import match
from nucleate.postprocess.scores import pool
from nucleate.report.collect import Picture, Report, headline, picture, score_table
from nucleate.types import Image

maybe = st.one_of(st.none(), st.just(nan), st.floats(0, 1))
rows = st.lists(
    st.fixed_dictionaries({}, optional={"train_loss": maybe, "valid_loss": maybe, "score": maybe}), max_size=12
)


@given(rows)
def test_curves_take_any_history_and_mark_only_what_was_decided(history: list[dict[str, float]]) -> None:
    made = curves(history)
    assert [epoch.epoch for epoch in made.epochs] == list(range(1, len(history) + 1))
    for name in ("train_loss", "valid_loss", "score"):
        values = [nan if row.get(name) is None else row[name] for row in history]
        np.testing.assert_array_equal([getattr(epoch, name) for epoch in made.epochs], values)
    assert made.kept is made.stop is made.over_fitting is None
    assert curves(history, kept=7).kept == 7


labels = st.lists(st.integers(-1, 4), min_size=30, max_size=30).map(lambda v: np.array(v, np.int32).reshape(5, 6))


@given(labels, labels)
def test_a_picture_agrees_with_its_matching(truth: np.ndarray, predicted: np.ndarray) -> None:
    predicted = np.maximum(predicted, 0)
    matching = match(truth, predicted, thresholds=(0.5,))
    image = Image("a", np.zeros((5, 6, 1), np.uint8), ("grey",))
    shown = picture(image, predicted, truth, matching)
    assert shown.matched.size == matching.tp[0]
    assert shown.false_positive.size == matching.fp[0]
    # A true nucleus all of whose pixels are unknown does not exist, so all the missed ones are counted.
    assert shown.missed.size == matching.fn[0]
    assert not set(shown.matched) & set(shown.false_positive)


def test_a_nucleus_on_unknown_ground_is_neither_matched_nor_false() -> None:
    truth = np.array([[-1, -1, 0, 0, 1, 1]], np.int32)
    predicted = np.array([[2, 2, 2, 0, 1, 1]], np.int32)
    image = Image("a", np.zeros((1, 6, 1), np.uint8), ("grey",))
    shown = picture(image, predicted, truth, match(truth, predicted))
    assert shown.matched.tolist() == [1]
    assert shown.false_positive.size == shown.missed.size == 0


def test_scores_become_a_headline_and_a_table_of_every_threshold() -> None:
    truth = np.array([[1, 1, 0, 2]])
    scores = pool([match(truth, np.array([[1, 1, 0, 0]]), thresholds=(0.5, 0.75))])
    table = score_table(scores)
    assert "2 true and 1 predicted nucleus in 1 image" in table.caption
    assert [row[:4] for row in table.rows] == [("0.5", 1, 0, 1), ("0.75", 1, 0, 1)]
    assert all(len(row) == len(table.head) for row in table.rows)
    assert dict(headline(scores))["Panoptic quality"] == pytest.approx(2 / 3)
    assert dict(headline(scores))["Recognition quality (F1)"] == pytest.approx(2 / 3)


def test_a_picture_whose_shapes_differ_is_refused() -> None:
    with pytest.raises(InputError, match=r"b\.png"):
        Picture("b.png", np.zeros((4, 5, 1)), np.zeros((5, 4), np.int32))
    with pytest.raises(InputError, match=r"b\.png"):
        Picture("b.png", np.zeros((4, 5, 1)), np.zeros((4, 5), np.int32), np.zeros((4, 4), np.int32))


def test_a_report_needs_only_a_title() -> None:
    assert Report("Run").pictures == ()
