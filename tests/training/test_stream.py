"""Streams of corrections: what is read, what is said, and that the model that is judged does not change."""

import csv

import numpy as np
import pytest
import tifffile
from tests.training.online_models import SMALL, drawn, small_model

import nucleate
from nucleate.cli import main
from nucleate.errors import DatasetError, ImageError, InputError, ModelError
from nucleate.networks import store
from nucleate.training import online
from nucleate.training.copying import copied
from nucleate.training.stream import corrections, running_mean
from nucleate.types import Box


@pytest.fixture(autouse=True)
def small_updates(monkeypatch):
    monkeypatch.setattr(online, "OnlineConfig", lambda: SMALL)


@pytest.fixture
def model(tmp_path):
    return small_model(tmp_path / "model")


@pytest.fixture
def cells(tmp_path):
    folder = tmp_path / "cells"
    folder.mkdir()
    for number in range(3):
        image, labels = drawn(number)
        tifffile.imwrite(folder / f"c{number}.tif", image.pixels[..., 0])
        tifffile.imwrite(folder / f"c{number}_masks.tif", labels.astype(np.uint16))
    return folder


def call(capsys, *arguments, code=None):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert (end.value.code or 0) == (code or 0), printed.err
    return printed.out if code is None else printed.err


def test_a_folder_is_taken_in_the_order_of_its_names(cells):
    assert [image.name for image, _ in corrections(cells)] == ["c0", "c1", "c2"]


def test_outside_of_the_region_nothing_is_known(cells):
    ((_, labels),) = corrections(cells / "c0.tif", cells / "c0_masks.tif", region=Box(2, 3, 20, 30))
    known = labels >= 0
    assert known.sum() == 600 and known[2:22, 3:33].all()


@pytest.mark.parametrize(
    ("mask", "region", "error", "said"),
    [
        (None, None, InputError, "No mask was given for"),
        ("c0_masks.tif", Box(40, 0, 20, 20), InputError, "lies outside of the image"),
        ("c0_masks.tif", Box(0, 0, 0, 20), InputError, "lies outside of the image"),
        ("nothing.tif", None, ImageError, "nothing.tif"),
    ],
)
def test_what_cannot_be_used_is_said(cells, mask, region, error, said):
    with pytest.raises(error, match=said):
        list(corrections(cells / "c0.tif", None if mask is None else cells / mask, region=region))


def test_a_folder_without_masks_and_a_mask_that_is_a_mistake_are_refused(cells, tmp_path):
    (tmp_path / "empty").mkdir()
    tifffile.imwrite(tmp_path / "empty" / "a.tif", np.zeros((9, 9), np.uint8))
    with pytest.raises(DatasetError, match="holds no labelled image"):
        list(corrections(tmp_path / "empty"))
    spotted = np.zeros((48, 48), np.uint8)
    spotted[4:40:12, 4:40:12] = 1
    tifffile.imwrite(cells / "c0_masks.tif", spotted)
    with pytest.raises(ImageError, match="has the single value 1 in 9 pieces"):
        list(corrections(cells / "c0.tif", cells / "c0_masks.tif"))


def test_learn_log_and_undo_on_the_command_line(model, cells, capsys):
    before = (model / store.MANIFEST).read_bytes()
    out = call(capsys, "learn", model, cells / "c0.tif", cells / "c0_masks.tif")
    assert "1 c0: " in out and "of 1 correction." in out
    assert "2 c0: " in call(capsys, "learn", model, cells)
    out = call(capsys, "learn", model, "--log")
    assert out.count("c0") == 2 and "sentinel" in out
    assert "has learnt all that was recorded" in call(capsys, "learn", model)
    assert "4 corrections stay in" in call(capsys, "learn", model, "--undo")
    assert (model / store.MANIFEST).read_bytes() == before
    assert call(capsys, "learn", model, "--log").count("undone") == 4
    assert "one of them at a time" in call(capsys, "learn", model, "--undo", "--log", code=2)


def test_arrays_are_learnt_from(model):
    image, labels = drawn(0)
    (update,) = nucleate.learn(model, image.pixels[..., 0], labels, name="mine")
    assert (update.name, update.nuclei) == ("mine", np.unique(labels[labels > 0]).size)
    with pytest.raises(InputError, match="No mask was given for the array"):
        nucleate.learn(model, image.pixels)
    with pytest.raises(ImageError, match="is no label image"):
        nucleate.learn(model, image.pixels, labels.astype(float))
    assert nucleate.learn(model) == []


def test_a_copy_learns_and_the_model_stays(model, cells, tmp_path):
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    nucleate.learn(model, cells, out=tmp_path / "copy")
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert store.read_manifest(tmp_path / "copy").corrections.learnt == 3
    with pytest.raises(ModelError, match="already holds a model"):
        nucleate.learn(model, cells, out=tmp_path / "copy")
    again = copied(str(tmp_path / "copy"), tmp_path / "again")
    assert store.read(again).manifest == store.read(tmp_path / "copy").manifest


def test_a_stream_is_judged_on_a_copy_and_reported(model, cells, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    out = call(capsys, "stream", model, cells, "--report", tmp_path / "report")
    assert "Over 3 images, each scored before it was learnt" in out
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    rows = list(csv.DictReader((tmp_path / "report" / "stream.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["c0", "c1", "c2"]
    assert rows[0]["before"] == rows[0]["frozen"]  # nothing was learnt yet
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<svg") > 2 and "Running mean of AP" in page and "<script" not in page
    assert store.read_manifest(tmp_path / "report" / "model").corrections.learnt == 3


def test_running_means():
    assert running_mean([None, 1.0, None, 0.0]) == [0.0, 1.0, 1.0, 0.5]
