"""The margin losses against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.linear_model import _sgd_fast

from nucleate import losses

_RANDOM = np.random.default_rng(7)
SCORES = _RANDOM.normal(0, 3, 200)
LABELS = _RANDOM.integers(0, 2, 200)
WEIGHTS = _RANDOM.random(200)
weights = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighed"])


def ours(name: str, each: np.ndarray | None) -> float:
    weight = None if each is None else torch.from_numpy(each)
    score, label = torch.from_numpy(SCORES), torch.from_numpy(LABELS)
    return losses.by_name(name)(score, label, weight=weight).item()


@weights
def test_hinge(weights: np.ndarray | None) -> None:
    assert ours("hinge", weights) == pytest.approx(metrics.hinge_loss(LABELS, SCORES, sample_weight=weights))


@weights
def test_logistic_is_the_log_loss_of_the_sigmoid(weights: np.ndarray | None) -> None:
    found = metrics.log_loss(LABELS, 1 / (1 + np.exp(-SCORES)), sample_weight=weights)
    assert ours("logistic", weights) == pytest.approx(found)


@weights
def test_zero_one(weights: np.ndarray | None) -> None:
    found = metrics.zero_one_loss(LABELS, SCORES > 0, sample_weight=weights)
    assert ours("zero_one", weights) == pytest.approx(found)


@pytest.mark.parametrize(
    ("name", "reference"), [("modified_huber", _sgd_fast.ModifiedHuber()), ("squared_hinge", _sgd_fast.SquaredHinge())]
)
def test_value_and_slope_of_stochastic_gradient_descent(name: str, reference: object) -> None:
    score = torch.from_numpy(SCORES).requires_grad_()
    values = losses.by_name(name)(score, torch.from_numpy(LABELS), reduction="none")
    (slopes,) = torch.autograd.grad(values.sum(), score)
    signs = 2.0 * LABELS - 1
    expected = [reference.py_loss(s, y) for s, y in zip(SCORES, signs, strict=True)]
    assert values.tolist() == pytest.approx(expected)
    derivatives = [reference.py_dloss(s, y) for s, y in zip(SCORES, signs, strict=True)]
    assert slopes.tolist() == pytest.approx(derivatives)


def test_multiclass_hinge_is_that_of_crammer_and_singer() -> None:
    scores, labels = _RANDOM.normal(0, 2, (60, 4)), _RANDOM.integers(0, 4, 60)
    found = losses.multiclass_hinge(torch.from_numpy(scores), torch.from_numpy(labels)).item()
    assert found == pytest.approx(metrics.hinge_loss(labels, scores, labels=range(4)))
