"""Samples by their numbers."""

import dataclasses

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from nucleate.data.augment import AugmentationConfig, TrainingImage
from nucleate.data.sampler import Sampler, split
from nucleate.postprocess.targets import Targets

PARTS = tuple(field.name for field in dataclasses.fields(Targets))


def feed(seed=0):
    rng = np.random.default_rng(5)
    labels = np.kron(rng.integers(0, 3, (8, 8)), np.ones((8, 8))).astype(np.int32)
    images = [rng.random((1, 64, 64)).astype(np.float32) for _ in range(3)]
    return Sampler([TrainingImage.of(image, labels) for image in images], seed, AugmentationConfig(crop=32))


@given(begin=st.integers(0, 10**6), length=st.integers(1, 40), parts=st.integers(1, 12))
def test_parts_are_the_samples_in_order_and_as_long_as_each_other(begin, length, parts):
    found = split(range(begin, begin + length), parts)
    assert [sample for part in found for sample in part] == list(range(begin, begin + length))
    assert len(found) == parts and max(map(len, found)) - min(map(len, found)) <= 1


def test_a_batch_is_its_samples_whatever_the_parts():
    whole = feed().batch(range(3, 8))
    parts = [feed().batch(part) for part in split(range(3, 8), 3)]
    assert torch.equal(whole.image, torch.cat([part.image for part in parts]))
    for name in PARTS:
        assert torch.equal(getattr(whole.targets, name), torch.cat([getattr(part.targets, name) for part in parts]))


def test_another_seed_and_another_number_give_another_sample():
    first = feed().batch(range(1)).image
    assert not torch.equal(first, feed().batch(range(1, 2)).image)
    assert not torch.equal(first, feed(seed=1).batch(range(1)).image)
