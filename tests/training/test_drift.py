"""ADWIN: a plain twin, false alarms and what it must see."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.training.drift import DELTA, LONGEST, SHORTEST, adwin


def plain(window, error):
    """The rule as it is written, cut by cut."""
    kept, risen = [*window, error][-LONGEST:], False
    while True:
        n, cut = len(kept), None
        variance = sum((x - sum(kept) / n) ** 2 for x in kept) / n
        for older in range(SHORTEST, n - SHORTEST + 1):
            m = 1 / (1 / older + 1 / (n - older))
            bits = math.log(2 * math.log(n) / DELTA)
            bound = math.sqrt(2 * variance * bits / m) + 2 * bits / (3 * m)
            means = sum(kept[:older]) / older, sum(kept[older:]) / (n - older)
            if abs(means[0] - means[1]) > bound:
                cut = older
                risen = risen or means[1] > means[0]
                break
        if cut is None:
            return kept, risen
        kept = kept[1:]


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(5, 40), st.floats(0, 1), st.floats(0, 1))
def test_it_is_the_plain_rule(seed, at, first, second):
    rng, window, other = np.random.default_rng(seed), [], []
    for number in range(60):
        error = float(np.clip(rng.normal(first if number < at else second, 0.05), 0, 1))
        window, drift = adwin(window, error)
        other, same = plain(other, error)
        assert (window, drift) == (other, same)


def test_errors_that_rise_are_drift_and_errors_that_fall_are_not():
    for first, second, wanted in ((0.1, 0.8, True), (0.8, 0.1, False)):
        window, seen = [], False
        for error in [first] * 40 + [second] * 40:
            window, drift = adwin(window, error)
            seen = seen or drift
        assert seen is wanted and len(window) < 60  # in either case what is old is dropped


def test_false_alarms_are_rare():
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(20):
        window = []
        for error in rng.beta(2, 5, 100):
            window, drift = adwin(window, float(error))
            alarms += drift
    assert alarms <= 2


def test_the_window_is_bounded():
    window = [0.5] * LONGEST
    assert len(adwin(window, 0.5)[0]) == LONGEST


@pytest.mark.parametrize("count", range(SHORTEST * 2))
def test_short_windows_say_nothing(count):
    assert adwin([0.0] * count, 1.0)[1] is False
