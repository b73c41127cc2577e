"""Training that starts from a model: it begins where the model stands, and the manifest says so."""

import dataclasses
import shutil

import numpy as np
import pytest

from nucleate.data.augment import AugmentationConfig
from nucleate.data.normalization import normalise
from nucleate.data.synthetic.microscopy import fluorescence, write_folder
from nucleate.errors import ModelError
from nucleate.networks import store
from nucleate.networks.manifest import Ancestor
from nucleate.training import fit
from nucleate.training.config import TrainingConfig
from nucleate.training.warm_start import LEARNING_RATE, warm_start

SHORT = TrainingConfig(epochs=1, samples=8, batch=4, variation=AugmentationConfig(crop=64), widths=(8, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "cells"
    write_folder(path, "fluorescence", 3, seed=0, labelled=2, height=64, width=96, diameter=16)
    return path


@pytest.fixture(scope="module")
def small(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "small"
    fit.fit(folder, out, SHORT)
    return out


def pairs(inverted):
    found = []
    for seed in range(2):
        image, labels = fluorescence(seed=seed, height=128, width=128)
        pixels = normalise(image, 1)
        found.append((np.ascontiguousarray(1 - pixels) if inverted else pixels, labels))
    return found


@pytest.mark.parametrize("inverted", [False, True])
def test_the_sign_that_finds_more_nuclei_is_taken(inverted):
    model = store.read(store.locate("fluorescence"))
    begun = warm_start(model, pairs(inverted), 1)
    assert begun.exchanged is inverted and begun.score > 0.2
    assert ("exchanged" in begun.sentence()) is inverted and f"{begun.score:.3f}" in begun.sentence()
    assert begun.lineage == (Ancestor(name="fluorescence", weights_sha256=model.manifest.weights_sha256),)


def test_the_manifest_tells_the_parents_and_the_network_is_theirs(folder, small, tmp_path):
    child = fit.fit(folder, tmp_path / "child", dataclasses.replace(SHORT, widths=(8, 16)), parent=small)
    assert child.architecture.widths == (8, 8)
    grandchild = fit.fit(folder, tmp_path / "grandchild", SHORT, parent=tmp_path / "child")
    assert [one.name for one in grandchild.lineage] == ["small", "child"]
    assert grandchild.lineage[1].weights_sha256 == child.weights_sha256
    rates = [row["learning_rate"] for row in store.read_history(tmp_path / "child")]
    scratch = [row["learning_rate"] for row in store.read_history(small)]
    assert rates == pytest.approx([LEARNING_RATE * rate for rate in scratch])


def test_a_run_is_resumed_from_the_same_parent_only(folder, small, tmp_path):
    def stop(state, loss):
        if state.step == 3:
            raise KeyboardInterrupt

    two, straight = dataclasses.replace(SHORT, epochs=2), tmp_path / "straight"
    fit.fit(folder, straight, two, parent=small)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(folder, tmp_path / "model", two, parent=small, observe=stop)
    with pytest.raises(ModelError, match="parent"):
        fit.fit(folder, tmp_path / "model", two, resume=True)
    with pytest.raises(ModelError, match="There is no model"):
        fit.fit(folder, tmp_path / "model", two, resume=True, parent=tmp_path / "gone")
    fit.fit(folder, tmp_path / "model", two, resume=True, parent=small)
    assert (tmp_path / "model" / store.WEIGHTS).read_bytes() == (straight / store.WEIGHTS).read_bytes()


def test_a_parent_that_is_altered_is_named(folder, small, tmp_path):
    altered = shutil.copytree(small, tmp_path / "altered")
    (altered / store.WEIGHTS).write_bytes((altered / store.WEIGHTS).read_bytes()[:-4])
    with pytest.raises(ModelError, match="copy the model again"):
        fit.fit(folder, tmp_path / "out", SHORT, parent=altered)
    assert not (tmp_path / "out").exists()
