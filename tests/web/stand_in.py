"""A stand-in for the model that learns: it finds bright pieces, and keeps what it is told."""

import time
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from nucleate.data.normalization import Normalisation
from nucleate.io.axes import GREY
from nucleate.types import Image, Maps
from nucleate.web.annotation.learner import Input

TAKES = Input(Normalisation(), 1, GREY)


@dataclass(frozen=True)
class Update:
    number: int
    name: str
    nuclei: int
    before: float | None = 0.5
    after: float | None = 0.6
    sentinel_before: float = 0.7
    sentinel: float = 0.7
    taken_back: bool = False
    drift: bool = False
    seconds: float = 0.1


@dataclass
class StandIn:
    """`seconds` is how long an update takes; `recorded` are the corrections in order."""

    seconds: float = 0.0
    recorded: list[tuple[Image, np.ndarray, str, tuple[float, float]]] = field(default_factory=list)
    learnt: list[Update] = field(default_factory=list)
    predicted: int = 0
    fails: bool = False

    def predict(self, image):
        self.predicted += 1
        plane = ndimage.gaussian_filter(image[0], 1.5)
        foreground = (1 / (1 + np.exp(-8 * (plane - 0.4)))).astype(np.float32)
        labels = ndimage.label(foreground > 0.5)[0].astype(np.int32)
        empty = np.zeros_like(foreground)
        return labels, Maps(foreground, empty, np.stack([empty, empty]), empty)

    def record(self, image, labels, name, box=None, window=None):
        assert box is None and window is not None and image.pixels.shape[:2] == labels.shape
        self.recorded.append((image, labels, name, window))
        return len(self.recorded) - 1

    def learn(self, number):
        if self.fails:
            raise RuntimeError("the update failed")
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            np.sort(np.arange(200_000)[::-1])
        _, labels, name, _ = self.recorded[number]
        update = Update(number, name, int(labels.max()), before=0.5 + 0.02 * number, sentinel=0.7 + 0.003 * number)
        self.learnt.append(update)
        return update

    def log(self):
        return list(self.learnt)
