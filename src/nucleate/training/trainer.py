"""Off-line (batch) learning: the whole training set, many passes, until the run says that it is enough.

The plan of a run (which sample at which step) is a function of the seed; the state that `--resume` needs is saved at
the end of each epoch, so that an interrupted run goes on to the same weights, bit for bit.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nucleate import losses
from nucleate.data.augment import Batch, Source, joined
from nucleate.data.augmentation_parameters import Variation
from nucleate.data.sampler import Feed, split
from nucleate.errors import InputError, TrainingError
from nucleate.inference.backends import TorchEngine
from nucleate.networks.equivariant import ORDER
from nucleate.networks.runtime import device, has_bfloat16, keep_memory, place, prefers_bfloat16
from nucleate.networks.unet import Architecture, UNet
from nucleate.training import checkpoint
from nucleate.training.criterion import LOSSES, Averaged, Objective, backward
from nucleate.training.early_stopping import Ending, Horizon, kept
from nucleate.training.optimiser import Optimiser
from nucleate.training.parallel import Cores
from nucleate.training.validation import Validation
from nucleate.types import Thresholds

LONGEST = math.sqrt(ORDER)
"""A longer gradient is shortened to this, which is 1 for the kernels themselves: each number is in them eight times."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run goes.

    An epoch is `samples` crops, however many images there are. The run ends by `training.early_stopping`, not before
    epoch `minimum`, or at the first of the limits `minutes` and `epochs`. `cool_down` is the part of a run up to a
    limit in which the learning rate falls to zero; where the rule ends the run, this part of its steps is added.
    `learning_rate` is that of the network's kernels; all else learns at a tenth of it, by another rule (`Optimiser`).
    `variation` is by default what suits the number of images.
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
    variation: Variation | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= self.samples:
            raise InputError(f"batch={self.batch}, samples={self.samples}: an epoch needs one batch or more.")
        if self.loss not in LOSSES:
            raise InputError(f"There is no loss {self.loss} of pixel classes: choose one of {', '.join(LOSSES)}.")

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.samples // self.batch

    def rule(self) -> Horizon:
        """What ends the run. The epochs up to a limit are paid for, so it ends earlier only where nothing is won."""
        unlimited = self.minutes is None and self.epochs is None
        return Horizon(minimum=self.minimum) if unlimited else Horizon(price=0.0, minimum=self.minimum)


@dataclass(slots=True)
class State:
    """Where a run stands, beside its tensors.

    Once the end is decided: the cool-down is steps `cool_start` to `cool_end`, after epoch `stop_epoch`; over-fitting
    began after epoch `over_fitting`, if at all.

    `bfloat16` says whether products are in that format, in which the run began: it stays when the run is continued,
    as the trial that chooses it may end otherwise on another day.
    """

    bfloat16: bool = False
    step: int = 0
    seconds: float = 0.0
    cool_start: int | None = None
    cool_end: int | None = None
    stop_epoch: int | None = None
    over_fitting: int | None = None
    why: str = ""
    best_epoch: int = 0
    best_score: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """The weights that are kept, and how the run came to them."""

    network: UNet
    state: State


Observer = Callable[[State, float], None]
"""Called after each step with the state and the step's loss."""


