"""Rules that decide after each epoch whether training has come to its end: one face, and the known rules behind it.

Every rule is fed the training and the validation error of each epoch, lower is better, and remembers the epoch of the
lowest validation error: the weights of that epoch are the ones to keep, whatever ends the run. The rule that Nucleate
itself uses is `nucleate.training.horizon.Horizon`.
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
    """What a rule says of the curves as they are: a word for the cause, one sentence, and the numbers behind it."""

    stop: bool
    cause: str
    reason: str
    evidence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one `update`. Epochs count from 1; `best_epoch` is 0 while no epoch has given finite errors.

    `cause` is one word or two: "going on", "limit", "not finite", or what the rule found. `reason` is one plain
    sentence for people, `evidence` the numbers that it rests on.
    """

    stop: bool
    epoch: int
    best_epoch: int
    cause: str
    reason: str
    evidence: Mapping[str, float]


class StoppingRule(ABC):
    """The face of every rule. `train`, `valid` and `lowest` hold a value an epoch; `lowest` is the best error so far.

    No rule stops before epoch `minimum`, nor goes on beyond epoch `limit`. Nothing is latched: each decision is drawn
    from the curves anew. An error that is not finite ends the run at once and for good, as such weights cannot recover.
    A rule belongs to one set of data: when the data change, the errors change their meaning, so start a new one.
    """

    def __init__(self, *, minimum: int = 1, limit: int | None = None) -> None:
        if minimum < 1 or (limit is not None and limit < 1):
            raise InputError(f"A run has at least one epoch, so minimum {minimum} and limit {limit} must be 1 or more.")
        self.minimum, self.limit = minimum, limit
        self.train: list[float] = []
        self.valid: list[float] = []
        self.lowest: list[float] = []
        self.best_epoch = 0

    @abstractmethod
    def _judge(self) -> Verdict:
        """Judge the finite curves as they are; at least one epoch is there."""

    @property
    def epoch(self) -> int:
        """The number of epochs seen."""
        return len(self.valid)

    @final
    def update(self, train_error: float, valid_error: float) -> Decision:
        """Take in one more epoch and decide whether it is the last."""
        self._append(float(train_error), float(valid_error))
        broken = self._not_finite()
        if broken:
            return self._decide(True, "not finite", f"{broken}; {self._kept()}.", {})
        verdict = self._judge()
        if verdict.stop and self.epoch >= self.minimum:
            return self._decide(True, verdict.cause, f"{verdict.reason}; {self._kept()}.", verdict.evidence)
        if self.limit is not None and self.epoch >= self.limit:
            return self._decide(True, "limit", f"The limit of {self.limit} epochs is reached; {self._kept()}.", verdict.evidence)
        if verdict.stop:
            reason = f"{verdict.reason}, but no run ends before epoch {self.minimum}."
            return self._decide(False, "going on", reason, verdict.evidence)
        return self._decide(False, verdict.cause, f"{verdict.reason}.", verdict.evidence)

    @final
    def halt(self, why: str) -> Decision:
        """End the run for a reason outside the curves, such as the time that was given; `why` begins the sentence."""
        return self._decide(True, "limit", f"{why}; {self._kept()}.", {})

    @final
    def state_dict(self) -> dict[str, list[float | None]]:
        """Return all that the rule remembers, as JSON takes it: the two curves, None for what is not finite."""
        return {name: [e if isfinite(e) else None for e in getattr(self, name)] for name in ("train", "valid")}

    @final
    def load_state(self, state: Mapping[str, Sequence[float | None]]) -> None:
        """Go on from `state_dict()`, of this rule or of another: each is a function of the curves and its settings."""
        train, valid = state["train"], state["valid"]
        if len(train) != len(valid):
            raise InputError(f"A state has as many training as validation errors, not {len(train)} and {len(valid)}.")
        self.train, self.valid, self.lowest, self.best_epoch = [], [], [], 0
        for errors in zip(train, valid, strict=True):
            self._append(*(inf if e is None else e for e in errors))

    def _append(self, train_error: float, valid_error: float) -> None:
        lowest = self.lowest[-1] if self.lowest else inf
        self.train.append(train_error)
        self.valid.append(valid_error)
        if isfinite(train_error) and valid_error < lowest and isfinite(valid_error) and not self._not_finite():
            lowest, self.best_epoch = valid_error, self.epoch
        self.lowest.append(lowest)

    def _not_finite(self) -> str:
        """Name the first error that is not finite. Only the last epoch can be it, unless the caller went on all the same."""
        ...

    def _decide(self, stop: bool, cause: str, reason: str, evidence: Mapping[str, float]) -> Decision:
        return Decision(stop, self.epoch, self.best_epoch, cause, reason, evidence)

    def _kept(self) -> str:
        return f"the weights of epoch {self.best_epoch} are kept" if self.best_epoch else "no epoch gave usable weights"
