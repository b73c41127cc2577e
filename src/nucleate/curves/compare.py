"""Where each rule would have ended a run whose curves are known to the end, and what that would have cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

from nucleate.curves.curves import Curves, curves
from nucleate.curves.history import History
from nucleate.curves.rules import (
    Correlation,
    FixedNumber,
    GeneralisationLoss,
    Patience,
    ProgressQuotient,
    SuccessiveStrips,
)
from nucleate.errors import InputError
from nucleate.training.early_stopping import EarlyStopping, LossAndScoreStopping, decide, select_epoch
from nucleate.training.stopping_rule import Decision, StoppingRule

RULES: Mapping[str, Callable[[], StoppingRule]] = {
    "early stopping": EarlyStopping,
    "patience 5": lambda: Patience(5),
    "patience 10": lambda: Patience(10),
    "patience 20": lambda: Patience(20),
    "GL 5": lambda: GeneralisationLoss(5),
    "PQ 0.75": lambda: ProgressQuotient(0.75),
    "UP 3": lambda: SuccessiveStrips(3),
    "correlation 12 < 0.3": lambda: Correlation(12, 0.3),
    "fixed 100": lambda: FixedNumber(100),
    "fixed 400": lambda: FixedNumber(400),
}
"""The rules that are compared; each call makes a fresh one."""

BOTH = "early stopping, score too"
"""What Nucleate does, by `LossAndScoreStopping` and `select_epoch`. Only where the history has a score."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One rule on one run: its decision, the epoch `kept` (0 for none), and what that lacks of the best of the run.

    `regret` is in error, as a part of the lowest: of the test error where the run has one, else of the validation
    error. `score_regret` is the highest score less the one kept. NaN where there is nothing to compare.
    """

    rule: str
    decision: Decision
    kept: int
    regret: float
    score_regret: float


def outcomes(history: History, rules: Mapping[str, Callable[[], StoppingRule]] = RULES) -> list[Outcome]:
    """Judge the run by each of the rules; where it has a score, by `BOTH` first.

    Raises `InputError` where numbers are too large.

    >>> run = History("run", (5, 4, 3, 2, 1), (5.0, 4.0, 6.0, 7.0, 2.0))
    >>> [outcome] = outcomes(run, {"patience 2": lambda: Patience(2)})
    >>> outcome.decision.epoch, outcome.kept, outcome.regret
    (4, 2, 1.0)
    """
    found = []
    try:
        decisions = {name: decide(history.train, history.valid, rule()) for name, rule in rules.items()}
        both = {BOTH: _by_both(history)} if history.score else {}
    except OverflowError as overflow:
        raise InputError(
            f"{history.name} holds numbers too large to reckon with: give errors below 1e100."
        ) from overflow
    for name, decision in (both | decisions).items():
        epoch = select_epoch(history.valid[: decision.epoch]) if name == BOTH else decision.best_epoch
        error, lowest = _value_and_best(history.test or history.valid, epoch, min)
        score, highest = _value_and_best(history.score, epoch, max)
        regret = (error - lowest) / abs(lowest) if lowest else nan
        found.append(Outcome(name, decision, epoch, regret, highest - score))
    return found


def _by_both(history: History) -> Decision:
    stopping = LossAndScoreStopping()
    for row in zip(history.train, history.valid, history.score, strict=True):
        decision = stopping.update(*row)
        if decision.stop:
            break
    return decision


def _value_and_best(
    values: Sequence[float], epoch: int, best: Callable[[Sequence[float]], float]
) -> tuple[float, float]:
    """The value of the epoch kept, and the best of all that are finite."""
    finite = [value for value in values if isfinite(value)]
    return (values[epoch - 1], best(finite)) if epoch and finite else (nan, nan)


def drawn(history: History, outcome: Outcome) -> Curves:
    """The run's curves with what was decided."""
    decision = outcome.decision
    columns = {"train_loss": history.train, "valid_loss": history.valid}
    columns |= {"test_loss": history.test} if history.test else {}
    columns |= {"score": history.score} if history.score else {}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    stop = decision.epoch if decision.stop else None
    return curves(rows, outcome.kept or None, stop, over_fitting(decision), history.name)


def over_fitting(decision: Decision) -> tuple[int, int] | None:
    """The first and the last epoch of what the rule judged over-fitting: from its best epoch to the stop."""
    return (decision.best_epoch, decision.epoch) if decision.cause == "over-fitting" else None
