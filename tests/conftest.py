"""What the tests of several parts share."""

import os

import numpy as np
import pytest
from hypothesis import settings
from scipy import ndimage

from nucleate.io.instances import Instance, Instances
from nucleate.types import Box

# A process that compiles beside the tests would take their cores.
os.environ["NUCLEATE_BACKGROUND"] = "0"

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


class MemoryInstances(Instances):
    """The nuclei of an image whose labels 1..N are in memory; `place` are origin, downsample and pixel size."""

    def __init__(self, name, labels, table, **place):
        self.name, self.labels, self.table, self.count = name, labels, table, len(table)
        self.shape = labels.shape
        vars(self).update(place)

    def read(self, box):
        return self.labels[box.y : box.bottom, box.x : box.right].astype(np.uint32)

    def __iter__(self):
        for row, place in zip(self.table, ndimage.find_objects(self.labels), strict=True):
            y, x = place
            box = Box(y.start, x.start, y.stop - y.start, x.stop - x.start)
            yield Instance(row, box, self.labels[place] == row.id)


@pytest.fixture(scope="session")
def memory_instances():
    """The class of nuclei whose labels are in memory."""
    return MemoryInstances
