"""A folder of images to a model folder, from end to end."""

import dataclasses
import hashlib
import json
import shutil
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from skimage.measure import regionprops

from nucleate.data.augment import AugmentationConfig
from nucleate.data.dataset import find, images_in, pair
from nucleate.data.synthetic.microscopy import write_folder
from nucleate.errors import DatasetError, ImageError, ModelError, OutputError
from nucleate.inference.predict import predict
from nucleate.inference.predictor import Predictor
from nucleate.inference.select import installed
from nucleate.networks import store
from nucleate.networks.manifest import ThresholdsPart
from nucleate.networks.unet import Architecture, UNet
from nucleate.postprocess.matching import match
from nucleate.postprocess.scores import pool
from nucleate.report.model_files import model_files
from nucleate.training import fit
from nucleate.training.checkpoint import FILE, TrainingState
from nucleate.training.config import TrainingConfig
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.segmentation import GRID
from nucleate.types import Thresholds

SHORT = TrainingConfig(epochs=1, samples=8, batch=4, variation=AugmentationConfig(crop=64))
SMALL = dataclasses.replace(SHORT, widths=(8, 8))
"""With a small network, where the network does not matter."""

OPTIONS = {"height": 64, "width": 96, "diameter": 16}
FILES = {*store.FILES, store.REPORT}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "cells"
    write_folder(path, "fluorescence", 3, seed=0, labelled=2, **OPTIONS)
    return path


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """With the network that people get."""
    out = tmp_path_factory.mktemp("models") / "mine"
    return out, fit.fit(folder, out, SHORT, extra_files=model_files)


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_the_folder_is_whole_and_can_be_read(trained):
    out, manifest = trained
    assert {path.name for path in out.iterdir()} == FILES
    read = store.read(out)
    assert read.manifest == manifest
    assert manifest.weights_sha256 == hashlib.sha256((out / store.WEIGHTS).read_bytes()).hexdigest()
    assert manifest.name == "mine" and manifest.versions["torch"] == torch.__version__
    assert read.network.architecture == Architecture(channels=1)


def test_the_manifest_tells_the_data(trained, folder):
    _, manifest = trained
    pairs = [pair(sample) for sample in find(folder).labelled]
    diameters = [props.equivalent_diameter_area for _, labels in pairs for props in regionprops(labels)]
    assert (manifest.data.source, manifest.data.labelled) == ("cells", 2)
    assert manifest.data.nuclei == len(diameters)
    assert manifest.data.median_diameter == pytest.approx(np.median(diameters), abs=0.01)
    assert manifest.data.channels == ("grey",) and "2" in manifest.data.validation


def test_the_manifest_compares_the_engines(trained):
    _, manifest = trained
    found = manifest.engines.panoptic_quality
    assert list(found) == installed()
    assert found["torch"] == manifest.scores["validation"]["panoptic_quality"]


@pytest.mark.parametrize(("images", "tuned"), [(3, False), (10, True)])
def test_with_few_images_the_smallest_area_alone_is_tuned(images, tuned, tmp_path, monkeypatch):
    write_folder(tmp_path / "cells", "fluorescence", images, seed=0, **OPTIONS)
    asked = []

    def tune(validation, maps, start, names):
        asked.append(names)
        return start, validation.scores(maps, start)

    monkeypatch.setattr(fit, "tune_thresholds", tune)
    fit.fit(tmp_path / "cells", tmp_path / "model", SMALL)
    assert asked == [tuple(GRID) if tuned else ("min_area",)]


