"""Off-line (batch) learning: the whole training set, many passes, until the run says that it is enough.

The plan of a run (which sample at which step) is a function of the seed; the state that `--resume` needs is saved at
the end of each epoch and at an interruption, so that an interrupted run comes to the same weights, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from nucleate import signals
from nucleate.data.augment import joined
from nucleate.data.sampler import split
from nucleate.errors import TrainingError
from nucleate.networks.equivariant import ORDER
from nucleate.networks.runtime import device, keep_memory, place, prefers_bfloat16
from nucleate.networks.unet import Architecture, UNet
from nucleate.parallel import Communicator, RanksLost, SingleProcess
from nucleate.parallel.launch import without_lost
from nucleate.training.checkpoint import Checkpoint, TrainingState, decode, encode, state_of
from nucleate.training.config import Limits, TrainingConfig
from nucleate.training.early_stopping import select_epoch
from nucleate.training.ema import ExponentialMovingAverage
from nucleate.training.optimiser import Optimiser
from nucleate.training.parallel import Parallel, Serial
from nucleate.training.schedule import learning_rate

MAX_GRADIENT_NORM = math.sqrt(ORDER)
"""A longer gradient is clipped to this, which is 1 for the kernels themselves: each number is in them eight times."""


class TaskEvaluation(Protocol):
    """What a task says of a network: `loss`, lower is better, `score`, higher is better, and further `metrics`."""

    @property
    def loss(self) -> float: ...

    @property
    def score(self) -> float: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...


_NOTHING = torch.empty(0, dtype=torch.uint8)


Samples = TypeVar("Samples")
"""A batch as a task makes it: a dataclass of tensors whose first axis are the samples (`data.augment.joined`)."""

Given = TypeVar("Given", contravariant=True)


class Backward(Protocol[Given]):
    """Adds the gradient over the batches of all ranks to the `grad` of a network's parameters, and gives the loss."""

    def __call__(
        self, batches: Sequence[Given], *, bfloat16: bool, parallel: Parallel | None, ranks: Communicator | None
    ) -> float: ...


class Task(Protocol[Samples]):
    """What is learnt: samples, the gradient of a loss, and an evaluation on data that are held out."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What of the data must be the same for a run to be resumed; fit for JSON."""

    def batch(self, samples: range) -> Samples:
        """The samples of these numbers, a function of the numbers alone."""

    def backward(self, network: UNet) -> Backward[Samples]:
        """What takes the gradient at the parameters of this network."""

    def evaluate(
        self, network: UNet, *, bfloat16: bool, parallel: Parallel, ranks: Communicator | None = None
    ) -> TaskEvaluation:
        """How well the network does."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The weights that are kept, and how the run came to them."""

    network: UNet
    state: TrainingState


Observer = Callable[[TrainingState, float], None]
"""Called after each step with the state and the step's loss."""


def new_network(architecture: Architecture, seed: int) -> UNet:
    """A network with random weights, a function of the seed, on the GPU where there is one."""
    torch.manual_seed(seed)
    return place(UNet(architecture), device())


