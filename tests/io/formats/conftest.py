"""Instances to write: of a label image, and of one that is never in memory."""

import weakref

import numpy as np
import pytest

from nucleate.io.instances import Instance, Instances
from nucleate.types import Box, Nucleus


@pytest.fixture(scope="session")
def nuclei_of(memory_instances):
    """What makes the nuclei of a label image."""

    def make(labels, *, name="cells", entropy=False, **place):
        """The nuclei of a label image, numbered 1..N, measured by their definitions."""
        present, ranks = np.unique(labels, return_inverse=True)
        labels = ranks.reshape(labels.shape) + (present[0] > 0)
        table = []
        for number in range(1, labels.max(initial=0) + 1):
            y, x = np.nonzero(labels == number)
            table.append(
                Nucleus(
                    id=number,
                    y=round(float(y.mean()), 3),
                    x=round(float(x.mean()), 3),
                    area=y.size,
                    diameter=round(float(2 * np.sqrt(y.size / np.pi)), 3),
                    mean_intensity=10.5 * number,
                    score=0.75,
                    entropy=0.125 if entropy else None,
                )
            )
        return memory_instances(name, labels.astype(np.int32), table, **place)

    return make


class Field(Instances):
    """Squares of 6 x 6 pixels, one in each cell of 40 x 40, made when they are read; remembers what was asked for."""

    def __init__(self, rows, columns):
        self.name, self.shape, self.count = "field", (40 * rows, 40 * columns), rows * columns
        self.pixel_size = 0.5
        self.boxes, self.alive, self.most = [], 0, 0

    def read(self, box):
        self.boxes.append(box)
        y, x = np.ogrid[box.y : box.bottom, box.x : box.right]
        number = (y // 40) * (self.shape[1] // 40) + x // 40 + 1
        return np.where((y % 40 < 6) & (x % 40 < 6), number, 0).astype(np.uint32)

    def __iter__(self):
        for number in range(1, self.count + 1):
            y, x = divmod(number - 1, self.shape[1] // 40)
            mask = np.ones((6, 6), dtype=bool)
            weakref.finalize(mask, self._gone)
            self.alive += 1
            self.most = max(self.most, self.alive)
            row = Nucleus(number, 40 * y + 2.5, 40 * x + 2.5, 36, 6.77, 1.0, 0.5)
            found = Instance(row, Box(40 * y, 40 * x, 6, 6), mask)
            del mask
            yield found

    def _gone(self):
        self.alive -= 1


@pytest.fixture(scope="session", name="field")
def _field():
    return Field
