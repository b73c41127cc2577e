"""Targets and batches for the tests of the criterion and its gradient."""

import dataclasses

import numpy as np
import torch

from nucleate.data.augment import Batch
from nucleate.postprocess.targets import Targets, whole

PARTS = tuple(field.name for field in dataclasses.fields(Targets))


def joined_targets(parts):
    return Targets(**{name: torch.cat([getattr(one, name) for one in parts]) for name in PARTS})


def make_batch(count, seed=0, size=16):
    """Samples whose shares of nuclei and of unknown pixels differ, so that a mean of means would be wrong."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(count):
        labels = np.where(rng.random((size, size)) < rng.random(), rng.integers(1, 6, (size, size)), 0)
        labels[rng.random((size, size)) < 0.5 * rng.random()] = -1
        parts.append(whole(labels.astype(np.int32)))
    image = rng.normal(size=(count, 1, size, size)).astype(np.float32)
    return Batch(torch.from_numpy(image), joined_targets(parts))


def part(batch, rows):
    return Batch(batch.image[rows], Targets(**{name: getattr(batch.targets, name)[rows] for name in PARTS}))
