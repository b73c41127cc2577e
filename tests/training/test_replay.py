"""The crops that a model is reminded of: bounded, seeded, and kept fairly."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.online_models import pairs

from nucleate.errors import ModelError
from nucleate.training import replay
from nucleate.training.replay import LARGEST, SIDE, Memory, Reservoir, crops, renumbered

FILE = Path("replay.safetensors")


@pytest.mark.parametrize("channels", [1, 3, 64])
def test_the_file_is_bounded(channels):
    image = np.zeros((channels, 300, 300), np.float32)
    labels = np.zeros((300, 300), np.int32)
    labels[100:110, 100:110] = 1
    memory = Memory.of([(image, labels)] * 3, [])
    assert len(memory.encoded()) <= LARGEST + 20_000
    assert memory.old and memory.sentinel


def test_crops_come_back_as_they_were_saved():
    memory = Memory.of(pairs(3, 1), pairs(2, 2))
    found = Memory.decoded(memory.encoded(), FILE, 1)
    for before, after in ((memory.old, found.old), (memory.sentinel, found.sentinel)):
        assert len(before) == len(after)
        for (image, labels), (image_after, labels_after) in zip(before, after, strict=True):
            np.testing.assert_array_equal(labels, labels_after)
            np.testing.assert_allclose(image, image_after, atol=1e-3)
    assert memory.encoded() == Memory.of(pairs(3, 1), pairs(2, 2)).encoded()


def test_damage_is_named():
    content = Memory.of(pairs(1), []).encoded()
    for broken, channels in ((content[:50], 1), (b"", 1), (content, 3)):
        with pytest.raises(ModelError, match=r"replay.safetensors is damaged"):
            Memory.decoded(broken, FILE, channels)


def test_the_sentinel_set_is_of_what_was_held_out():
    training, held_out = pairs(2, 1), pairs(2, 2)
    memory = Memory.of(training, held_out)
    seen = {image.tobytes() for image, _ in held_out}
    assert all(image.tobytes() in seen for image, _ in memory.sentinel)
    assert all(image.tobytes() not in seen for image, _ in memory.old)


@settings(max_examples=30)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32))
def test_a_crop_shows_what_is_there(height, width, seed):
    rng = np.random.default_rng(seed)
    image = rng.random((1, height, width)).astype(np.float32)
    labels = np.zeros((height, width), np.int32)
    labels[height // 2, width // 2] = 1000
    ((pixels, found),) = crops([(image, labels)], 1, [seed])
    assert pixels.shape[1:] == found.shape == (min(SIDE, height), min(SIDE, width))
    assert found.max() == 1 and pixels[0][found > 0] == image[0, height // 2, width // 2]


@given(st.lists(st.integers(-5, 9), min_size=1, max_size=30))
def test_labels_are_numbered_from_one(values):
    labels = np.array([values], np.int32)
    found = renumbered(labels)
    assert ((found < 0) == (labels < 0)).all() and ((found == 0) == (labels == 0)).all()
    ids = np.unique(found[found > 0])
    assert ids.tolist() == list(range(1, ids.size + 1))


def test_each_crop_is_kept_with_the_same_probability(monkeypatch):
    monkeypatch.setattr(replay, "CAPACITY", 4)
    counts = np.zeros(16)
    marks = [(np.full((1, 1, 1), k, np.float32), np.zeros((1, 1), np.int32)) for k in range(16)]
    runs = 600
    for run in range(runs):
        held = Reservoir()
        for number, mark in enumerate(marks):
            held = held.with_crops([mark], seed=1000 * run + number)
        assert len(held.kept) == 4 and held.seen == 16
        for image, _ in held.kept:
            counts[int(image[0, 0, 0])] += 1
    expected = runs / 4  # 4 of 16
    assert (abs(counts - expected) < 5 * np.sqrt(expected * 0.75)).all()