class Run:
    """One training run: its network, its optimiser, the moving average of its weights, and its state."""

    def __init__(self, architecture: Architecture, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.where = device()
        self.network = place(UNet(architecture), self.where)
        self.optimiser = Optimiser(self.network, settings.weight_decay)
        self.averaged = Averaged(self.network)
        self.best = {name: t.clone() for name, t in self.averaged.network.state_dict().items()}
        self.state = State(bfloat16=prefers_bfloat16(self.where))
        self.judging = 0.0  # seconds that the last validation took

    def rate(self, step: int) -> float:
        """Learning rate: a linear warm-up, constant, then a linear way to zero once the end is decided."""
        state, settings = self.state, self.settings
        factor = min(1.0, (step + 1) / settings.warm_up)
        if state.cool_start is not None and state.cool_end is not None:
            factor = min(factor, max(0.0, (state.cool_end - step) / max(1, state.cool_end - state.cool_start)))
        return settings.learning_rate * factor

    def cool(self, steps: int, why: str) -> None:
        """Decide the end: the learning rate goes to zero over the next `steps` steps."""
        self.state.cool_start, self.state.cool_end, self.state.why = self.state.step, self.state.step + steps, why
        self.state.stop_epoch = len(self.state.history)

    def plan_end(self, seconds: float) -> None:
        """Begin the cool-down where a limit makes it due, and cut it short where the minutes would not suffice;
        `seconds` of the run have passed."""
        state, settings = self.state, self.settings
        if settings.epochs is not None and state.cool_start is None:
            total = settings.epochs * settings.steps
            if state.step >= total - max(1, round(settings.cool_down * total)):
                self.cool(total - state.step, f"The limit of {settings.epochs} epochs was reached.")
        if settings.minutes is not None and state.step > 0:
            left = 60 * settings.minutes - self.judging - seconds
            # At the pace so far, validation included, with a little to spare.
            steps = max(1, int(0.95 * left * state.step / seconds))
            why = f"The limit of {settings.minutes:g} minutes was reached."
            if state.cool_start is None:
                if left <= settings.cool_down * 60 * settings.minutes:
                    self.cool(steps, why)
            elif state.cool_end is not None and state.step + steps < state.cool_end:
                # The machine has slowed down since. What a rule decided remains the reason.
                at_limit = settings.epochs is not None and state.cool_end == settings.epochs * settings.steps
                state.cool_end, state.why = state.step + steps, why if at_limit else state.why

    def learn(self, objective: Objective, batches: Sequence[Batch], cores: Cores | None = None) -> float:
        """One step over these batches together; gives its loss."""
        loss = backward(self.network, objective, batches, where=self.where, bfloat16=self.state.bfloat16, cores=cores)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LONGEST)
        self.optimiser.step(self.rate(self.state.step))
        self.averaged.update(self.network, self.state.step)
        self.state.step += 1
        return loss

    def end_epoch(self, validation: Validation, objective: Objective, loss: float, cores: Cores | None = None) -> None:
        """Judge the averaged weights, keep them by the rule of `kept`, and write the epoch's line of history."""
        state = self.state
        begin = time.monotonic()
        engine = TorchEngine(self.averaged.network, bfloat16=self.state.bfloat16)
        judgement = validation.judge(engine, objective, Thresholds(), cores)
        self.judging = time.monotonic() - begin
        epoch = len(state.history) + 1
        if kept([*(row["valid_loss"] for row in state.history), judgement.loss]) == epoch:
            state.best_epoch, state.best_score = epoch, judgement.score
            self.best = {name: t.clone() for name, t in self.averaged.network.state_dict().items()}
        state.history.append(
            {
                "epoch": epoch,
                "step": state.step,
                "train_loss": loss,
                "valid_loss": judgement.loss,
                "score": judgement.score,
                "panoptic_quality": judgement.scores.panoptic_quality,
                "learning_rate": self.rate(state.step - 1),
                "seconds": state.seconds,
            }
        )
        if state.cool_start is None:
            self.ask()

    def ask(self) -> None:
        """Begin the cool-down where the rule ends the run; at once, without one, where an error is not finite."""
        state, ending = self.state, Ending(self.settings.rule)
        # The rule is a function of the curves alone, so a resumed run needs nothing but its history.
        for row in state.history:
            decision = ending.update(row["train_loss"], row["valid_loss"], row["score"])
        if decision.stop:
            # Which epoch is kept is known only after the cool-down.
            broken = decision.cause == "not finite"
            self.cool(0 if broken else max(1, round(self.settings.cool_down * state.step)), f"{decision.why}.")
            state.over_fitting = decision.best_epoch if decision.cause == "over-fitting" else None

    @property
    def finished(self) -> bool:
        return self.state.cool_end is not None and self.state.step >= self.state.cool_end

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the run needs to go on."""
        parts: dict[str, dict[str, Tensor]] = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.network.state_dict(),
            "best": self.best,
            **self.optimiser.tensors(),
        }
        return {f"{part}/{name}": tensor for part, values in parts.items() for name, tensor in values.items()}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue where `tensors` and `asdict(self.state)` were taken."""
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            part, name = key.split("/", 1)
            parts.setdefault(part, {})[name] = tensor
        self.network.load_state_dict(parts["network"])
        self.averaged.network.load_state_dict(parts["averaged"])
        self.best = parts["best"]
        self.optimiser.restore(parts)
        self.state = State(**state)
        # On a processor that would have to imitate it, bfloat16 is slower by far.
        self.state.bfloat16 &= has_bfloat16(self.where)


def train(
    sources: Sequence[Source],
    validation: Validation,
    architecture: Architecture,
    settings: Settings,
    *,
    folder: Path | None = None,
    resume: bool = False,
    observe: Observer | None = None,
) -> Result:
    """Train until a limit or the rule ends the run; the checkpoint is kept in `folder`."""
    keep_memory()
    # Were the kernels to come into use in the middle of a run, a resumed one would differ from it in the last bits.
    losses.warm_up("cross_entropy")
    variation = settings.variation or Variation.suited(len(sources))
    settings = replace(settings, variation=variation)
    run = Run(architecture, settings)
    if resume and folder is not None:
        tensors, saved = checkpoint.read(folder)
        checkpoint.expect(folder, saved, _identity(architecture, settings, sources))
        run.restore(tensors, saved["state"])
    state, objective = run.state, Objective(architecture.classes, settings.loss)
    feed = Feed(sources, settings.seed, variation)
    begin = time.monotonic() - state.seconds
    recent: list[float] = []
    with Cores() as cores:
        parts = min(cores.count, settings.batch)
        while not run.finished:
            run.plan_end(time.monotonic() - begin)
            samples = range(state.step * settings.batch, (state.step + 1) * settings.batch)
            batches = cores.map(feed.batch, split(samples, parts))
            if run.where.type == "cuda":  # each core computes a part of the batch, but a GPU takes it whole
                batches = [joined(batches)]
            try:
                recent.append(run.learn(objective, batches, cores))
            except TrainingError:
                if not state.best_epoch:
                    raise
                state.why = f"Training error is not finite any more in epoch {len(state.history) + 1}."
                break
            state.seconds = time.monotonic() - begin
            if observe is not None:
                observe(state, recent[-1])
            if state.step % settings.steps == 0 or run.finished:
                run.end_epoch(validation, objective, sum(recent) / len(recent), cores)
                recent.clear()
                state.seconds = time.monotonic() - begin
                if folder is not None:
                    identity = _identity(architecture, settings, sources)
                    checkpoint.write(folder, run.tensors(), {"state": asdict(state), "identity": identity})
    run.averaged.network.load_state_dict(run.best)
    return Result(run.averaged.network, state)


def _identity(architecture: Architecture, settings: Settings, sources: Sequence[Source]) -> dict[str, Any]:
    """What must be the same for a run to go on as if it had not been interrupted. Its limits may change."""
    plan = {name: value for name, value in asdict(settings).items() if name not in ("minutes", "epochs", "minimum")}
    shapes = [list(source.shape) for source in sources]
    whole = {**plan, **asdict(architecture), "symmetry": ORDER, "images": shapes}
    identity: dict[str, Any] = json.loads(json.dumps(whole))
    return identity
