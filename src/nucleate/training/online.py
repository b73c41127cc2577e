"""On-line (incremental) learning: predict, score, then learn from one corrected tile; the cost does not grow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nucleate.types import Box, Image, Labels, Maps


@dataclass(frozen=True, slots=True)
class Update:
    """What one correction did.

    `before` and `after` are the average precision at an IoU of 0.5 on the corrected tile, before it was learnt
    (prequential) and after; None where nothing was to be scored. `sentinel_before` and `sentinel` are that of the
    sentinel set. `time` is when the correction was recorded (ISO, UTC), `seconds` what learning took.
    """

    number: int
    name: str
    time: str
    nuclei: int
    before: float | None
    after: float | None
    sentinel_before: float
    sentinel: float
    taken_back: bool
    drift: bool
    seconds: float
    software: str


class OnlineLearner:
    """A model folder that learns from corrections; one process at a time.

    Use it in a `with` block, which holds the folder's lock.
    """

    @classmethod
    def open(cls, folder: Path) -> OnlineLearner:
        """Lock the folder and read its state; raises ModelError where another process holds it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back."""

    def catch_up(self) -> list[Update]:
        """Learn the journal's corrections that were recorded and not learnt, as after a crash."""
        raise NotImplementedError

    def predict(self, image: NDArray[np.float32]) -> tuple[Labels, Maps]:
        """The nuclei of a normalised image (channels, H, W), by the averaged weights; no effect on the state."""
        raise NotImplementedError

    def record(
        self,
        image: Image,
        labels: Labels,
        name: str,
        box: Box | None = None,
        window: tuple[float, float] | None = None,
    ) -> int:
        """Put a correction on the disk; it is durable when this returns. Gives its number.

        Args:
            image: the tile, or with `box` the whole image.
            labels: (H, W): 0 background, above 0 a nucleus each, below 0 unknown.
            name: of the tile.
            box: where the tile lies in the image.
            window: the intensities that become 0 and 1; by default those of the pixels of `image`.
        """
        raise NotImplementedError

    def learn(self, number: int) -> Update:
        """Learn from a recorded correction, in bounded time."""
        raise NotImplementedError

    def undo(self) -> None:
        """Back to before any correction, bit for bit."""
        raise NotImplementedError

    def log(self) -> list[Update]:
        """All updates, in their order."""
        raise NotImplementedError
