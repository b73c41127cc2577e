"""A prediction's live line, and what there is to say at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nucleate.errors import printable
from nucleate.inference.resume import is_unfinished
from nucleate.inference.summary import Summary
from nucleate.postprocess.instances_from_maps import MAX_DISTANCE
from nucleate.report.heartbeat import Heartbeat
from nucleate.sentences import count

LISTED = 20
"""Images that are named in one sentence."""


class PredictionProgress:
    """Shows on standard error how far a prediction is, how fast, how long still; on Ctrl-C it says how to resume it.

    Where that is no terminal, there is a line for each image, and for each tenth of a slide.
    """

    def __init__(self, images: Sequence[Path], out: Path) -> None:
        self.images, self.out = images, out
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("Images", total=len(images), text="")
        self.begin = time.monotonic()
        self.shares: dict[str, float] = {}
        self.megapixels: dict[str, float] = {}
        self.heartbeat = Heartbeat(lambda: f"images done: {self._text()}", enabled=not self.console.is_terminal)

    def __enter__(self) -> PredictionProgress:
        self.bar.start()
        self.heartbeat.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.heartbeat.__exit__(kind, error, None)
        self.bar.stop()
        if kind is KeyboardInterrupt:
            begun = [name for name in self.shares if is_unfinished(self.out / name)]
            what = f"what is done of {begun[0]}" if begun else "what was finished"
            self.console.print(
                f"Interrupted; {printable(what)} is kept. Continue with the same command and --resume.", markup=False
            )

    def observe(self, image: str, share: float, megapixels: float) -> None:
        """To be called as the work on an image proceeds."""
        if not self.shares:
            self.heartbeat.say(f"{count(len(self.images), 'image')} to segment, into {printable(str(self.out))}")
        before = self.shares.get(image, 0.0)
        self.shares[image] = share
        self.megapixels[image] = share * megapixels
        total = max(len(self.shares), len(self.images))  # a file may hold several images
        self.bar.update(self.task, completed=sum(self.shares.values()), total=total, text=self._text())
        if share == 1.0:
            what = "is done" if megapixels else "cannot be used"  # none were segmented of such an image
            self.heartbeat.say(f"{printable(image)} {what} ({self._text()})")
        elif int(10 * share) > int(10 * before):
            self.heartbeat.say(f"{printable(image)}: {int(10 * share)}0%, {self._rate():.1f} megapixels/s")

    def _text(self) -> str:
        finished = sum(share == 1.0 for share in self.shares.values())
        return f"{finished}/{max(len(self.shares), len(self.images))} | {self._rate():.1f} megapixels/s"

    def _rate(self) -> float:
        return sum(self.megapixels.values()) / max(time.monotonic() - self.begin, 1e-9)


def sentences(summary: Summary) -> Iterator[str]:
    """What a person should know of a prediction besides how many nuclei there are."""
    yield from summary.notes
    if unlike := summary.unlike:
        listed = ", ".join(unlike[:LISTED]) + (f" and {len(unlike) - LISTED} more" if len(unlike) > LISTED else "")
        look = "looks" if len(unlike) == 1 else "look"
        yield (
            f"{len(unlike)} of {count(len(summary.nuclei), 'image')} {look} unlike anything that the model was trained"
            f" on: {listed}. Look at what was found there before you use it."
        )
    if summary.bounded:
        number, name = sum(summary.bounded.values()), next(iter(summary.bounded))
        where = f"in {name}" if len(summary.bounded) == 1 else f"the first in {name}"
        yield (
            f"{count(number, 'nucleus extends', 'nuclei extend')} {MAX_DISTANCE} pixels ({where}), which is as far as"
            " is searched, and may be larger: use a coarser level (--level or --pixel-size) or shrink the image."
        )
