"""What the page asks of the model that learns, and no more: tests put a stand-in in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nucleate.data.normalization import Normalisation
from nucleate.types import Box, Image, Labels, Map, Maps


class Learnt(Protocol):
    """One update of the model. Scores are AP at 0.5: `before` and `after` of the corrected tile (None where nothing
    was to be scored), `sentinel_before` and `sentinel` of a fixed set."""

    @property
    def number(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def nuclei(self) -> int: ...
    @property
    def before(self) -> float | None: ...
    @property
    def sentinel_before(self) -> float: ...
    @property
    def sentinel(self) -> float: ...
    @property
    def taken_back(self) -> bool: ...
    @property
    def drift(self) -> bool: ...
    @property
    def seconds(self) -> float: ...


class Learner(Protocol):
    """A model that predicts and learns. One thread records and learns; another may predict meanwhile."""

    def predict(self, image: NDArray[np.float32], median: float | None = None) -> tuple[Labels, Maps]:
        """The nuclei of a normalised image (channels, height, width); `median` is that of the image that it is of."""

    def record(
        self,
        image: Image,
        labels: Labels,
        name: str,
        box: Box | None = None,
        window: tuple[float, float] | None = None,
    ) -> int:
        """Keep a correction of an image, or of the part of it in a box; on disk when this returns. Gives its number.

        `window` are the intensities that become 0 and 1.
        """

    def learn(self, number: int) -> Learnt:
        """Learn from the correction of this number."""

    def log(self) -> Sequence[Learnt]:
        """What was learnt so far, in order."""


@dataclass(frozen=True, slots=True)
class Input:
    """What the model takes: how intensities are scaled, how many channels, and the names of those it was trained on."""

    normalisation: Normalisation
    channels: int
    names: tuple[str, ...]


def entropy(foreground: Map) -> Map:
    """The predictive entropy of each pixel in bits, 0 to 1,

        H = -p log2(p) - (1 - p) log2(1 - p)

    with p the probability of being in a nucleus; 0 log 0 is 0 (Shannon, A Mathematical Theory of Communication, 1948).

    >>> entropy(np.array([[0.0, 0.5, 1.0]], np.float32)).tolist()
    [[0.0, 1.0, 0.0]]
    """
    p = np.clip(foreground.astype(np.float64), 0, 1)
    bits = np.zeros(p.shape)
    for part in (p, 1 - p):
        bits -= part * np.log2(part, where=part > 0, out=np.zeros(part.shape))
    return bits.astype(np.float32)
