"""Where rules would have ended a run that is known to its end."""

from io import StringIO
from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nucleate.curves.compare import BOTH, RULES, drawn, outcomes, over_fitting
from nucleate.curves.history import History
from nucleate.curves.rules import FixedNumber, Patience
from nucleate.errors import InputError
from nucleate.report.console import print_stopping
from nucleate.training.early_stopping import EarlyStopping, LossAndScoreStopping, decide, select_epoch

errors = st.floats(0.1, 10)
runs = st.lists(st.tuples(errors, errors, errors, errors), min_size=1, max_size=60)

OVER = History("over", tuple(1 / t for t in range(1, 60)), tuple(1 / t + 0.004 * t for t in range(1, 60)))


@given(runs)
def test_regret_is_the_plain_distance_to_the_best_epoch(rows):
    train, valid, test, score = zip(*rows, strict=True)
    both, *others = outcomes(History("run", train, valid, test, score))
    stopping, decision = LossAndScoreStopping(), None
    for row in zip(train, valid, score, strict=True):
        decision = stopping.update(*row) if decision is None or not decision.stop else decision
    assert (both.rule, both.decision, both.kept) == (BOTH, decision, select_epoch(valid[: decision.epoch]))
    assert both.regret == pytest.approx(test[both.kept - 1] / min(test) - 1)
    for outcome in others:
        decision = decide(train, valid, RULES[outcome.rule]())
        assert outcome.decision == decision
        lowest = valid.index(min(valid[: decision.epoch]))
        assert outcome.kept == outcome.decision.best_epoch == lowest + 1
        assert outcome.regret == pytest.approx(test[lowest] / min(test) - 1)
        assert outcome.score_regret == pytest.approx(max(score) - score[lowest])
    assert found_without_test(train, valid) >= 0


def found_without_test(train, valid):
    """The regret of the whole run is none: its best epoch is the one of lowest validation error."""
    [outcome] = outcomes(History("run", train, valid), {"all": lambda: FixedNumber(1000)})
    assert outcome.regret == 0 and isnan(outcome.score_regret) and not outcome.decision.stop
    return min(o.regret for o in outcomes(History("run", train, valid)))


def test_what_is_not_finite_does_not_count_as_the_best():
    for outcome in outcomes(History("run", (1, 1), (1, nan), (2, nan), (nan, 0.5)), {"ours": EarlyStopping}):
        assert outcome.decision.cause == "not finite" and outcome.kept == 1
        assert outcome.regret == 0 and isnan(outcome.score_regret)
    [outcome] = outcomes(History("run", (1,), (nan,)), {"ours": EarlyStopping})
    assert outcome.kept == 0 and isnan(outcome.regret)
    [outcome] = outcomes(History("run", (1, 1), (-2.0, -1.0)), {"first": lambda: FixedNumber(1)})
    assert outcome.regret == 0
    [outcome] = outcomes(History("run", (1, 1), (-1.0, -2.0)), {"first": lambda: FixedNumber(1)})
    assert outcome.regret == 0.5


def test_what_is_drawn_is_what_was_decided():
    outcome = outcomes(OVER)[0]
    assert over_fitting(outcome.decision) == (16, 26)
    shown = drawn(OVER, outcome)
    assert (shown.kept, shown.stop, shown.over_fitting, shown.name) == (16, 26, (16, 26), "over")
    assert [epoch.valid_loss for epoch in shown.epochs] == list(OVER.valid)
    assert isnan(shown.epochs[0].score) and isnan(shown.epochs[0].test_loss)
    run = History("run", (2, 1), (2, 1), (3, 2), (0.1, 0.2))
    shown = drawn(run, outcomes(run)[0])
    assert (shown.kept, shown.stop, shown.over_fitting) == (2, None, None)
    assert [(epoch.test_loss, epoch.score) for epoch in shown.epochs] == [(3, 0.1), (2, 0.2)]
    assert over_fitting(decide([1] * 20, [1] * 20)) is None


def printed(history, found):
    console = Console(file=StringIO(), width=100)
    print_stopping(history, found, console)
    return console.file.getvalue()


def test_the_table_says_it_in_a_sentence_and_a_row_a_rule():
    text = printed(OVER, outcomes(OVER))
    assert text.startswith("over, after 26 of 59 epochs. Validation error has not fallen since epoch 16")
    for rule in RULES:
        assert rule in text
    assert "not yet" in text and "regret, validation" in text and "score" not in text
    scored = History("scored", OVER.train, OVER.valid, (), (0.5,) * len(OVER.valid))
    both = outcomes(scored)[0]
    assert both.kept > both.decision.best_epoch
    text = printed(scored, [both])
    assert f"the weights of epoch {both.kept} are kept" in " ".join(text.split())
    zero = History("zero", (2, 1), (2.0, 1.0), (2.0, 1.0), (0.5, 0.25), first=0)
    text = printed(zero, outcomes(zero, {"patience": lambda: Patience(5)}))
    assert "counts its epochs from 0" in text and "regret, test" in text and "0.250" in text


def test_numbers_too_large_to_reckon_with_are_refused():
    with pytest.raises(InputError, match=r"run holds numbers too large to reckon with: .*\.$"):
        outcomes(History("run", (1e308, -1e308) * 8, (1e308, -1e308) * 8))
