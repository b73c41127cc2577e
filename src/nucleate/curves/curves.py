"""The curves of a run and what was decided on them, as `nucleate.report` draws them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import nan


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of training. A number that is not known is NaN; `score` is the AP, mean over IoU 0.5 to 0.9."""

    epoch: int
    train_loss: float = nan
    valid_loss: float = nan
    score: float = nan
    learning_rate: float = nan
    seconds: float = nan
    test_loss: float = nan


@dataclass(frozen=True, slots=True)
class Curves:
    """The epochs of a run, in order, and the number of the one whose weights are kept (None where none is known).

    `stop` is the epoch after which a rule ended the run, `over_fitting` the first and last epoch that it judged
    over-fitting; None where there is none.
    """

    epochs: tuple[Epoch, ...]
    kept: int | None = None
    stop: int | None = None
    over_fitting: tuple[int, int] | None = None
    name: str = ""


def curves(
    history: Iterable[Mapping[str, float]],
    kept: int | None = None,
    stop: int | None = None,
    over_fitting: tuple[int, int] | None = None,
    name: str = "",
) -> Curves:
    """Curves from rows with the keys of `Epoch`; a key that is missing or None is NaN.

    Rows without an epoch are numbered from 1. `kept`, `stop` and `over_fitting` are what was decided.

    >>> curves([{"valid_loss": 0.5}, {"valid_loss": 0.4}], kept=2).epochs[1].valid_loss
    0.4
    """
    names = ("train_loss", "valid_loss", "score", "learning_rate", "seconds", "test_loss")
    epochs = tuple(
        Epoch(int(row.get("epoch", number)), *(nan if row.get(name) is None else float(row[name]) for name in names))
        for number, row in enumerate(history, start=1)
    )
    return Curves(epochs, kept, stop, over_fitting, name)
