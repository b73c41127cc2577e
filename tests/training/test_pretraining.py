"""Pre-training from end to end: it learns to tell crops apart, can be resumed, and says what it cannot use."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tifffile
import torch

import nucleate
from nucleate.cli import main
from nucleate.data.augment import AugmentationConfig
from nucleate.data.synthetic.microscopy import write_folder
from nucleate.data.views import ViewConfig
from nucleate.errors import DatasetError, ModelError, TrainingError
from nucleate.networks import store
from nucleate.networks.pretraining import PretrainingNetwork
from nucleate.networks.unet import Architecture
from nucleate.networks.unfold import unfolded
from nucleate.parallel import SingleProcess
from nucleate.report.pretraining import pretraining_files
from nucleate.training import fit
from nucleate.training.checkpoint import Checkpoint
from nucleate.training.config import TrainingConfig
from nucleate.training.contrast import PretrainingConfig
from nucleate.training.parallel import Serial
from nucleate.training.pretrain import BATCH, pretrain, run_config
from nucleate.training.pretraining import HeldOut, PretrainingTask, held_out_places, retrieval
from nucleate.training.trainer import Trainer
from nucleate.training.unlabelled import load_unlabelled

VIEW = ViewConfig(AugmentationConfig(crop=32, scale=1.1, blurred=0.0), points=16)
WHAT = PretrainingConfig(crops=24, view=VIEW)
SHORT = TrainingConfig(epochs=2, samples=8, batch=4, warm_up=2, widths=(8, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "cells"
    write_folder(path, "fluorescence", 10, seed=0, labelled=2, height=64, width=96, diameter=14)
    return path


@pytest.fixture(scope="module")
def straight(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "straight"
    return out, pretrain(folder, out, SHORT, WHAT, extra_files=pretraining_files)


def textures(count, seed=0, side=64):
    """Images that differ in how fine they are, and how strong in contrast."""
    found = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        y, x = np.mgrid[:side, :side] / (1.0 * 8 ** (number / (count - 1)))
        waves = np.sin(y + rng.uniform(0, 6)) * np.sin(x + rng.uniform(0, 6))
        found.append((0.5 + (0.2 + 0.3 * (number % 2)) * waves)[None].astype(np.float32))
    return found


def test_it_learns_to_find_the_other_view():
    config = dataclasses.replace(SHORT, epochs=2, samples=240, batch=8, warm_up=5, widths=(16, 16, 16))
    held_out = HeldOut(textures(12, seed=1, side=32), WHAT, config.seed, config.batch)
    torch.manual_seed(0)
    network = PretrainingNetwork(Architecture(widths=config.widths))
    task = PretrainingTask(textures(12), held_out, config, WHAT)
    before = task.evaluate(network, bfloat16=False)
    history = Trainer(network, task, config, bfloat16=False).train().state.history
    assert len(held_out) == 12
    assert history[-1]["score"] >= 0.25 > before.score, "chance is 0.08"
    assert history[-1]["valid_loss"] < before.loss


def test_the_folder_holds_a_network_without_its_last_layer(straight, folder):
    out, manifest = straight
    assert {path.name for path in out.iterdir()} == {*store.FILES, store.REPORT} - {store.PROTOTYPES, store.REPLAY}
    assert manifest.architecture.parts == ("encoder", "decoder") and manifest.scores == {}
    assert (manifest.data.labelled, manifest.data.unlabelled, manifest.data.nuclei) == (0, 10, 0)
    assert "2 of 10 images" in manifest.data.validation and manifest.training.epochs == 2
    assert store.read(out, whole=False).manifest == manifest
    with pytest.raises(ModelError, match="pre-trained and finds no nuclei yet"):
        nucleate.load(out)
    rows = store.read_history(out)
    assert {"score", "spread", "effective_rank", "views", "places", "reconstruction"} <= rows[0].keys()


def test_masks_are_not_read(folder, straight, tmp_path):
    other = shutil.copytree(folder, tmp_path / "cells")
    masks = [path for path in other.rglob("*") if path.is_file() and "mask" in str(path.relative_to(other))]
    assert masks
    for path in masks:
        path.write_bytes(b"no mask")
    assert load_unlabelled(other).digest() == load_unlabelled(folder).digest()


def test_a_training_starts_from_it(straight, folder, tmp_path):
    out, manifest = straight
    said = []
    config = TrainingConfig(epochs=1, samples=8, batch=4, variation=AugmentationConfig(crop=32), widths=(16, 16))
    child = fit.fit(folder, tmp_path / "child", config, parent=out, phase=said.append)
    assert child.architecture.widths == (8, 8) and child.architecture.parts == ("encoder", "decoder", "heads")
    assert [one.weights_sha256 for one in child.lineage] == [manifest.weights_sha256]
    assert any("straight, which is pre-trained" in sentence for sentence in said)
    again = fit.fit(folder, tmp_path / "again", config, parent=out)
    assert again.weights_sha256 == child.weights_sha256, "its new last layer is a function of the seed"


def test_the_report_tells_what_was_learnt(straight, folder):
    out, manifest = straight
    page, card = (out / store.REPORT).read_text(), (out / store.CARD).read_text()
    held_out = [torch.from_numpy(image) for image in load_unlabelled(folder).held_out]
    number = len(held_out_places(held_out, 32, 24, 0))
    for text in (page, card):
        assert f"nearest of {number}" in text and "by chance" in text and "before the training" in text
    for title in ("Learning curves", "Nearest neighbours", "Map of the images", "Effective rank", "Spread"):
        assert title in page
    assert page.count("<figure") > 20 and "<script" not in page and "src=" not in page
    assert "nucleate train" in card and manifest.training.stopped in card


def stopping_at(step):
    def observe(state, loss):
        if state.step == step:
            raise KeyboardInterrupt

    return observe


@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_interrupted_run_comes_to_the_same_bytes(straight, folder, tmp_path, step):
    out = tmp_path / "straight"
    with pytest.raises(KeyboardInterrupt):
        pretrain(folder, out, SHORT, WHAT, observe=stopping_at(step))
    assert Checkpoint(out).path.exists()
    with pytest.raises(ModelError, match="unfinished run"):
        pretrain(folder, out, SHORT, WHAT)
    with pytest.raises(ModelError, match="another choice of pretraining"):
        pretrain(folder, out, SHORT, dataclasses.replace(WHAT, places=0.0), resume=True)
    pretrain(folder, out, SHORT, WHAT, resume=True, extra_files=pretraining_files)
    assert (out / store.WEIGHTS).read_bytes() == (straight[0] / store.WEIGHTS).read_bytes()
    assert not Checkpoint(out).path.exists()


@pytest.mark.parametrize("options", [{"contrast": 0.0}, {"reconstruction": 0.0}], ids=["no contrast", "contrast alone"])
def test_each_kind_can_be_left_out(folder, tmp_path, options):
    what = dataclasses.replace(PretrainingConfig.of(**options), crops=24, view=VIEW)
    manifest = pretrain(folder, tmp_path / "out", dataclasses.replace(SHORT, epochs=1), what)
    terms = {"reconstruction"} if "contrast" in options else {"views", "places", "variance", "covariance"}
    assert terms == {term.partition("*")[2] for term in manifest.training.loss.split("+")}
    assert terms <= store.read_history(tmp_path / "out")[0].keys()


def test_it_starts_from_a_model_of_other_channels(straight, tmp_path):
    colour = tmp_path / "colour"
    write_folder(colour, "tissue", 10, seed=0, labelled=0, height=64, width=64, diameter=14)
    manifest = pretrain(colour, tmp_path / "out", SHORT, WHAT, parent=straight[0])
    assert manifest.architecture.channels == 3
    assert [one.name for one in manifest.lineage] == ["straight"]
    rows = store.read_history(tmp_path / "out")
    assert rows[0]["learning_rate"] == pytest.approx(store.read_history(straight[0])[0]["learning_rate"] / 2)


def test_what_is_written_is_no_longer_what_was_begun_with(straight):
    own = unfolded(store.read(straight[0], whole=False).network)
    torch.manual_seed(SHORT.seed)
    begun = PretrainingNetwork(own.architecture)
    assert not torch.allclose(own.encoder.stem.weight, begun.encoder.stem.weight, atol=1e-3)
    assert not torch.allclose(own.decoder.up[0].applied()[0], begun.decoder.up[0].applied()[0], atol=1e-3)


class Collapsed(PretrainingNetwork):
    def embedding(self, image):
        return torch.ones(len(image), 4)


def test_collapse_ends_the_run_with_a_sentence():
    held_out = HeldOut(textures(8), WHAT, 0, 4)
    network = Collapsed(Architecture(widths=(8, 8)))
    task = PretrainingTask(textures(8), held_out, SHORT, WHAT)
    with pytest.raises(TrainingError, match="have collapsed"):
        Trainer(network, task, SHORT, bfloat16=False).train()
    found = held_out.evaluate(network, bfloat16=False, parallel=Serial(), ranks=SingleProcess())
    assert (found.spread, found.effective_rank) == (0.0, 0.0)


def write(path, *images):
    path.mkdir()
    for number, image in enumerate(images):
        tifffile.imwrite(path / f"{number}.tif", np.asarray(image, np.uint8))
    return path


NOISE = [np.random.default_rng(seed).integers(0, 255, (64, 64)) for seed in range(3)]


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([], "no image"),
        ([np.full((64, 64), 7)] * 2, "shows anything"),
        ([NOISE[0]] * 3, "All 3 images in .* are the same one"),
        ([image[:20, :30] for image in NOISE], "too small"),
        ([NOISE[0][:32, :40]], "too few or too small to hold out two crops"),
    ],
    ids=["no image", "constant", "all alike", "small", "nothing to hold out"],
)
def test_what_cannot_be_learnt_from_is_named(tmp_path, images, sentence):
    with pytest.raises(DatasetError, match=sentence):
        pretrain(write(tmp_path / "in", *images), tmp_path / "out", SHORT, WHAT)
    assert not (tmp_path / "out" / store.MANIFEST).exists()


def test_one_image_small_images_and_copies_are_told(tmp_path):
    said = []
    large = np.random.default_rng(0).integers(0, 255, (64, 200))
    pretrain(write(tmp_path / "one", large), tmp_path / "a", SHORT, WHAT, warn=said.append)
    assert any("holds one image" in sentence for sentence in said)
    said.clear()
    images = [np.random.default_rng(seed).integers(0, 255, (48, 200)) for seed in range(10)]
    what = dataclasses.replace(WHAT, view=ViewConfig(AugmentationConfig(crop=128), points=16))
    pretrain(
        write(tmp_path / "few", *images, images[0], np.zeros((9, 9))), tmp_path / "b", SHORT, what, warn=said.append
    )
    assert any("crops of 48 in place of 128" in sentence for sentence in said)
    assert any("1 image left out as copies" in sentence for sentence in said)
    assert any("1 image with one value" in sentence for sentence in said)


def test_a_model_of_a_newer_format_is_named(straight, folder, tmp_path):
    newer = shutil.copytree(straight[0], tmp_path / "newer")
    content = json.loads((newer / store.MANIFEST).read_text())
    (newer / store.MANIFEST).write_text(json.dumps({**content, "format": 3}))
    with pytest.raises(ModelError, match="newer version of Nucleate"):
        pretrain(folder, tmp_path / "out", SHORT, WHAT, parent=newer)


def test_held_out_crops_lie_apart_and_show_something():
    image = torch.from_numpy(np.random.default_rng(0).random((1, 130, 200), dtype=np.float32))
    image[:, :, :70] = 0
    places = held_out_places([image], 64, 99, seed=0)
    assert {place[1:] for place in places} == {(y, x) for y in (32.5, 96.5) for x in (99.5, 163.5)} and len(places) == 4
    assert len(held_out_places([image], 64, 3, seed=0)) == 3


def test_retrieval_is_by_chance_of_embeddings_that_know_nothing():
    random = torch.Generator().manual_seed(0)
    assert np.mean([retrieval(torch.randn(50, 2, 8, generator=random)) for _ in range(40)]) == pytest.approx(
        0.02, abs=0.01
    )


def test_the_usual_run_is_that_of_the_command_line():
    assert run_config(minutes=3).batch == BATCH and run_config(minutes=3).minutes == 3


def test_the_command_line_pretrains_and_says_what_comes_next(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nucleate.training.contrast.PretrainingConfig.of", lambda *_: WHAT)
    monkeypatch.setattr("nucleate.training.pretrain.run_config", lambda **_: dataclasses.replace(SHORT, epochs=1))
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(folder), "--out", str(tmp_path / "out"), "--epochs", "1"])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "is the nearest in" in said and "nucleate train" in said and "--from" in said
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(tmp_path / "out"), str(folder), "--out", str(tmp_path / "found")])
    assert ended.value.code == 2
    assert "pre-trained and finds no nuclei yet" in capsys.readouterr().err
