"""Off-line again: training from a model learns from its corrections, too."""

import dataclasses

import numpy as np
import pytest
from tests.training.online_models import SMALL, drawn, small_model

import nucleate
from nucleate.data.augment import AugmentationConfig
from nucleate.data.synthetic import write_folder
from nucleate.networks import store
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import load_labelled
from nucleate.training.journal import corrections_of
from nucleate.training.online import OnlineLearner
from nucleate.training.replay import Memory
from nucleate.types import Image

CONFIG = TrainingConfig(epochs=1, samples=8, widths=(8, 8), variation=AugmentationConfig(crop=32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "cells"
    write_folder(path, "fluorescence", 2, seed=0, height=64, width=96, diameter=16)
    return path


@pytest.fixture
def corrected(tmp_path):
    model = small_model(tmp_path / "model")
    with OnlineLearner.open(model, SMALL) as learner:
        for number in range(2):
            image, labels = drawn(number)
            labels[:5] = -1
            learner.learn(learner.record(image, labels, f"tile{number}"))
    return model


def test_corrections_are_among_the_training_images(folder, corrected, tmp_path):
    alone, both = load_labelled(folder), load_labelled(folder, corrections=corrections_of(corrected))
    assert (alone.labelled, both.labelled) == (2, 4) and both.nuclei > alone.nuclei
    assert any((labels == -1).any() for _, labels in both.training)
    out = tmp_path / "better"
    nucleate.train(folder, out, config=CONFIG, parent=corrected, warn=lambda _: None)
    manifest = store.read_manifest(out)
    assert manifest.data.labelled == 4 and manifest.corrections is None and manifest.scores
    assert manifest.lineage[-1].weights_sha256 == store.read_manifest(corrected).weights_sha256


def test_both_stages_of_a_training_learn_from_them(folder, corrected, tmp_path):
    data = tmp_path / "half"
    write_folder(data, "fluorescence", 3, seed=0, labelled=2, height=64, width=96, diameter=16)
    config = dataclasses.replace(CONFIG, epochs=2)
    nucleate.train(data, tmp_path / "better", config=config, parent=corrected, unlabelled="pseudo", warn=lambda _: None)
    assert store.read_manifest(tmp_path / "better").data.labelled == 4


def test_a_correction_of_other_channels_is_left_out_with_a_warning(folder, tmp_path):
    from nucleate.training.journal import Journal

    image, labels = drawn(0)
    two = Image("two", np.repeat(image.pixels, 2, axis=2), ("DAPI", "GFP"))
    Journal(tmp_path).record(1, two, labels, "two", (0.0, 1.0), None)
    found = load_labelled(folder, corrections=corrections_of(tmp_path))
    assert found.labelled == 2 and "is left out: it has 2 channels, the images 1" in found.warnings[-1]


def test_a_trained_model_keeps_crops_and_learns_on_line(folder, tmp_path):
    out = tmp_path / "trained"
    nucleate.train(folder, out, config=CONFIG, warn=lambda _: None)
    path = out / store.REPLAY
    memory = Memory.decoded(store.described(path, store.read_manifest(out).replay_sha256), path, 1)
    assert memory.old and memory.sentinel
    said = []
    with OnlineLearner.open(out, SMALL, said.append) as learner:
        learner.learn(learner.record(*drawn(0), "tile"))
    assert said == []
