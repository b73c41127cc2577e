"""What training starts from, and whether a teacher labels images: by rules, with the reason said."""

import dataclasses

import numpy as np
import pytest
import torch

from nucleate.data.augment import AugmentationConfig
from nucleate.data.synthetic.microscopy import write_folder
from nucleate.networks import store
from nucleate.networks.unet import Architecture
from nucleate.training import choice
from nucleate.training.choice import CLEARLY, LEAST, SURE, choose_start, may_teach, trial_error
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import load_labelled
from nucleate.training.trainer import new_network

SHORT = TrainingConfig(epochs=1, samples=8, batch=2, variation=AugmentationConfig(crop=64), widths=(8, 8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "cells"
    write_folder(path, "fluorescence", 3, seed=0, labelled=3, height=96, width=128, diameter=16)
    return load_labelled(path)


@pytest.fixture(scope="module")
def strange(data):
    """The same labels under images that show nothing of them."""
    noise = np.random.default_rng(0)
    training = [(noise.random(image.shape, np.float32), labels) for image, labels in data.training]
    return dataclasses.replace(data, training=training)


def test_a_model_that_finds_the_nuclei_untrained_is_taken(data):
    found = choose_start(data, SHORT, ["fluorescence"])
    assert found.parent == store.locate("fluorescence")
    assert "fluorescence 0." in found.reason and float(found.reason.split()[-1].rstrip(".")[:5]) >= LEAST


@pytest.mark.parametrize(("warm", "taken"), [(0.9, True), (1 - CLEARLY, False), (2.0, False)])
def test_where_none_finds_them_short_trials_decide(warm, taken, strange, monkeypatch):
    asked = []

    def error(network, data, config):
        asked.append(config.learning_rate)
        return 1.0 if len(asked) == 1 else warm

    monkeypatch.setattr(choice, "trial_error", error)
    found = choose_start(strange, SHORT, ["fluorescence"])
    assert (found.parent == store.locate("fluorescence")) is taken
    assert f"{warm:.3f} from fluorescence and 1.000 from scratch" in found.reason
    assert asked == [SHORT.learning_rate, choice.LEARNING_RATE * SHORT.learning_rate]


def test_without_anything_to_judge_on_it_starts_from_scratch(strange):
    found = choose_start(dataclasses.replace(strange, validation=[]), SHORT, ["fluorescence"])
    assert found.parent is None and "nothing could be held out" in found.reason
    assert choose_start(strange, SHORT, []).parent is None


def test_a_trial_is_a_function_of_its_arguments_and_learns(data, monkeypatch):
    monkeypatch.setattr(choice, "TRIAL", 24)
    architecture = Architecture(widths=SHORT.widths)
    errors = [trial_error(new_network(architecture, 0), data, SHORT) for _ in range(2)]
    monkeypatch.setattr(choice, "TRIAL", 4)
    assert errors[0] == errors[1] < trial_error(new_network(architecture, 0), data, SHORT)
    assert torch.isfinite(torch.tensor(errors)).all()


@pytest.mark.parametrize(
    ("recall", "precision", "may"), [(SURE, SURE, True), (SURE - 0.01, 1.0, False), (1.0, SURE - 0.01, False)]
)
def test_a_teacher_must_miss_little_and_invent_little(recall, precision, may):
    rows = [{"threshold": level, "recall": recall, "precision": precision} for level in (0.5, 0.9)]
    assert may_teach({"n_true": 9, "thresholds": rows})[0] is may
    assert not may_teach({"n_true": 0, "thresholds": rows})[0]
    assert not may_teach(None)[0]