class Trainer(Generic[Samples]):
    """One training run.

    Args:
        network: What is trained, on its device; changed in place.
        task: What it learns.
        config: How the run goes.
        limits: When it ends; by default what `config` says, by the system's clock.
        parallel: Computes the parts of a batch side by side; by default in turn.
        ranks: The processes that share each batch, of which the first one writes; by default this one alone.
        bfloat16: Whether products are in bfloat16, on every rank; by default where they are the faster ones here.
        checkpoint: Where the state of the unfinished run is kept, if anywhere.
        observe: Called after each step.
    """

    def __init__(
        self,
        network: UNet,
        task: Task[Samples],
        config: TrainingConfig,
        *,
        limits: Limits | None = None,
        parallel: Parallel | None = None,
        ranks: Communicator | None = None,
        bfloat16: bool | None = None,
        checkpoint: Checkpoint | None = None,
        observe: Observer | None = None,
    ) -> None:
        self.network, self.task, self.config = network, task, config
        self.limits, self.parallel = limits or Limits(config), parallel or Serial()
        self.ranks = ranks or SingleProcess()
        self.device = next(network.parameters()).device
        self.bfloat16 = prefers_bfloat16(self.device) if bfloat16 is None else bfloat16
        self.checkpoint, self.observe = checkpoint, observe
        self.backward = task.backward(network)
        self.optimiser = Optimiser(network, config.weight_decay)
        self.average = ExponentialMovingAverage(network)
        self.best = _copy(self.average.network)
        self.state = TrainingState()
        self._broken = False  # the loss is not finite any more

    def train(self, *, resume: bool = False) -> TrainingResult:
        """Train until a limit or the stopping rule ends the run.

        Args:
            resume: Go on from the checkpoint.

        Raises:
            ModelError: The checkpoint cannot be resumed.
            TrainingError: The loss is not finite any more before a first epoch is over.
        """
        keep_memory()
        if resume and self.checkpoint is not None:
            tensors, state = self.checkpoint.read(self.identity)
            try:
                self.load_state(tensors, state)
            except (KeyError, ValueError, RuntimeError) as error:
                raise self.checkpoint.damaged("its tensors are not those of the network") from error
        elapsed = self.limits.stopwatch(self.state.seconds)
        while not self._is_over():
            try:
                self._advance(elapsed)
            except RanksLost:
                self._go_on_without()
            except KeyboardInterrupt:
                self._save()
                raise
        self.average.network.load_state_dict(self.best)
        return TrainingResult(self.average.network, self.state)

    def _is_over(self) -> bool:
        return self._broken or (self.state.finished and not self._is_epoch_due())

    def _is_epoch_due(self) -> bool:
        """Whether the steps of an epoch are done, but not its evaluation."""
        state = self.state
        done = state.history[-1]["step"] if state.history else 0
        return state.step > done and (state.step % self.config.steps == 0 or state.finished)

    def _advance(self, elapsed: Callable[[], float]) -> None:
        """One step, or the end of an epoch. The state changes at the end of either, all at once: so an interruption,
        or the loss of a rank, at any moment leaves the state before or the state after."""
        if self._is_epoch_due():
            self.end_epoch(elapsed)
            self._save()
            return
        self.limits.plan_end(self.state)
        try:
            loss = self.step(self.batches(), elapsed)
        except TrainingError:
            if not self.state.best_epoch:
                raise
            self.state.why = f"Training error is not finite any more in epoch {len(self.state.history) + 1}."
            self._broken = True
            return
        if self.observe is not None:
            self.observe(self.state, loss)

    def _save(self) -> None:
        if self.checkpoint is not None and self.ranks.rank == 0 and self.state.step:
            self.checkpoint.write(self.tensors(), self.state, self.identity)

    def _go_on_without(self) -> None:
        """After the loss of a rank: those that live take the state of the one that is furthest."""
        self.ranks = without_lost(self.ranks)
        self.network.zero_grad()
        stages = self.ranks.all([self.state.step, len(self.state.history)])
        furthest = max(stages)
        content = b""
        if self.ranks.rank == stages.index(furthest):
            content = encode(self.tensors(), self.state, self.identity)
        rows = self.ranks.gather(torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else _NOTHING)
        if stages[self.ranks.rank] != furthest:
            tensors, run = decode(torch.cat(rows).numpy().tobytes())
            self.load_state(tensors, state_of(run))

    def batches(self) -> list[Samples]:
        """This rank's samples of the next step: a part for each worker; a GPU takes them whole.

        Which samples a step has does not depend on the number of ranks; beyond one sample a rank, ranks have none.
        """
        first, count = self.state.step * self.config.batch, self.config.batch
        shares = split(range(first, first + count), min(self.ranks.size, count))
        if self.ranks.rank >= len(shares):
            return []
        mine = shares[self.ranks.rank]
        parts = split(mine, min(self.parallel.count, len(mine)))
        batches = self.parallel.map(self.task.batch, parts)
        return [joined(batches)] if self.device.type == "cuda" else batches

    def step(self, batches: Sequence[Samples], elapsed: Callable[[], float] = lambda: 0.0) -> float:
        """One step over these batches together; gives its loss. `elapsed` are the run's seconds."""
        loss = self.backward(batches, bfloat16=self.bfloat16, parallel=self.parallel, ranks=self.ranks)
        seconds = self._agreed(elapsed())
        with signals.held():
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
            self.optimiser.step(self.learning_rate(self.state.step))
            self.average.update(self.network, self.state.step)
            self.state.step += 1
            self.state.seconds = seconds
            self.state.losses.append(loss)
        return loss

    def _agreed(self, seconds: float) -> float:
        """Those of rank 0."""
        if self.ranks.size == 1:
            return self.ranks.agree(seconds)
        own = seconds if self.ranks.rank == 0 else 0.0
        return float(self.ranks.sum(torch.tensor(own, dtype=torch.float64)))

    def learning_rate(self, step: int) -> float:
        """See `schedule`."""
        config = self.config
        return learning_rate(step, config.learning_rate, warm_up=config.warm_up, cool_down=self.state.cool_down)

    def end_epoch(self, elapsed: Callable[[], float]) -> None:
        """Evaluate the averaged weights, keep them where `select_epoch` says so, and note the epoch in the history."""
        state, epoch = self.state, len(self.state.history) + 1
        found = self.task.evaluate(
            self.average.network, bfloat16=self.bfloat16, parallel=self.parallel, ranks=self.ranks
        )
        seconds = self._agreed(elapsed())
        with signals.held():
            if select_epoch([*(row["valid_loss"] for row in state.history), found.loss]) == epoch:
                state.best_epoch, state.best_score = epoch, found.score
                self.best = _copy(self.average.network)
            state.history.append(
                {
                    "epoch": epoch,
                    "step": state.step,
                    "train_loss": sum(state.losses) / len(state.losses),
                    "valid_loss": found.loss,
                    "score": found.score,
                    **found.metrics,
                    "learning_rate": self.learning_rate(state.step - 1),
                    "seconds": state.seconds,
                }
            )
            state.losses = []
            self.limits.ask_rule(state)
            state.seconds, state.validation_seconds = seconds, seconds - state.seconds

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for the run to be resumed. Its limits may change, and how many threads and ranks share
        a batch: sums are then rounded in another way, no more."""
        limits = ("minutes", "epochs", "minimum")
        plan = {name: value for name, value in asdict(self.config).items() if name not in limits}
        return {
            **plan,
            **asdict(self.network.architecture),
            "symmetry": ORDER,
            "number format": "bfloat16" if self.bfloat16 else "float32",
            **self.task.identity,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the run needs to be resumed."""
        parts: dict[str, dict[str, Tensor]] = {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "best": self.best,
            **self.optimiser.tensors(),
        }
        return {f"{part}/{name}": tensor for part, values in parts.items() for name, tensor in values.items()}

    def load_state(self, tensors: Mapping[str, Tensor], state: TrainingState) -> None:
        """Go on from where `tensors()` and the state were taken; raises KeyError, ValueError or RuntimeError where the
        tensors are others."""
        if any(tensors[name].dtype != own.dtype for name, own in self.tensors().items()):
            raise ValueError("other number formats")
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = tensor
        self.network.load_state_dict(parts["network"])
        self.average.network.load_state_dict(parts["best"])
        self.best = _copy(self.average.network)
        self.average.network.load_state_dict(parts["average"])
        self.optimiser.restore(parts)
        self.state = state


def _copy(network: UNet) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}
