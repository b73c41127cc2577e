"""What every stopping rule is: asked after each epoch, from the errors so far, whether training has come to its end.

Every rule is fed the training and the validation error of each epoch, lower is better, and remembers the epoch of the
lowest validation error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
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

    `cause` is "going on", "not finite" or a word of the rule's own. `why` says the same to people, as a
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

    A rule does not stop before epoch `minimum`. No verdict is latched: each is drawn from the curves anew. But an
    error that is not finite ends the run at once and for good. A rule belongs to one set of data: where the data
    change the errors change their meaning, so a new rule must be made.

    Raises:
        InputError: a setting is out of its range.
    """

    def __init__(self, *, minimum: int = 1) -> None:
        at_least(1, minimum=minimum)
        self.minimum = minimum
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
        if verdict.stop:
            why = f"{verdict.reason}, but the run was asked to last {self.minimum} epochs"
            return self._decide(False, "going on", why, verdict.evidence)
        return self._decide(False, verdict.cause, verdict.reason, verdict.evidence)

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


def at_least(bound: float, **settings: float) -> None:
    """Raise `InputError` where one of the settings is less than the bound, or not a number."""
    for name, value in settings.items():
        if not value >= bound:
            raise InputError(f"{name} must be {bound} or more, not {value}.")
