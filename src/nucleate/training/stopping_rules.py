"""Rules that decide after each epoch whether training has come to its end: one face, and the known rules behind it.

Every rule is fed the training and the validation error of each epoch, lower is better, and remembers the epoch of the
lowest validation error: the weights of that epoch are the ones to keep, whatever ends the run. The rule that Nucleate
itself uses is `nucleate.training.early_stopping.Horizon`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, sqrt
from typing import final

from nucleate.errors import InputError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule finds in the curves: whether to stop, a word for the cause, one sentence, the numbers behind it."""

    stop: bool
    cause: str
    reason: str
    evidence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one `update`. Epochs count from 1; `best_epoch` is 0 while no epoch has given finite errors.

    `cause` is "going on", "limit", "not finite" or a word of the rule's own. `why` says the same to people, as a
    sentence without its full stop, and `evidence` holds the numbers that it rests on.
    """

    stop: bool
    epoch: int
    best_epoch: int
    cause: str
    why: str
    evidence: Mapping[str, float]

    @property
    def reason(self) -> str:
        """`why` as a whole sentence; of a run that ends, with the weights that the rule keeps."""
        return self.keeping(self.best_epoch) if self.stop else f"{self.why}."

    def keeping(self, epoch: int) -> str:
        """The same for a run of which another epoch is kept, 0 for none."""
        kept = f"the weights of epoch {epoch} are kept" if epoch else "no epoch has usable weights"
        return f"{self.why}; {kept}."


class StoppingRule(ABC):
    """The face of every rule. `train`, `valid` and `lowest` (the lowest validation error so far) hold a value an epoch.

    A rule does not stop before epoch `minimum` nor go on beyond epoch `limit`. No verdict is latched: each is drawn
    from the curves anew. But an error that is not finite ends the run at once and for good. A rule belongs to one set
    of data: where the data change the errors change their meaning, so a new rule must be made.

    Raises `InputError` for a setting out of its range.
    """

    def __init__(self, *, minimum: int = 1, limit: int | None = None) -> None:
        _at_least(1, minimum=minimum, limit=1 if limit is None else limit)
        self.minimum, self.limit = minimum, limit
        self.train: list[float] = []
        self.valid: list[float] = []
        self.lowest: list[float] = []
        self.best_epoch = 0
        self._broken = ""

    @abstractmethod
    def _judge(self) -> Verdict:
        """Judge the curves as they are: one epoch or more, all errors finite."""

    @property
    @final
    def epoch(self) -> int:
        """The number of epochs seen."""
        return len(self.valid)

    @final
    def update(self, train_error: float, valid_error: float) -> Decision:
        """Take in the errors of one more epoch and decide whether it is the last."""
        self._append(float(train_error), float(valid_error))
        if self._broken:
            return self._decide(True, "not finite", self._broken, {})
        verdict = self._judge()
        if verdict.stop and self.epoch >= self.minimum:
            return self._decide(True, verdict.cause, verdict.reason, verdict.evidence)
        if self.limit is not None and self.epoch >= self.limit:
            return self._decide(True, "limit", f"The limit of {self.limit} epochs is reached", verdict.evidence)
        if verdict.stop:
            why = f"{verdict.reason}, but the run was asked to last {self.minimum} epochs"
            return self._decide(False, "going on", why, verdict.evidence)
        return self._decide(False, verdict.cause, verdict.reason, verdict.evidence)

    @final
    def halt(self, why: str) -> Decision:
        """End the run for something outside the curves, such as the time given; `why` begins the sentence."""
        return self._decide(True, "limit", why, {})

    @final
    def state_dict(self) -> dict[str, list[float | None]]:
        """Return all that the rule remembers, fit for JSON: the two curves, with None for what is not finite."""
        return {name: [e if isfinite(e) else None for e in getattr(self, name)] for name in ("train", "valid")}

    @final
    def load_state(self, state: Mapping[str, Sequence[float | None]]) -> None:
        """Go on from the `state_dict` of this or of any other rule: each is a function of the curves alone."""
        train, valid = state["train"], state["valid"]
        _same_length(train, valid)
        self.train, self.valid, self.lowest, self.best_epoch, self._broken = [], [], [], 0, ""
        for pair in zip(train, valid, strict=True):
            self._append(*(inf if error is None else error for error in pair))

    def _append(self, train_error: float, valid_error: float) -> None:
        self.train.append(train_error)
        self.valid.append(valid_error)
        lowest = self.lowest[-1] if self.lowest else inf
        for name, error in (("Training", train_error), ("Validation", valid_error)):
            if not isfinite(error) and not self._broken:
                self._broken = f"{name} error is not finite at epoch {self.epoch}"
        if valid_error < lowest and not self._broken:
            lowest, self.best_epoch = valid_error, self.epoch
        self.lowest.append(lowest)

    def _decide(self, stop: bool, cause: str, why: str, evidence: Mapping[str, float]) -> Decision:
        return Decision(stop, self.epoch, self.best_epoch, cause, why, evidence)


def decide(train: Sequence[float], valid: Sequence[float], rule: StoppingRule) -> Decision:
    """Return the decision at which a fresh `rule` ends the run whose whole curves are given, or else its last one.

    Raises `InputError` for curves that are empty or of different length.

    >>> decide([4, 3, 2, 1, 1], [5, 4, 4, 5, 6], Patience(2)).epoch
    4
    """
    _same_length(train, valid)
    if not len(train):
        raise InputError("There is no epoch to judge; give one training and one validation error or more.")
    for errors in zip(train, valid, strict=True):
        decision = rule.update(*errors)
        if decision.stop:
            break
    return decision


@final
class FixedNumber(StoppingRule):
    """Stop after a fixed number of epochs, whatever the errors do."""

    def __init__(self, epochs: int, *, minimum: int = 1, limit: int | None = None) -> None:
        super().__init__(minimum=minimum, limit=limit)
        _at_least(1, epochs=epochs)
        self.epochs = epochs

    def _judge(self) -> Verdict:
        return _verdict(self.epoch >= self.epochs, f"epoch {self.epoch} of {self.epochs}", epochs=self.epochs)


@final
class Patience(StoppingRule):
    """Stop when `patience` epochs have passed without a new lowest validation error, by more than `min_delta`.

    Keras and Lightning call this early stopping.

    >>> decide([3, 2, 1, 1], [3.0, 2.0, 2.1, 2.2], Patience(2)).best_epoch
    2
    """

    def __init__(
        self, patience: int = 10, min_delta: float = 0.0, *, minimum: int = 1, limit: int | None = None
    ) -> None:
        super().__init__(minimum=minimum, limit=limit)
        _at_least(1, patience=patience)
        _at_least(0, min_delta=min_delta)
        self.patience, self.min_delta = patience, min_delta

    def _judge(self) -> Verdict:
        since = self.epoch - self.best_epoch
        if self.min_delta:
            reference, last = inf, 0
            for epoch, error in enumerate(self.valid, 1):
                if error < reference - self.min_delta:
                    reference, last = error, epoch
            since = self.epoch - last
        return _verdict(since >= self.patience, f"no better validation error for {since} epochs", waited=since)


@final
class GeneralisationLoss(StoppingRule):
    """Prechelt's GL: stop when GL(t) = 100 (E_va(t) / E_opt(t) - 1) exceeds `alpha`, in per cent.

    E_opt(t) is the lowest validation error up to t; errors must be positive. Source: Prechelt, Neural Networks 11
    (1998) 761.
    """

    def __init__(self, alpha: float = 5.0, *, minimum: int = 1, limit: int | None = None) -> None:
        super().__init__(minimum=minimum, limit=limit)
        _at_least(0, alpha=alpha)
        self.alpha = alpha

    def _judge(self) -> Verdict:
        loss = _generalisation_loss(self)
        return _verdict(loss > self.alpha, f"validation error is {loss:.1f}% above its lowest", loss=loss)


@final
class ProgressQuotient(StoppingRule):
    """Prechelt's PQ: stop at the end of a strip of `strip` epochs when GL(t) / P_k(t) exceeds `alpha`.

    P_k(t) = 1000 (sum of the last k training errors / (k times the lowest of them) - 1), with k = `strip`: how much
    training still moves. Where it does not move at all, any GL above 0 ends the run. Source: Prechelt (1998).
    """

    def __init__(self, alpha: float = 0.75, strip: int = 5, *, minimum: int = 1, limit: int | None = None) -> None:
        super().__init__(minimum=minimum, limit=limit)
        _at_least(0, alpha=alpha)
        _at_least(2, strip=strip)
        self.alpha, self.strip = alpha, strip

    def _judge(self) -> Verdict:
        loss, last = _generalisation_loss(self), self.train[-self.strip :]
        progress = 1000 * _excess(sum(last) / len(last), min(last))
        stop = self.epoch % self.strip == 0 and loss > 0 and loss > self.alpha * progress
        finding = f"generalisation loss is {loss:.1f}% and training progress {progress:.1f} per mille"
        return _verdict(stop, finding, loss=loss, progress=progress)


@final
class SuccessiveStrips(StoppingRule):
    """Prechelt's UP_s: stop when validation error rose from strip end to strip end `strips` times in succession.

    Strips are `strip` epochs long: E_va(t) > E_va(t - k) at the last `strips` multiples t of k = `strip`. Source:
    Prechelt (1998).
    """

    def __init__(self, strips: int = 3, strip: int = 5, *, minimum: int = 1, limit: int | None = None) -> None:
        super().__init__(minimum=minimum, limit=limit)
        _at_least(1, strips=strips, strip=strip)
        self.strips, self.strip = strips, strip

    def _judge(self) -> Verdict:
        ends, rises = self.valid[self.strip - 1 :: self.strip], 0
        while rises + 1 < len(ends) and ends[-1 - rises] > ends[-2 - rises]:
            rises += 1
        stop = self.epoch % self.strip == 0 and rises >= self.strips
        return _verdict(stop, f"validation error rose over {rises} strips of {self.strip} epochs", rises=rises)


@final
class Correlation(StoppingRule):
    """CDSC: stop when Pearson's correlation of both errors over the last `window` epochs is below `threshold`.

    It must be so at `hold` epochs in succession. A curve that does not move correlates with nothing: 0. Source:
    "Surpassing early stopping: a novel correlation-based stopping criterion for neural networks" (2024).
    """

    def __init__(
        self, window: int = 12, threshold: float = 0.3, hold: int = 1, *, minimum: int = 1, limit: int | None = None
    ) -> None:
        super().__init__(minimum=minimum, limit=limit)
        _at_least(2, window=window)
        _at_least(1, hold=hold)
        self.window, self.threshold, self.hold = window, threshold, hold

    def _judge(self) -> Verdict:
        ends = range(self.epoch, max(self.epoch - self.hold, self.window - 1), -1)
        values = [pearson(self.train[e - self.window : e], self.valid[e - self.window : e]) for e in ends]
        stop = len(values) == self.hold and max(values) < self.threshold
        shown = values[0] if values else 1.0
        return _verdict(stop, f"the correlation of training and validation error is {shown:.2f}", correlation=shown)


def pearson(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Pearson's correlation, in -1..1; 0 where either does not vary.

    >>> pearson([1, 2, 3], [2, 4, 6])
    1.0
    """
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    shared = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return max(-1.0, min(1.0, shared / spread)) if spread > 0 else 0.0


def _generalisation_loss(rule: StoppingRule) -> float:
    return 100 * _excess(rule.valid[-1], rule.lowest[-1])


def _excess(error: float, lowest: float) -> float:
    """Return by what part an error lies above the lowest; infinite above a lowest of 0."""
    return error / lowest - 1 if lowest else inf if error > lowest else 0.0


def _verdict(stop: bool, finding: str, **evidence: float) -> Verdict:
    return Verdict(stop, "rule" if stop else "going on", finding[0].upper() + finding[1:], evidence)


def _at_least(bound: float, **settings: float) -> None:
    for name, value in settings.items():
        if not value >= bound:
            raise InputError(f"{name} must be {bound} or more, not {value}.")


def _same_length(train: Sequence[object], valid: Sequence[object]) -> None:
    if len(train) != len(valid):
        raise InputError(
            f"There are {len(train)} training errors but {len(valid)} validation errors; give one of each an epoch."
        )
