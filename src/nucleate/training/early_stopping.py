"""The number of epochs, decided by the run itself: train for as long as both errors fall, end when they part.

Whether a run is over is asked after every epoch, from its curves alone. Nothing here knows how long a run may last.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import erf, isfinite, sqrt
from operator import neg
from statistics import fmean as mean
from typing import final

from nucleate.errors import InputError
from nucleate.training.stopping_rule import Decision, StoppingRule, Verdict, at_least


@final
class EarlyStopping(StoppingRule):
    """Stop when another epoch is no longer worth its price and validation error has parted from training error.

    Let L(t) be the lowest validation error up to epoch t, m(t) the epochs since it first was at most 3 L(t), and
    w(t) = min(m / 2, 3 r), rounded up: the look-back grows with the run, because what is a long pause after ten epochs
    is a short one after forty. With r = `recent`, the run ends at epoch t >= r when both hold:

    1. The expected gain of an epoch is at most `price`, as a part of L(t). It is the larger of two estimates, as going
       on is the cheaper mistake: the fall of the lowest, (L(t - w) - L(t)) / w, and the Theil-Sen slope of the last r
       validation errors (the median over pairs of epochs; outliers do not decide), both divided by |L(t)|.
    2. The errors do not move together: Kendall's tau between them over the last r epochs, the share of pairs of epochs
       in which both go one way less the share in which they part, is below `concordance`; or validation error rose at
       every one of them. Errors that rise and come down again together are the optimiser's trouble and no over-fitting.

    It also ends when 6 r epochs have brought no new lowest validation error. So a pair of curves that only falls never
    ends, however slowly; validation error that rises from the start ends at epoch r; and noise ends, as its lowest
    value falls ever less. Both curves may be multiplied by any positive numbers: nothing changes. Nor does it matter
    how long a run took to come down to three times its lowest error, once it has lasted r epochs: such a shift of both
    curves in time changes nothing but the time.

    `price` is what an epoch costs, told as the part of the validation error that it must win: k epochs are worth their
    time if they win k times as much. So it belongs to the length of an epoch. The default suits runs of some tens of
    epochs; where an epoch is a tenth as long, a tenth of it is the same price. At price 0, as where the epochs are paid
    for whether they are used or not, a run ends only when nothing is won at all.

    `evidence` holds (slopes and gains as a part of the lowest, or last training, error an epoch): `train_slope`,
    `valid_slope`, the confidence of each not being chance (Mann-Kendall, 0..1), `concordance` (tau), `expected_gain`,
    `price`, `strips_risen` (successive means of 5 validation errors that rose, up to 3), `since_best` (epochs), and
    `train_fall_since_best` (a part of the training error of the best epoch).

    Sources: Sen, J. Am. Stat. Assoc. 63 (1968) 1379; Mann, Econometrica 13 (1945) 245; Kendall, Biometrika 30 (1938)
    81. `benchmarks/horizon.py` measures the rule on curves of other people's runs, beside `nucleate.curves.rules`.
    The log calls it Horizon.

    >>> train = [1 / epoch for epoch in range(1, 60)]
    >>> valid = [1 / epoch + 0.004 * epoch for epoch in range(1, 60)]
    >>> decision = decide(train, valid)
    >>> decision.epoch, decision.best_epoch, decision.cause
    (26, 16, 'over-fitting')
    """

    def __init__(
        self,
        recent: int = 8,
        price: float = 0.0008,
        concordance: float = 0.5,
        *,
        minimum: int = 1,
    ) -> None:
        super().__init__(minimum=minimum)
        at_least(3, recent=recent)
        at_least(0, price=price)
        self.recent, self.price, self.concordance = recent, price, concordance

    def _judge(self) -> Verdict:
        trends = _Trends.of(self.train[-self.recent :], self.valid[-self.recent :])
        lowest, since = self.lowest[-1], self.epoch - self.best_epoch
        gain = max(self._fall(), _part(-trends.valid_slope, lowest))
        at_best = self.train[self.best_epoch - 1]
        evidence = {
            "train_slope": _part(trends.train_slope, self.train[-1]),
            "train_confidence": trends.train_confidence,
            "valid_slope": _part(trends.valid_slope, lowest),
            "valid_confidence": trends.valid_confidence,
            "concordance": trends.concordance,
            "expected_gain": gain,
            "price": self.price,
            "strips_risen": float(self._strips_risen()),
            "since_best": float(since),
            "train_fall_since_best": _part(at_best - min(self.train[-3:]), at_best),
        }
        parted = trends.concordance < self.concordance or trends.only_rises
        worthless = self.epoch >= self.recent and gain <= self.price
        if (worthless and parted) or since >= 6 * self.recent:
            return Verdict(True, *self._explain(evidence, trends), evidence)
        reason = (
            f"Each epoch, training error changes by {evidence['train_slope']:+.2%} and validation error by "
            f"{evidence['valid_slope']:+.2%}; another one is expected to win {max(gain, 0.0):.2%}"
        )
        return Verdict(False, "going on", reason, evidence)

    def _fall(self) -> float:
        """Return the mean fall of the lowest validation error an epoch over the look-back, as a part of it."""
        low = self.lowest[-1] + 2 * abs(self.lowest[-1])
        near = self.epoch - bisect_left(self.lowest, -low, key=neg)
        back = min((near + 1) // 2, 3 * self.recent, self.epoch - 1)
        return _part((self.lowest[-1 - back] - self.lowest[-1]) / back, self.lowest[-1]) if back else 0.0

    def _strips_risen(self) -> int:
        """Count the successive strips of 5 epochs, back from the last epoch, that lie above the strip before."""
        strips = [sum(self.valid[end - 5 : end]) for end in range(self.epoch, max(4, self.epoch - 20), -5)]
        rises = 0
        while rises + 1 < len(strips) and strips[rises] > strips[rises + 1]:
            rises += 1
        return rises

    def _explain(self, evidence: dict[str, float], trends: _Trends) -> tuple[str, str]:
        """Name the cause of a stop and say it in one sentence, without its last clause."""
        since, fall = int(evidence["since_best"]), evidence["train_fall_since_best"]
        if since and fall >= 0.01:
            return "over-fitting", (
                f"Validation error has not fallen since epoch {self.best_epoch} while training error fell another "
                f"{fall:.0%}: over-fitting began"
            )
        if since and trends.only_rises and trends.train_slope > 0:
            return "diverging", (
                f"Validation error has not fallen since epoch {self.best_epoch}, and now training error rises with it"
            )
        if since >= self.recent:
            return "plateau", (
                f"Validation error has not fallen since epoch {self.best_epoch}, nor has training error fallen much"
            )
        gain = max(evidence["expected_gain"], 0.0)
        return "plateau", (
            f"Another epoch is expected to win {gain:.2%} of the validation error, which is not worth its price of "
            f"{self.price:.2%}, and validation error no longer follows training error"
        )


def decide(train: Sequence[float], valid: Sequence[float], rule: StoppingRule | None = None) -> Decision:
    """Return the decision at which `rule` (a fresh `EarlyStopping()` by default) ends the run of these curves.

    Where it would not have ended, this is the decision at the last epoch, with `stop` False.

    Raises:
        InputError: the curves are empty, or of different length.

    >>> decide([3, 2, 1], [3, 2, 1]).stop
    False
    """
    if len(train) != len(valid):
        raise InputError(
            f"There are {len(train)} training errors but {len(valid)} validation errors; give one of each an epoch."
        )
    if not len(train):
        raise InputError("There is no epoch to judge; give one training and one validation error or more.")
    rule = EarlyStopping() if rule is None else rule
    for errors in zip(train, valid, strict=True):
        decision = rule.update(*errors)
        if decision.stop:
            break
    return decision


STRIP, ALIKE = 5, 0.02
"""Epochs over whose mean validation errors are compared, and the part by which such means may differ by chance."""


def select_epoch(valid: Sequence[float]) -> int:
    """Return the epoch, from 1, whose weights are kept: 0 where no validation error is finite.

    It is the latest at which the mean of the last `STRIP` validation errors is within `ALIKE` of the lowest such mean.
    One error is noisy, and the lowest of many owes much to chance; of epochs that are alike the latest has learnt most.
    `benchmarks/kept_epoch.py` measures what else could be kept, and how well any choice can do.

    >>> select_epoch([3.0, 2.0, 1.0, 1.0, 1.01, 1.0, 1.4, 1.8, 2.2]), select_epoch([float("nan")])
    (7, 0)
    """
    means = [mean(valid[max(0, end - STRIP) : end]) for end in range(1, len(valid) + 1)]
    known = [value for value in means if isfinite(value)]
    if not known:
        return 0
    bound = min(known) + ALIKE * abs(min(known))
    return max(epoch for epoch, value in enumerate(means, start=1) if value <= bound)


class LossAndScoreStopping:
    """Judge a run by its validation error and by its validation score: it ends where a rule ends it by both.

    The score is what a run is for, but is known from fewer events, the error from all pixels; where they part, as when
    a network grows more certain of its mistakes while it makes fewer, going on is the cheaper mistake. The rule is
    asked twice: about the error, and about the negative score in its place; `rule` makes a fresh one.

    >>> stopping = LossAndScoreStopping(lambda: EarlyStopping(recent=3))
    >>> decisions = [stopping.update(1 / t, 1 + t, 0.1 * min(t, 4)) for t in range(1, 11)]
    >>> [decision.epoch for decision in decisions if decision.stop]
    [8, 9, 10]
    """

    def __init__(self, rule: Callable[[], StoppingRule] = EarlyStopping) -> None:
        self.by_error, self.by_score = rule(), rule()

    def update(self, train_error: float, valid_error: float, score: float) -> Decision:
        """Take in one more epoch; what is decided is told of the validation error.

        In `evidence`, "score_gain" is the expected gain of an epoch as a part of the highest score.
        """
        error, other = self.by_error.update(train_error, valid_error), self.by_score.update(train_error, -score)
        evidence = {**error.evidence, "score_gain": other.evidence.get("expected_gain", 0.0)}
        if error.stop and not other.stop and error.cause != "not finite":
            why = f"The validation score has more to win, though: {error.why[0].lower()}{error.why[1:]}"
            return replace(error, stop=False, cause="going on", why=why, evidence=evidence)
        return replace(error, evidence=evidence)


@dataclass(frozen=True, slots=True)
class _Trends:
    """What all pairs of the last epochs say of the two curves."""

    train_slope: float
    valid_slope: float
    train_confidence: float
    valid_confidence: float
    concordance: float
    only_rises: bool

    @classmethod
    def of(cls, train: Sequence[float], valid: Sequence[float]) -> _Trends:
        n = len(valid)
        pairs = n * (n - 1) // 2
        if not pairs:
            return cls(0.0, 0.0, 0.0, 0.0, 1.0, False)
        train_slopes, valid_slopes = [], []
        train_sign = valid_sign = agree = 0
        for i in range(n - 1):
            train_i, valid_i = train[i], valid[i]
            for j in range(i + 1, n):
                a, b = train[j] - train_i, valid[j] - valid_i
                train_slopes.append(a / (j - i))
                valid_slopes.append(b / (j - i))
                sign_a, sign_b = (a > 0) - (a < 0), (b > 0) - (b < 0)
                train_sign += sign_a
                valid_sign += sign_b
                agree += sign_a * sign_b
        return cls(
            _median(train_slopes),
            _median(valid_slopes),
            _confidence(train_sign, n),
            _confidence(valid_sign, n),
            agree / pairs,
            valid_sign == pairs,
        )


def _median(values: list[float]) -> float:
    values.sort()
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _confidence(sign_sum: int, n: int) -> float:
    """Return 1 - p of the two-sided Mann-Kendall test (normal approximation, with continuity correction)."""
    z = max(abs(sign_sum) - 1, 0) / sqrt(n * (n - 1) * (2 * n + 5) / 18)
    return erf(z / sqrt(2))


def _part(change: float, whole: float) -> float:
    """Return a change as a part of |whole|; where that is 0, any change counts as the whole."""
    return change / abs(whole) if whole else float((change > 0) - (change < 0))
