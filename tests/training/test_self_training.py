"""Training with the images that have no labels: what a teacher says of them, and runs of two stages."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import dilation, disk, erosion

from nucleate.data.augment import AugmentationConfig, TrainingImage
from nucleate.data.sampler import Sampler
from nucleate.data.synthetic.microscopy import fluorescence, write_folder
from nucleate.errors import DatasetError, InputError, ModelError
from nucleate.networks import store
from nucleate.report.card import card
from nucleate.report.model_files import model_files
from nucleate.training import pseudo_labels, self_training
from nucleate.training.choice import Start
from nucleate.training.config import TrainingConfig
from nucleate.training.pseudo_labels import PseudoLabelled, doubtful
from nucleate.types import Maps

SHORT = TrainingConfig(epochs=2, samples=8, batch=4, variation=AugmentationConfig(crop=64), widths=(8, 8))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "cells"
    write_folder(path, "fluorescence", 4, seed=0, labelled=2, height=64, width=96, diameter=16)
    return path


def maps_of(foreground):
    empty = np.zeros_like(foreground)
    return Maps(foreground, empty, np.stack([empty, empty]), empty)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_about_outlines_nothing_is_known(seed):
    _, labels = fluorescence(seed, 64, 64, diameter=14)
    sure = np.where(labels > 0, 0.99, 0.01).astype(np.float32)
    unknown = doubtful(maps_of(sure), labels)
    # Two pixels of the same value all about: the plain way to say that no outline is near.
    square = np.ones((3, 3))
    inner = dilation(labels, square) == erosion(labels, square)
    assert not (inner & unknown & ~dilation(~inner, disk(1))).any()
    assert (unknown | inner).all()


def test_where_the_model_is_not_sure_nothing_is_known():
    labels = np.zeros((20, 20), np.int32)
    foreground = np.full((20, 20), 0.3, np.float32)
    assert doubtful(maps_of(foreground), labels).all()
    assert not doubtful(maps_of(0.2 * foreground), labels).any()


def test_unknown_pixels_count_for_the_size_of_a_nucleus():
    _, labels = fluorescence(0, 64, 64, diameter=14)
    pixels = np.zeros((1, 64, 64), np.float32)
    plain = TrainingImage.of(pixels, labels)
    masked = TrainingImage.of(pixels, labels, np.ones((64, 64), np.bool_))
    np.testing.assert_array_equal(masked.centres.radius, plain.centres.radius)
    assert (masked.raised[0, 0] == 1).all() and (plain.raised[0, 0] > 1).all()


def test_every_second_sample_has_pseudo_labels():
    images = [
        TrainingImage.of(np.full((1, 64, 64), value, np.float32), np.zeros((64, 64), np.int32)) for value in (1, 2)
    ]
    still = AugmentationConfig(crop=16, scale=1.0, stretch=1.0, gamma=0, gain=0, shift=0, noise=0, blurred=0)
    found = Sampler(images[:1], 0, still, images[1:]).batch(range(6)).image.amax((1, 2, 3))
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0] * 3))
    alone = Sampler(images[:1], 0, still).batch(range(6))
    assert torch.equal(alone.image, Sampler(images[:1], 0, still, ()).batch(range(6)).image)


def test_labels_are_kept_and_belong_to_images_and_model(tmp_path):
    _, labels = fluorescence(0, 64, 64, diameter=14)
    pixels = np.zeros((1, 64, 64), np.float32)
    one, path, of = (
        PseudoLabelled(pixels, labels, labels > 3),
        tmp_path / "a.safetensors",
        {"images": "x", "model": "y"},
    )
    pseudo_labels.write(path, [one], of)
    (found,) = pseudo_labels.read(path, [pixels], of)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.unknown, one.unknown)
    with pytest.raises(ModelError, match="of other images"):
        pseudo_labels.read(path, [pixels], {**of, "model": "z"})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError, match="train without --resume"):
        pseudo_labels.read(path, [pixels], of)


def run(folder, out, how, *, stop=None, **options):
    """A run of two stages that ends itself after so many steps in all."""
    steps = 0

    def observe(state, loss):
        nonlocal steps
        steps += 1
        if steps == stop:
            raise KeyboardInterrupt

    return self_training.train_in_stages(folder, out, SHORT, how, observe=observe, **options)


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_an_interrupted_run_comes_to_the_same_weights(stop, folder, tmp_path):
    straight = run(folder, tmp_path / "straight", "pseudo")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, "pseudo", stop=stop)
    with pytest.raises(ModelError, match="--resume"):
        run(folder, out, "pseudo")
    resumed = run(folder, out, "pseudo", resume=True)
    assert resumed.weights_sha256 == straight.weights_sha256
    assert not (out / self_training.STAGE).exists()
    assert [one.name for one in resumed.lineage] == ["out (first stage)"]


def test_pre_training_comes_first(folder, tmp_path, monkeypatch):
    usual = self_training.run_config
    monkeypatch.setattr(self_training, "run_config", lambda **limits: dataclasses.replace(usual(**limits), samples=32))
    manifest = run(folder, tmp_path / "out", "pretrain")
    assert [one.name for one in manifest.lineage] == ["out (first stage)"]
    assert store.read(tmp_path / "out").manifest.data.labelled == 2


def test_what_cannot_be_used_is_said_at_once(folder, tmp_path):
    with pytest.raises(InputError, match="choose one of no, pretrain, pseudo, auto"):
        self_training.chosen("all")
    for image in sorted((folder / "images").iterdir())[2:]:
        image.unlink()
    with pytest.raises(DatasetError, match="holds no image without labels"):
        run(folder, tmp_path / "out", "pseudo")
    assert not (tmp_path / "out").exists()


def test_limits_are_shared():
    first, second = self_training._shared(dataclasses.replace(SHORT, minutes=10.0, epochs=5), 0.6)
    assert (first.minutes, second.minutes, first.epochs, second.epochs) == (6.0, 4.0, 3, 2)


@pytest.mark.parametrize("teaches", [True, False])
def test_auto_asks_the_finished_teacher_and_says_why(teaches, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(self_training, "may_teach", lambda scores: (teaches, "Because of its scores."))
    pseudo = run(folder, tmp_path / "pseudo", "pseudo")
    monkeypatch.setattr(self_training, "choose_start", lambda data, config, ranks: Start(None, "It began so."))
    auto = run(folder, tmp_path / "auto", "auto", parent="auto", extra_files=model_files)
    assert auto.training.reasons == ("It began so.", "Because of its scores.")
    assert (auto.weights_sha256 == pseudo.weights_sha256) is teaches
    assert "Because of its scores." in card(auto, tmp_path / "auto")
    assert "It began so. Because of its scores." in (tmp_path / "auto" / store.REPORT).read_text()


def test_auto_without_images_that_have_no_labels_is_one_stage(folder, tmp_path):
    for image in sorted((folder / "images").iterdir())[2:]:
        image.unlink()
    alone = run(folder, tmp_path / "no", "no")
    auto = run(folder, tmp_path / "auto", "auto")
    assert auto.weights_sha256 == alone.weights_sha256 and not auto.lineage
    assert auto.training.reasons == ("No image is without labels.",)


def test_images_of_a_former_training_are_half_of_each_batch(folder, tmp_path):
    old = tmp_path / "old"
    write_folder(old, "fluorescence", 2, seed=7, labelled=2, height=64, width=96, diameter=16)
    with pytest.raises(InputError, match="training starts from scratch: give a model that learnt from it"):
        run(folder, tmp_path / "none", "no", replay=old)
    first = run(old, tmp_path / "first", "no")
    assert first.lineage == ()
    with_old = run(folder, tmp_path / "with", "no", parent=tmp_path / "first", replay=old)
    without = run(folder, tmp_path / "without", "no", parent=tmp_path / "first")
    assert with_old.weights_sha256 != without.weights_sha256
    assert run(folder, tmp_path / "both", "pseudo", parent=tmp_path / "first", replay=old).training.steps


def test_former_images_are_seen_with_the_channels_of_the_network(tmp_path):
    write_folder(tmp_path / "old", "tissue", 1, seed=0, labelled=1, height=64, width=64)
    (three,), (one,) = (self_training.former(tmp_path / "old", channels) for channels in (3, 1))
    assert three.image.shape == (3, 64, 64) and one.image.shape == (1, 64, 64)
    np.testing.assert_array_equal(one.unknown, one.labels < 0)
