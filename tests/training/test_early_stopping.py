"""The laws of the rule that ends a run, what its evidence means, and what it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, theilslopes

from nucleate.training.early_stopping import EarlyStopping, LossAndScoreStopping, decide, select_epoch

errors = st.floats(0.125, 8).map(lambda e: round(e * 1024) / 1024)
curves = st.lists(st.tuples(errors, errors), min_size=1, max_size=80)
seeds = st.integers(0, 2**32 - 1)


def falling(count, seed, low=0.0, decades=3):
    """A strictly falling curve of positive errors whose steps differ a thousandfold, or by other powers of ten."""
    steps = 10 ** np.random.default_rng(seed).uniform(-decades, 0, count)
    return low + (1 + steps[::-1].cumsum()[::-1]) / (1 + steps.sum())


def noisy_run(seed, count=120, best=40):
    """Training falls all the time, validation until about `best`; both with noise."""
    rng, t = np.random.default_rng(seed), np.arange(1, count + 1)
    train = t**-0.5
    valid = t**-0.5 + 0.5 * (t / best) ** 2 * best**-0.5 / 4
    return train * rng.normal(1, 0.01, count), valid * rng.normal(1, 0.02, count)


@given(curves, st.integers(-20, 20), st.integers(-20, 20))
def test_the_scale_of_either_error_changes_nothing(run, a, b):
    """Powers of two, so that the scaled errors are exact."""
    one, other = EarlyStopping(), EarlyStopping()
    for train, valid in run:
        found, scaled = one.update(train, valid), other.update(train * 2.0**a, valid * 2.0**b)
        assert found == scaled


@given(seeds, st.integers(0, 60))
@settings(max_examples=60)
def test_a_shift_in_time_changes_nothing_but_the_time(seed, shift):
    """However long a run took to come down to 3 times its lowest error, it ends at the same point of its curves."""
    train, valid = noisy_run(seed)
    long = 3 * falling(8 + 60, seed + 1)
    decisions = []
    for before in (8, 8 + shift):
        prefix = long[-before:]
        decision = decide([*(prefix + train[0]), *train], [*(prefix + valid[0]), *valid])
        decisions.append((decision.stop, decision.epoch - before, decision.best_epoch - before, decision.cause))
    assert decisions[0] == decisions[1]


@given(seeds, st.integers(1, 300))
@settings(max_examples=50)
def test_a_strictly_falling_pair_never_stops(seed, epochs):
    decision = decide(falling(epochs, seed), falling(epochs, seed + 1))
    assert (decision.stop, decision.epoch, decision.best_epoch) == (False, epochs, epochs)


@given(seeds, curves.filter(lambda run: len(run) >= 40), st.integers(1, 30), st.integers(3, 12))
def test_a_validation_error_that_rises_from_the_start_stops_as_early_as_is_allowed(seed, run, minimum, recent):
    """Whatever the training error does."""
    rising = falling(len(run), seed)[::-1]
    decision = decide([train for train, _ in run], rising, EarlyStopping(recent, minimum=minimum))
    assert (decision.stop, decision.epoch, decision.best_epoch) == (True, max(minimum, recent), 1)


@given(seeds, st.floats(0.001, 0.3))
@settings(max_examples=60)
def test_noise_alone_ends_within_bounds(seed, size):
    """Chance enters by when the lowest error comes, so the bounds are those that 1 in 100,000 seeds would exceed."""
    train, valid = np.random.default_rng(seed).uniform(1 - size, 1 + size, (2, 1000))
    assert decide(train, valid).epoch <= 250
    assert decide(valid, valid).epoch <= 600


@given(seeds, st.floats(0.003, 0.1), st.integers(10, 40), st.floats(1.1, 100))
def test_one_outlier_ends_nothing(seed, fall, where, factor):
    t = np.arange(60)
    train, valid = (1 - fall) ** t, (1 - fall) ** t
    valid[where] *= factor
    assert not decide(train, valid).stop


@given(curves)
def test_evidence_is_that_of_the_textbooks(run):
    rule = EarlyStopping()
    for t, pair in enumerate(run, 1):
        evidence = rule.update(*pair).evidence
        train, valid = (np.array(c)[-8:] for c in zip(*run[:t], strict=True))
        if t < 2:
            continue
        lowest = min(v for _, v in run[:t])
        assert evidence["valid_slope"] == pytest.approx(theilslopes(valid)[0] / lowest)
        assert evidence["train_slope"] == pytest.approx(theilslopes(train)[0] / train[-1])
        signs = [np.sign(c[None, :] - c[:, None])[np.triu_indices(len(c), 1)] for c in (train, valid)]
        assert evidence["concordance"] == pytest.approx((signs[0] * signs[1]).mean())
        if len(set(train)) == len(train) and len(set(valid)) == len(valid):
            assert evidence["concordance"] == pytest.approx(kendalltau(train, valid).statistic)


def test_confidence_is_that_of_mann_and_kendall():
    """Eight values in order: S = 28, variance 8 * 7 * 21 / 18 = 65.33, z = 27 / 8.083 = 3.340, p = 0.00084."""
    evidence = decide(np.arange(8, 0, -1), np.arange(8, 0, -1)).evidence
    assert evidence["train_confidence"] == evidence["valid_confidence"] == pytest.approx(1 - 0.00083665, abs=1e-7)


def test_expected_gain_is_the_larger_of_two_estimates():
    """The lowest fell from 1 to 0.5 over the look-back of 5 epochs; the last eight do not fall in the median.

    Where the first eight of sixteen are above three times the lowest, the look-back is half of the other eight.
    """
    valid = [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert decide(valid, valid).evidence["expected_gain"] == pytest.approx((1 - 0.5) / 0.5 / 5)
    high = [9.0] * 8 + [1.0, 0.5] + [1.0] * 6
    assert decide(high, high).evidence["expected_gain"] == 0
    steady = [1.0] + [2.0 - 0.1 * t for t in range(9)]
    assert decide(steady, steady).evidence["expected_gain"] == pytest.approx(0.1)


@given(seeds)
@settings(max_examples=40)
def test_over_fitting_ends_the_run_soon_after_the_best_epoch_and_is_called_so(seed):
    decision = decide(*noisy_run(seed))
    assert decision.stop
    assert 30 <= decision.best_epoch <= 80
    assert decision.epoch <= 110


def test_strips_that_rise_are_counted():
    train = np.linspace(1, 0.5, 20)
    rising = decide(train, [*np.linspace(1, 0.4, 5), *np.linspace(0.5, 1.1, 15)], EarlyStopping(minimum=100)).evidence
    assert rising["strips_risen"] == 2
    assert decide(train, np.linspace(1, 0.4, 20)).evidence["strips_risen"] == 0


@given(seeds, st.integers(10, 60))
@settings(max_examples=40)
def test_a_run_whose_score_still_rises_goes_on_whatever_its_error_does(seed, count):
    rng = np.random.default_rng(seed)
    stopping, alone = LossAndScoreStopping(), EarlyStopping()
    # No step is below 0.1 of 61, twice the price of an epoch: a score that rises by less than the price may well end.
    score = -falling(count, seed, decades=1) / 10
    rows = np.c_[rng.uniform(1, 2, count), np.linspace(1, 2, count), score]
    found = [(stopping.update(*row), alone.update(*row[:2])) for row in rows.tolist()]
    assert not any(both.stop for both, _ in found) and any(one.stop for _, one in found)
    assert found[-1][0].reason.startswith("The validation score has more to win, though: ")
    assert found[-1][0].evidence["score_gain"] > 0


@given(curves)
def test_a_score_that_says_what_the_error_says_changes_nothing(run):
    stopping, alone = LossAndScoreStopping(), EarlyStopping()
    for train, valid in run:
        both, one = stopping.update(train, valid, -valid), alone.update(train, valid)
        assert (both.stop, both.epoch, both.best_epoch, both.cause, both.reason) == (
            one.stop, one.epoch, one.best_epoch, one.cause, one.reason,
        )  # fmt: skip


def test_an_error_that_is_not_finite_ends_the_run_whatever_the_score():
    decision = LossAndScoreStopping().update(1.0, np.inf, 0.5)
    assert (decision.stop, decision.cause) == (True, "not finite")


def test_it_says_why():
    t = np.arange(1, 60)
    over = decide(1 / t, 1 / t + 0.004 * t)
    assert over.cause == "over-fitting"
    assert over.reason == (
        "Validation error has not fallen since epoch 16 while training error fell another 38%: "
        "over-fitting began; the weights of epoch 16 are kept."
    )
    flat = decide(np.ones(60), np.ones(60))
    assert (flat.cause, flat.epoch, flat.best_epoch) == ("plateau", 8, 1)
    short = decide(1 + 0.01 * (t % 2), 1 - 1e-5 * t)
    assert short.cause == "plateau"
    assert short.reason == (
        "Another epoch is expected to win 0.00% of the validation error, which is not worth its price of 0.08%, "
        "and validation error no longer follows training error; the weights of epoch 8 are kept."
    )
    worse = decide(t / 10, t / 20)
    assert worse.cause == "diverging"
    assert "training error rises with it" in worse.reason
    on = decide(0.99**t, 0.98**t)
    assert (on.stop, on.cause) == (False, "going on")
    assert on.reason.startswith("Each epoch, training error changes by -1.0")


def test_a_run_that_is_out_of_luck_ends_though_both_errors_move_together():
    """Both wander above the lowest together for six windows: no new lowest is to be had."""
    t = np.arange(80)
    together = 1 + 0.5 * np.sin(t)
    together[0] = 0.1
    decision = decide(together, together)
    assert (decision.stop, decision.best_epoch) == (True, 1)
    assert decision.epoch <= 1 + 6 * 8


@given(seeds, st.integers(20, 200))
@settings(max_examples=30)
def test_at_no_price_a_run_goes_on_while_anything_is_won(seed, count):
    """A millionth an epoch is enough, whatever training does; at its usual price it is not."""
    train = np.random.default_rng(seed).uniform(1, 2, count + 60)
    valid = 1 - 1e-6 * np.arange(count)
    assert not decide(train[:count], valid, EarlyStopping(price=0)).stop
    assert decide(train, np.r_[valid, np.linspace(1, 2, 60)], EarlyStopping(price=0)).stop
    assert decide(np.ones(count), valid).stop


@given(curves, st.integers(1, 80))
def test_no_run_ends_before_the_minimum(run, minimum):
    free, bound = EarlyStopping(), EarlyStopping(minimum=minimum)
    for epoch, pair in enumerate(run, 1):
        wanted, decision = free.update(*pair), bound.update(*pair)
        assert decision.stop == (wanted.stop and epoch >= minimum)
        assert decision.best_epoch == wanted.best_epoch
        if wanted.stop and not decision.stop:
            assert decision.why == f"{wanted.why}, but the run was asked to last {minimum} epochs"


ERRORS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60)


@given(valid=ERRORS, scale=st.sampled_from([2.0**-9, 4.0, 2.0**20]))
def test_what_is_kept_does_not_depend_on_the_scale(valid, scale):
    assert select_epoch([scale * error for error in valid]) == select_epoch(valid)


@given(valid=ERRORS)
def test_what_is_kept_is_known_as_the_epochs_come(valid):
    # Training has the weights of the present epoch alone: it keeps them or never will.
    latest = [epoch for epoch in range(1, len(valid) + 1) if select_epoch(valid[:epoch]) == epoch]
    assert latest[-1] == select_epoch(valid)


@given(valid=ERRORS, broken=st.sampled_from([float("nan"), float("inf")]))
def test_an_error_that_is_not_finite_is_never_kept(valid, broken):
    assert select_epoch([*valid, broken]) == select_epoch(valid)


def test_of_errors_that_only_fall_the_last_is_kept_and_of_those_that_only_rise_the_first():
    assert select_epoch([1 / t for t in range(1, 30)]) == 29
    assert select_epoch([1.1**t for t in range(1, 30)]) == 1


def test_of_epochs_that_are_alike_the_latest_is_kept():
    assert select_epoch([1.0] * 9) == select_epoch([*[1.0] * 8, 1.01]) == 9


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_not_finite_hides_the_epochs_after_it_and_no_others(broken):
    assert select_epoch([broken]) == 0
    assert select_epoch([broken, *[1.0] * 9]) == 10
