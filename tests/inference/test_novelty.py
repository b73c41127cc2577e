"""Images unlike those of the training are named, everywhere alike, and nothing else changes."""

import csv
import json
import shutil

import numpy as np
import pytest
import tifffile

import nucleate
from nucleate.data.synthetic import STYLES, fluorescence
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.inference.summary import Skipped
from nucleate.io.prediction_json import read_record
from nucleate.networks import store
from nucleate.report.prediction_progress import sentences


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    tifffile.imwrite(folder / "nuclei.tif", fluorescence(seed=1, height=128, width=128)[0].pixels[..., 0])
    tifffile.imwrite(folder / "tissue.tif", STYLES["tissue"](1, height=128, width=128)[0].pixels)
    tifffile.imwrite(folder / "noise.tif", np.random.default_rng(0).integers(0, 255, (300, 280), dtype=np.uint8))
    tifffile.imwrite(folder / "flat.tif", np.full((64, 64), 7, np.uint8))
    return folder


def run(model, images, out, **options):
    ready = Predictor(model, engine="torch", bfloat16=False)
    return predict(ready, sorted(images.iterdir()), out, Request(tile=64, **options))


@pytest.fixture(scope="module")
def model():
    return store.read(store.locate("fluorescence"))


@pytest.fixture(scope="module")
def done(model, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("done")
    return out, run(model, images, out)


def test_the_unlike_are_named_in_one_sentence_the_most_unlike_first(done):
    _, summary = done
    assert sorted(summary.unlike) == ["noise", "tissue"]
    novelty = [summary.results[name].novelty for name in summary.unlike]
    assert novelty == sorted(novelty, reverse=True) and novelty[-1] > 1
    assert 0 < summary.results["nuclei"].novelty < 1 and summary.results["flat"].novelty is None
    (said,) = [one for one in sentences(summary) if "unlike" in one]
    assert said.startswith(
        "2 of 4 images look unlike anything that the model was trained on: " + ", ".join(summary.unlike)
    )


def test_record_and_table_have_it_too(done):
    out, summary = done
    assert summary.results["nuclei"].count > 0
    for name, result in summary.results.items():
        record = read_record(out / f"{name}.json")
        assert record.novelty == result.novelty
        assert any("unlike" in note for note in record.notes) == (name in summary.unlike)
        with (out / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == result.count and all(float(row["novelty"]) == result.novelty for row in rows)


def test_without_prototypes_all_is_as_before(done, images, model, tmp_path):
    out, _ = done
    plain = shutil.copytree(store.locate("fluorescence"), tmp_path / "model")
    manifest = json.loads((plain / store.MANIFEST).read_text())
    del manifest["prototypes_sha256"]
    (plain / store.MANIFEST).write_text(json.dumps(manifest))
    summary = run(store.read(plain), images, tmp_path / "out")
    assert summary.unlike == [] and all(one.novelty is None for one in summary.results.values())
    for name in summary.results:
        labels = f"{name}_labels.tif"
        assert (tmp_path / "out" / labels).read_bytes() == (out / labels).read_bytes()
        before = (tmp_path / "out" / f"{name}.csv").read_text().splitlines()
        now = (out / f"{name}.csv").read_text().splitlines()
        assert "novelty" not in before[0]
        assert before == (now if name == "flat" else [line.rpartition(",")[0] for line in now])


def test_what_is_skipped_is_named_again(done, images, model):
    out, summary = done
    again = run(model, images, out, resume=True)
    assert all(isinstance(one, Skipped) for one in again.results.values()) and again.unlike == summary.unlike


def test_a_region_has_the_novelty_of_its_image(model, images, done):
    segment = nucleate.load("fluorescence", engine="torch", number_format="float32").segment
    whole = segment(images / "noise.tif")
    assert (
        segment(images / "noise.tif", region=(10, 20, 100, 90)).novelty
        == whole.novelty
        == done[1].results["noise"].novelty
    )
    assert any("unlike" in note for note in segment(tifffile.imread(images / "noise.tif")).notes)
