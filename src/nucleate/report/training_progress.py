"""A run's live lines: where it stands, how fast, how long still; how its errors move and what going on may win."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from nucleate.report.heartbeat import Heartbeat
from nucleate.sentences import count
from nucleate.training.checkpoint import Checkpoint, TrainingState
from nucleate.training.config import Limits, TrainingConfig
from nucleate.training.self_training import STAGE

TOOK = ((5, 8), (70, 10), (314, 40))
"""Labelled images and minutes of runs on two cores that gave good models (docs/log, 2026-11-25 and 28)."""


class TrainingProgress:
    """Shows a run on standard error: a bar on a terminal, lines elsewhere. On Ctrl-C it says how to resume it."""

    def __init__(self, config: TrainingConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            transient=True,
            # Where standard error is a file or a pipe, the line would come out as an empty one.
            disable=not self.console.is_terminal,
            refresh_per_second=4,
        )
        self.task = self.bar.add_task("", total=None, epoch=1, text="reading the images")
        self.smooth: float | None = None
        self.judged, self.trend = 0, ""
        self.text = "reading the images"
        self.heartbeat = Heartbeat(lambda: self.text, enabled=not self.console.is_terminal)

    def __enter__(self) -> TrainingProgress:
        self.bar.start()
        self.heartbeat.__enter__()
        return self

    def phase(self, text: str) -> None:
        """To be called where another part of the work begins."""
        self.text = text
        self.bar.update(self.task, completed=0, text=text)
        self.bar.tasks[0].total = None  # how long a part takes is not known; `update` would leave the total as it is
        if text.startswith("training"):
            minutes, epochs = self.config.minutes, self.config.epochs
            limits = ([] if minutes is None else [f"{minutes:g} min"]) + (
                [] if epochs is None else [count(epochs, "epoch")]
            )
            text += f", for {' or '.join(limits)} at most" if limits else f". {unlimited()}"
        elif text.startswith("reading"):
            return  # what cannot be read is answered by one sentence alone
        if self.console.is_terminal and "No limit" in text:
            self.console.print(text, markup=False, highlight=False)
        self.heartbeat.say(text)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.heartbeat.__exit__(kind, error, None)
        self.bar.stop()
        begun = any(Checkpoint(folder).path.exists() for folder in (self.out, self.out / STAGE))
        if kind is KeyboardInterrupt and begun:
            self.console.print(f"Interrupted. Resume it with the same command and --resume; {self.out} holds the run.")

    def observe(self, state: TrainingState, loss: float) -> None:
        """To be called after each step."""
        self.smooth = loss if self.smooth is None else 0.95 * self.smooth + 0.05 * loss
        rate = self.config.batch * state.step / max(state.seconds, 1e-9)
        text = f"loss {self.smooth:.3f} | {rate:.1f} images/s"
        if state.history:
            text += f" | score {state.history[-1]['score']:.3f} (kept {state.best_score:.3f})"
        done, left = self._part(state)
        epoch = 1 + (state.step - 1) // self.config.steps
        if state.finished:
            text += " | judging the last epoch"
        elif left is not None:
            text += f" | {_clock(left)} left"
        if len(state.history) > self.judged:
            self.judged, trend = len(state.history), self._trend(state)
            self.trend = f"\n{trend}" if trend else ""
        self.text = f"epoch {epoch} | {text}"
        text += self.trend
        self.bar.update(self.task, completed=100 * (done or 0), total=100 if done else None, epoch=epoch, text=text)

    def _trend(self, state: TrainingState) -> str:
        """The slopes of both errors and the gain of another epoch as the rule sees them, or why the run ends.

        One epoch alone has no trend.
        """
        if state.cool_end is not None:
            return f"cooling down: {state.why}"
        if len(state.history) < 2:
            return ""
        stopping = Limits(self.config).stopping()
        for row in state.history:
            evidence = stopping.update(row["train_loss"], row["valid_loss"], row["score"]).evidence
        gain = max(0.0, evidence["expected_gain"], evidence["score_gain"])
        return (
            f"an epoch: training error {evidence['train_slope']:+.1%}, validation {evidence['valid_slope']:+.1%}"
            f" | another may win {gain:.1%}"
        )

    def _part(self, state: TrainingState) -> tuple[float | None, float | None]:
        """The part of the run that is done, in 0..1, and the seconds left, where a limit or an end is known."""
        parts = []
        if self.config.minutes is not None:
            parts.append(state.seconds / (60 * self.config.minutes))
        if self.config.epochs is not None:
            parts.append(state.step / (self.config.epochs * self.config.steps))
        if state.cool_end is not None:
            parts = [state.step / state.cool_end]
        if not parts or max(parts) <= 0:
            return None, None
        done = min(1.0, max(parts))
        return done, state.seconds * (1 - done) / done


def unlimited() -> str:
    """How a run without a limit ends, and how long runs took."""
    took = ", ".join(f"{minutes} minutes with {images} images" for images, minutes in TOOK)
    return (
        "No limit is set: the run ends by itself where another epoch wins nothing any more. On two cores good models"
        f" took {took}. Ctrl-C keeps what is done, and --minutes sets a limit."
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