def test_thresholds_are_tuned_and_the_engines_are_judged_with_them():
    def scores(thresholds):
        """Best at another threshold than where the search begins."""
        labels = np.ones((4, 4), np.int32)
        return pool([match(labels, labels * (thresholds.foreground == 0.4))])

    class Judge:
        pairs = ((np.ones((1, 16, 16), np.float32), np.ones((16, 16), np.int32)),)
        asked = ()

        def evaluate(self, engine, criterion, thresholds):
            self.asked = (*self.asked, thresholds)
            return SimpleNamespace(maps=("maps",), scores=scores(thresholds))

        def scores(self, maps, thresholds):
            assert maps == ("maps",)
            return scores(thresholds)

    judge, network = Judge(), UNet(Architecture(widths=(8, 8)))
    thresholds, found, engines, maps = fit.tune_prediction(network, judge, SegmentationCriterion())
    assert thresholds == dataclasses.replace(Thresholds(), foreground=0.4)
    assert maps == ("maps",) and found == scores(thresholds) and set(engines.panoptic_quality) == set(installed())
    assert judge.asked == (Thresholds(), *[thresholds] * len(installed()))


def test_the_manifest_tells_the_run(trained):
    out, manifest = trained
    rows = store.read_history(out)
    training = manifest.training
    assert (training.epochs, training.steps, training.best_epoch) == (1, 2, 1) and len(rows) == 1
    assert training.stopped in (out / store.CARD).read_text()
    scores = manifest.scores["validation"]
    assert json.loads(json.dumps(scores)) == scores
    # Thresholds are tuned from where each epoch was judged, so the score is no lower.
    assert scores["mean_ap"] >= rows[0]["score"]
    assert (out / store.CURVES).read_bytes().startswith(b"\x89PNG")


def test_the_model_predicts(trained, folder, tmp_path):
    out, _ = trained
    summary = predict(Predictor(store.read(out)), images_in([folder]), tmp_path)
    assert len(summary.nuclei) == 3 and summary.failed == []


def test_a_finished_model_is_not_overwritten(trained, folder):
    out, _ = trained
    before = files_of(out)
    for resume in (False, True):
        with pytest.raises(ModelError, match="mine already holds"):
            fit.fit(folder, out, SHORT, resume=resume)
    assert files_of(out) == before


def interrupt_at(step):
    def observe(state, loss):
        if state.step == step:
            raise KeyboardInterrupt

    return observe


def test_an_unfinished_run_is_kept_until_resumed(folder, tmp_path):
    config = dataclasses.replace(SMALL, epochs=3, variation=AugmentationConfig(crop=32))
    expected = fit.fit(folder, tmp_path / "straight" / "model", config)
    out = tmp_path / "broken off" / "model"
    with pytest.raises(KeyboardInterrupt):
        fit.fit(folder, out, config, observe=interrupt_at(3))
    before = files_of(out)
    assert before.keys() == {FILE}
    with pytest.raises(ModelError, match="--resume"):
        fit.fit(folder, out, config)
    assert files_of(out) == before
    manifest = fit.fit(folder, out, config, resume=True)
    assert {path.name for path in out.iterdir()} == FILES - {store.CURVES, store.CARD, store.REPORT}
    assert manifest.weights_sha256 == expected.weights_sha256
    assert manifest.thresholds == expected.thresholds and manifest.scores == expected.scores


def test_nothing_to_resume(folder, tmp_path):
    with pytest.raises(ModelError, match="without --resume"):
        fit.fit(folder, tmp_path / "out", SMALL, resume=True)


@pytest.mark.parametrize("below", ["", "model"])
def test_a_file_in_the_way_is_an_output_error(folder, tmp_path, below):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError, match="taken"):
        fit.fit(folder, tmp_path / "taken" / below, SHORT)
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_refused_folder_is_named_before_anything_is_read(tmp_path):
    # The images are not there either, yet it is the output that is named.
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError, match="taken"):
        fit.fit(tmp_path / "no images", tmp_path / "taken", SHORT)


def test_colour_images_make_a_model_of_three_channels(tmp_path):
    write_folder(tmp_path / "tissue", "tissue", 2, seed=0, **OPTIONS)
    manifest = fit.fit(tmp_path / "tissue", tmp_path / "model", SMALL, name="sections", source="drawn")
    assert manifest.architecture.channels == 3 and manifest.data.channels == ("red", "green", "blue")
    assert (manifest.name, manifest.data.source) == ("sections", "drawn")
    read = store.read(tmp_path / "model")
    image, _ = pair(find(tmp_path / "tissue").labelled[0])
    assert Predictor(read).segment(image).labels.shape == image.pixels.shape[:2]


