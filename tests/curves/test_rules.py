"""The known rules against their formulas, and the contract that every rule keeps."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.curves.rules import (
    Correlation,
    FixedNumber,
    GeneralisationLoss,
    Patience,
    ProgressQuotient,
    SuccessiveStrips,
    pearson,
)
from nucleate.errors import InputError
from nucleate.training.early_stopping import EarlyStopping, decide

RULES = [
    EarlyStopping,
    partial(FixedNumber, 7),
    partial(Patience, 3),
    partial(Patience, 3, 0.5),
    partial(GeneralisationLoss, 5),
    partial(ProgressQuotient, 0.75),
    partial(SuccessiveStrips, 2),
    partial(Correlation, 6, 0.3, 2),
]

errors = st.floats(0.125, 8).map(lambda e: round(e * 64) / 64)
curves = st.lists(st.tuples(errors, errors), min_size=1, max_size=60)


def every_rule(test):
    return pytest.mark.parametrize("make", RULES, ids=lambda r: getattr(r, "func", r).__name__)(test)


def first_epoch(condition, epochs):
    return next((t for t in range(1, epochs + 1) if condition(t)), None)


def stop_of(rule, run):
    decision = decide(*zip(*run, strict=True), rule)
    return decision.epoch if decision.stop else None


@given(curves, st.integers(1, 6))
def test_patience_is_its_definition(run, n):
    valid = [v for _, v in run]
    expected = first_epoch(lambda t: t - 1 - int(np.argmin(valid[:t])) >= n, len(valid))
    assert stop_of(Patience(n), run) == expected


@given(curves, st.integers(1, 6))
def test_patience_counts_only_what_beats_the_last_success_by_the_delta(run, n):
    reference, last = math.inf, 0
    expected = None
    for t, (_, error) in enumerate(run, 1):
        if error < reference - 0.25:
            reference, last = error, t
        if t - last >= n:
            expected = t
            break
    assert stop_of(Patience(n, 0.25), run) == expected


@given(curves, st.sampled_from([0.0, 2.0, 20.0]))
def test_generalisation_loss_is_prechelts(run, alpha):
    valid = [v for _, v in run]
    expected = first_epoch(lambda t: 100 * (valid[t - 1] / min(valid[:t]) - 1) > alpha, len(valid))
    assert stop_of(GeneralisationLoss(alpha), run) == expected


@given(curves, st.sampled_from([0.05, 0.5]), st.integers(2, 6))
def test_progress_quotient_is_prechelts(run, alpha, k):
    train, valid = (np.array(c) for c in zip(*run, strict=True))

    def stops(t):
        loss = 100 * (valid[t - 1] / valid[:t].min() - 1)
        last = train[t - k : t]
        progress = 1000 * (last.sum() / (k * last.min()) - 1)
        return loss > 0 and (progress == 0 or loss / progress > alpha)

    expected = first_epoch(lambda t: t % k == 0 and stops(t), len(valid))
    assert stop_of(ProgressQuotient(alpha, k), run) == expected


@given(curves, st.integers(1, 3), st.integers(1, 5))
def test_successive_strips_are_prechelts(run, s, k):
    valid = [v for _, v in run]

    def up(t, strips):
        """UP_s, as the recursion of the paper."""
        rose = t > k and t % k == 0 and valid[t - 1] > valid[t - k - 1]
        return rose and (strips == 1 or up(t - k, strips - 1))

    assert stop_of(SuccessiveStrips(s, k), run) == first_epoch(lambda t: up(t, s), len(valid))


@given(curves, st.integers(3, 8), st.integers(1, 3))
def test_correlation_is_pearsons_over_the_window(run, window, hold):
    train, valid = (np.array(c) for c in zip(*run, strict=True))

    def below(t):
        if t < window:
            return False
        a, b = train[t - window : t], valid[t - window : t]
        return (np.corrcoef(a, b)[0, 1] if np.ptp(a) and np.ptp(b) else 0) < 0.30001

    expected = first_epoch(lambda t: t >= hold and all(below(t - i) for i in range(hold)), len(valid))
    assert stop_of(Correlation(window, 0.30001, hold), run) == expected


def test_fixed_number():
    assert stop_of(FixedNumber(3), [(1, 1)] * 5) == 3
    assert stop_of(FixedNumber(9), [(1, 1)] * 5) is None


def test_pearson_of_a_flat_curve_is_zero():
    assert pearson([1, 1, 1], [1, 2, 3]) == 0
    assert pearson([1, 2, 3], [3, 2, 1]) == -1


@every_rule
@given(run=curves)
def test_the_best_epoch_is_the_first_lowest_validation_error(make, run):
    rule = make()
    for t, pair in enumerate(run, 1):
        decision = rule.update(*pair)
        assert decision.epoch == t
        assert decision.best_epoch == 1 + int(np.argmin([v for _, v in run[:t]]))


@every_rule
@given(run=curves, bad=st.sampled_from([math.nan, math.inf, -math.inf]), side=st.booleans())
def test_an_error_that_is_not_finite_stops_at_once_with_the_last_good_weights(make, run, bad, side):
    rule = make()
    for pair in run:
        last = rule.update(*pair)
    decision = rule.update(bad, 0.01) if side else rule.update(0.01, bad)
    assert decision.stop
    assert decision.cause == "not finite"
    assert decision.best_epoch == last.best_epoch
    where = "Training" if side else "Validation"
    assert decision.reason == (
        f"{where} error is not finite at epoch {len(run) + 1}; the weights of epoch {last.best_epoch} are kept."
    )
    after = rule.update(0.01, 0.01)
    assert (after.stop, after.cause, after.best_epoch) == (True, "not finite", last.best_epoch)


@every_rule
def test_without_one_finite_epoch_there_are_no_weights_to_keep(make):
    decision = make().update(1.0, math.nan)
    assert (decision.stop, decision.best_epoch) == (True, 0)
    assert decision.reason.endswith("no epoch has usable weights.")


@every_rule
@given(run=curves)
def test_every_decision_is_one_sentence_with_finite_numbers(make, run):
    rule = make()
    for pair in run:
        decision = rule.update(*pair)
        assert decision.reason[0].isupper()
        assert decision.reason.endswith(".")
        assert "\n" not in decision.reason
        assert all(
            math.isfinite(value) for value in decision.evidence.values() if not isinstance(rule, ProgressQuotient)
        )


def test_a_verdict_before_the_minimum_is_not_latched():
    """Errors that rise, and then fall for good before the minimum is over, end nothing."""
    run = [(1 - 0.01 * t, 1 + 0.1 * t) for t in range(10)] + [(0.9 * 0.9**t, 0.9 * 0.9**t) for t in range(60)]
    assert stop_of(EarlyStopping(minimum=12), run) is None
    assert stop_of(EarlyStopping(), run) == 8


def test_reasons_read_as_sentences():
    waited = decide([1, 1, 1], [1, 2, 2], Patience(2))
    assert waited.reason == "No better validation error for 2 epochs; the weights of epoch 1 are kept."


def test_settings_and_curves_that_make_no_sense_are_refused():
    for make in (
        partial(Patience, 0),
        partial(Patience, 1, -1),
        partial(FixedNumber, 0),
        partial(GeneralisationLoss, -1),
        partial(ProgressQuotient, 1, 1),
        partial(SuccessiveStrips, 0),
        partial(Correlation, 1),
        partial(EarlyStopping, 2),
        partial(EarlyStopping, 8, math.nan),
        partial(EarlyStopping, minimum=0),
    ):
        with pytest.raises(InputError, match="must be"):
            make()
    with pytest.raises(InputError, match="2 training errors but 1 validation errors"):
        decide([1, 2], [1], Patience())
    with pytest.raises(InputError, match="no epoch to judge"):
        decide([], [], Patience())
