"""How a run goes, and when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from nucleate.data.augment import AugmentationConfig
from nucleate.errors import InputError
from nucleate.networks.unet import Architecture
from nucleate.sentences import count
from nucleate.training.checkpoint import TrainingState
from nucleate.training.early_stopping import EarlyStopping, LossAndScoreStopping
from nucleate.training.pixel_loss import parse, spelled
from nucleate.training.stopping_rule import StoppingRule

LONGEST = 525_600
"""Minutes: a year."""

MOST = 1_000_000
"""Epochs."""

SEEDS = 10**18
"""How many seeds there are: PyTorch takes 64 bits."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a run goes.

    Args:
        seed: The same seed gives the same run.
        loss: Loss of the pixel classes: one of `pixel_losses()`, or a sum, as "cross_entropy+0.5*dice".
        minutes: Train no longer than this; None for no such limit.
        epochs: Train no longer than so many epochs; None for no such limit.
        minimum: No stopping rule ends the run before this epoch.
        batch: Samples a step.
        samples: Samples an epoch, however many images there are.
        learning_rate: Of the network's kernels; all else learns at a tenth of it, by another rule (`Optimiser`).
        weight_decay: See `Optimiser`.
        warm_up: Steps over which the learning rate rises.
        cool_down: The part of a run up to a limit in which the learning rate falls to zero; where the stopping rule
            ends the run, this part of its steps is added.
        variation: How samples are varied; by default what suits the number of images.
        widths: Channels of the network's levels; see `Architecture`. Not asked where training starts from a model.
        parent: Checksum of the weights of the model that training starts from, if any.
    """

    seed: int = 0
    loss: str = "cross_entropy"
    minutes: float | None = None
    epochs: int | None = None
    minimum: int = 1
    batch: int = 4
    samples: int = 512
    learning_rate: float = 0.02
    weight_decay: float = 0.02
    warm_up: int = 50
    cool_down: float = 0.3
    variation: AugmentationConfig | None = None
    widths: tuple[int, ...] = Architecture().widths
    parent: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= self.samples:
            raise InputError(f"--batch is {_short(self.batch)}: give a number from 1 to {self.samples}.")
        object.__setattr__(self, "loss", spelled(parse(self.loss)))  # a resumed run may be typed otherwise
        if self.minutes is not None and not 0 < self.minutes <= LONGEST:
            raise InputError(f"--minutes is {self.minutes:g}: give minutes, up to {LONGEST:,}, or none for no limit.")
        if self.epochs is not None and not 1 <= self.epochs <= MOST:
            raise InputError(f"--epochs is {_short(self.epochs)}: give a number from 1 to {MOST:,}, or none.")
        if not 0 <= self.seed < SEEDS:
            raise InputError(f"--seed is {_short(self.seed)}: give a whole number from 0, of at most 18 digits.")
        if not 1 <= len(self.widths) <= 8 or any(width not in range(8, 1025, 8) for width in self.widths):
            raise InputError(f"widths are {self.widths}: give up to eight multiples of 8, from 8 to 1024.")

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.samples // self.batch


def _short(number: int) -> str:
    """A number that may have any number of digits."""
    return f"{number:,}" if abs(number) < 10**24 else f"about {Decimal(number):.0E}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Decides when a run ends: at a limit of time or epochs, or where a stopping rule ends it.

    Every decision follows from the run's state alone, in which the seconds stand too; so all processes of a run that
    agree on its state agree on its end.

    Args:
        config: Holds the limits `minutes` and `epochs`, the `minimum`, and the share of the `cool_down`.
        rule: Makes a fresh stopping rule. By default `EarlyStopping`; the epochs up to a limit are paid for, so there
            it ends the run only where nothing is won.
        clock: Gives the time in seconds.
    """

    config: TrainingConfig
    rule: Callable[[], StoppingRule] | None = None
    clock: Callable[[], float] = time.monotonic

    def stopwatch(self, seconds: float) -> Callable[[], float]:
        """A function that gives the seconds from now on, plus those that have passed before."""
        begin = self.clock() - seconds
        return lambda: self.clock() - begin

    def stopping(self) -> LossAndScoreStopping:
        """A fresh stopping rule on error and score."""
        unlimited = self.config.minutes is None and self.config.epochs is None
        default = partial(EarlyStopping, minimum=self.config.minimum)
        return LossAndScoreStopping(self.rule or (default if unlimited else partial(default, price=0.0)))

    def plan_end(self, state: TrainingState) -> None:
        """Begin the cool-down where a limit makes it due; cut it short where the minutes would not suffice."""
        config = self.config
        if config.epochs is not None and state.cool_start is None:
            total = config.epochs * config.steps
            if state.step >= total - max(1, round(config.cool_down * total)):
                state.begin_cool_down(total - state.step, f"The limit of {count(config.epochs, 'epoch')} was reached.")
        if config.minutes is not None and state.step > 0:
            left = 60 * config.minutes - state.validation_seconds - state.seconds
            # At the pace so far, validation included, with a little to spare.
            steps = max(1, int(0.95 * left * state.step / max(state.seconds, 1e-9)))
            why = f"The limit of {config.minutes:g} minute{'' if config.minutes == 1 else 's'} was reached."
            if state.cool_start is None:
                if left <= config.cool_down * 60 * config.minutes:
                    state.begin_cool_down(steps, why)
            elif state.cool_end is not None and state.step + steps < state.cool_end:
                # The machine has slowed down since. What a rule decided remains the reason.
                at_limit = config.epochs is not None and state.cool_end == config.epochs * config.steps
                state.cool_end, state.why = state.step + steps, why if at_limit else state.why

    def ask_rule(self, state: TrainingState) -> None:
        """Begin the cool-down where the rule ends the run; at once, without one, where an error is not finite."""
        if state.cool_start is not None:
            return
        # The rule is a function of the curves alone, so a resumed run needs nothing but its history.
        stopping = self.stopping()
        for row in state.history:
            decision = stopping.update(row["train_loss"], row["valid_loss"], row["score"])
        if decision.stop:
            # Which epoch is kept is known only after the cool-down.
            broken = decision.cause == "not finite"
            steps = 0 if broken else max(1, round(self.config.cool_down * state.step))
            state.begin_cool_down(steps, f"{decision.why}.")
            state.over_fitting = decision.best_epoch if decision.cause == "over-fitting" else None