def recoloured(folder, out, colour):
    """The labelled images of `folder` with other pixels, the same masks."""
    for sample in find(folder).labelled:
        image, _ = pair(sample)
        (out / "images").mkdir(parents=True, exist_ok=True)
        (out / "masks").mkdir(exist_ok=True)
        (out / "images" / f"{sample.name}.png").write_bytes(imagecodecs.png_encode(colour(image.pixels)))
        shutil.copy(sample.mask, out / "masks")
    return out


def test_grey_stored_as_colour_is_one_channel(folder, tmp_path):
    grey = fit.load_labelled(folder)
    coloured = fit.load_labelled(recoloured(folder, tmp_path, lambda pixels: np.repeat(pixels, 3, axis=2)))
    assert len(coloured.channels) == len(grey.channels) == 1
    for (one, _), (other, _) in zip(grey.training, coloured.training, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_channel_is_picked_by_name(folder, tmp_path):
    def hide(pixels):
        noise = np.random.default_rng(0).integers(0, 255, pixels.shape).astype(np.uint8)
        return np.concatenate([noise, pixels, noise], axis=2)

    grey, picked = fit.load_labelled(folder), fit.load_labelled(recoloured(folder, tmp_path, hide), channel="green")
    assert picked.channels == ("green",)
    for (one, _), (other, _) in zip(grey.training, picked.training, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ImageError, match="no channel"):
        fit.load_labelled(tmp_path, channel="DAPI")


def test_images_of_different_channels_are_refused(folder, tmp_path):
    path = recoloured(folder, tmp_path / "mixed", lambda pixels: np.concatenate([pixels, pixels // 2, pixels], axis=2))
    labels = np.eye(40, dtype=np.uint16)
    tifffile.imwrite(path / "masks" / "two.tif", labels)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (2, 40, 40)).astype(np.uint8)
    tifffile.imwrite(path / "images" / "two.ome.tif", pixels, metadata={"axes": "CYX"})
    with pytest.raises(DatasetError, match=r"\[2, 3\] channels.*--channel"):
        fit.load_labelled(path)


def test_a_folder_for_validation_is_taken_whole(folder, tmp_path):
    write_folder(tmp_path / "held", "fluorescence", 2, seed=1, **OPTIONS)
    data = fit.load_labelled(folder, tmp_path / "held")
    assert len(data.training) == 2 and len(data.validation) == 2
    assert all((labels >= 0).all() for _, labels in data.training + data.validation)
    assert "held" in data.rule and data.labelled == 2


def test_without_masks_the_folder_for_them_is_named(tmp_path):
    write_folder(tmp_path, "fluorescence", 2, seed=0, labelled=0, **OPTIONS)
    with pytest.raises(DatasetError, match="masks"):
        fit.load_labelled(tmp_path)


def test_masks_without_nuclei_are_refused(folder, tmp_path):
    path = recoloured(folder, tmp_path, lambda pixels: pixels[..., 0])
    for mask in (path / "masks").iterdir():
        mask.write_bytes(imagecodecs.png_encode(np.zeros((64, 96), np.uint16)))
    with pytest.raises(DatasetError, match="nucleus"):
        fit.load_labelled(path)


def one_nucleus(folder, images):
    rng = np.random.default_rng(0)
    labels = np.zeros((64, 64), np.uint16)
    labels[20:44, 20:44] = 1
    for number in range(images):
        for part, values in (("images", labels * 100 + rng.integers(0, 20, labels.shape)), ("masks", labels)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"{number}.tif", values.astype(np.uint16))
    return folder


def test_where_no_nucleus_can_be_held_out_there_is_no_score(tmp_path):
    manifest = fit.fit(one_nucleus(tmp_path / "one", 1), tmp_path / "model", SMALL, extra_files=model_files)
    assert manifest.scores == {} and manifest.engines is None
    assert manifest.thresholds == ThresholdsPart(**dataclasses.asdict(Thresholds()))
    assert "no score" in manifest.data.validation
    card = (tmp_path / "model" / store.CARD).read_text()
    assert "no nucleus could be held out" in card and "quality" not in card
    assert store.read(tmp_path / "model").manifest == manifest


def test_without_held_out_nuclei_an_unlimited_run_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "UNJUDGED", 1)
    config = dataclasses.replace(SMALL, epochs=None)
    manifest = fit.fit(one_nucleus(tmp_path / "one", 1), tmp_path / "model", config)
    assert manifest.training.epochs == 1


def test_of_images_with_one_nucleus_each_one_is_judged_on(tmp_path):
    manifest = fit.fit(one_nucleus(tmp_path / "four", 4), tmp_path / "model", SMALL)
    assert manifest.scores["validation"]["n_true"] == 1 and "1 of 4 nuclei" in manifest.data.validation


def test_a_validation_folder_without_nuclei_is_refused(folder, tmp_path):
    empty = one_nucleus(tmp_path / "empty", 2)
    for mask in (empty / "masks").iterdir():
        tifffile.imwrite(mask, np.zeros((64, 64), np.uint16))
    with pytest.raises(DatasetError, match=r"None of the 2 masks in .*empty holds a nucleus"):
        fit.load_labelled(folder, empty)


def test_findings_on_both_folders_are_told(folder, tmp_path):
    odd = one_nucleus(tmp_path / "odd", 2)
    tifffile.imwrite(odd / "masks" / "1.tif", np.zeros((64, 64), np.uint16))
    told = []
    fit.fit(folder, tmp_path / "model", SMALL, validation=odd, warn=told.append)
    assert told[-1] == "1: The mask has no nucleus."
    classes = np.zeros((64, 64), np.uint8)
    classes[5:15, 5:15] = classes[30:40, 30:40] = 255
    tifffile.imwrite(odd / "masks" / "1.tif", classes)
    with pytest.raises(DatasetError, match="--masks binary"):
        fit.fit(folder, tmp_path / "other", SMALL, validation=odd)
    data = fit.load_labelled(folder, odd, masks="binary")
    assert "with 3 nuclei" in data.rule


def test_numbers_of_nuclei_may_be_as_large_as_they_like(folder, tmp_path):
    path = recoloured(folder, tmp_path, lambda pixels: pixels[..., 0])
    for mask in list((path / "masks").iterdir()):
        labels = imagecodecs.png_decode(mask.read_bytes()).astype(np.int32)
        tifffile.imwrite(mask.with_suffix(".tif"), np.where(labels > 0, 2**31 - 1 - labels, 0).astype(np.int32))
        mask.unlink()
    one, other = fit.load_labelled(folder), fit.load_labelled(path)
    assert (other.nuclei, other.median_diameter) == (one.nuclei, one.median_diameter)
    for (_, a), (_, b) in zip(one.training + one.validation, other.training + other.validation, strict=True):
        np.testing.assert_array_equal(np.sign(a), np.sign(b))
        assert b.max() <= one.nuclei


def test_what_the_cool_down_changed_is_told_of_the_epochs_kept():
    # The highest score, of epoch 2, was not kept: by the mean of validation errors epoch 3 was, and 5 is.
    rows = zip([5.0, 3.0, 1.0, 1.0, 0.5], [0.3, 0.9, 0.5, 0.6, 0.7], strict=True)
    history = [{"valid_loss": loss, "score": score} for loss, score in rows]
    state = TrainingState(history=history, stop_epoch=3, why="It was enough.", best_epoch=5, best_score=0.7)
    said = "It was enough. In 2 epochs of cool-down the validation score "
    assert fit._stopped(state) == f"{said}rose from 0.500 to 0.700."
    state.best_score = 0.4
    assert fit._stopped(state) == f"{said}fell from 0.500 to 0.400."
    state.best_score = 0.5
    assert fit._stopped(state) == f"{said}stayed at 0.500."
    for unchanged in (5, None):
        state.stop_epoch = unchanged
        assert fit._stopped(state) == "It was enough."
    state.stop_epoch = 0
    assert fit._stopped(state) == "It was enough."
