"""The known stopping rules, beside which Nucleate's own (`nucleate.training.early_stopping`) is judged."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from typing import final

from nucleate.training.stopping_rule import StoppingRule, Verdict, at_least


@final
class FixedNumber(StoppingRule):
    """Stop after a fixed number of epochs, whatever the errors do."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        at_least(1, epochs=epochs)
        self.epochs = epochs

    def _judge(self) -> Verdict:
        return _verdict(self.epoch >= self.epochs, f"epoch {self.epoch} of {self.epochs}", epochs=self.epochs)


@final
class Patience(StoppingRule):
    """Stop when `patience` epochs have passed without a new lowest validation error, by more than `min_delta`.

    Keras and Lightning call this early stopping.

    >>> from nucleate.training.early_stopping import decide
    >>> decide([3, 2, 1, 1], [3.0, 2.0, 2.1, 2.2], Patience(2)).best_epoch
    2
    """

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        super().__init__()
        at_least(1, patience=patience)
        at_least(0, min_delta=min_delta)
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

    def __init__(self, alpha: float = 5.0) -> None:
        super().__init__()
        at_least(0, alpha=alpha)
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

    def __init__(self, alpha: float = 0.75, strip: int = 5) -> None:
        super().__init__()
        at_least(0, alpha=alpha)
        at_least(2, strip=strip)
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

    def __init__(self, strips: int = 3, strip: int = 5) -> None:
        super().__init__()
        at_least(1, strips=strips, strip=strip)
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

    def __init__(self, window: int = 12, threshold: float = 0.3, hold: int = 1) -> None:
        super().__init__()
        at_least(2, window=window)
        at_least(1, hold=hold)
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
