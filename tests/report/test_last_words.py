"""What a training says at its end: never that a model is ready that finds nothing."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nucleate.data.synthetic import fluorescence, write_folder
from nucleate.networks import store
from nucleate.report.last_words import last_words

FALLING = [{"valid_loss": 1 / epoch} for epoch in range(1, 9)]
SETTLED = [{"valid_loss": 1.0}] * 20


def manifest(quality, n_true, nuclei=500, **others):
    """That of a model with this panoptic quality on so many held-out nuclei; `others` are models of the package."""
    read = store.read_manifest(store.locate("fluorescence"))
    scores = read.scores["validation"]
    named = {name: scores | {"panoptic_quality": value} for name, value in others.items()}
    own = {} if quality is None else {"validation": scores | {"panoptic_quality": quality, "n_true": n_true}}
    data = read.data.model_copy(update={"nuclei": nuclei})
    return read.model_copy(update={"scores": own | named, "data": data})


def masks(folder, change):
    """A folder of three images whose masks are changed."""
    for seed in range(3):
        image, labels = fluorescence(seed, height=96, width=96)
        for part, pixels in (("images", image.pixels[..., 0]), ("masks", change(labels))):
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"{seed}.tif", pixels.astype(np.uint16))
    return folder


@pytest.fixture
def cells(tmp_path):
    return masks(tmp_path / "my cells", lambda labels: labels)


def said(found, history, cells):
    lines = last_words(found, history, cells, cells.parent / "model")
    *_, last = lines
    program, *arguments = shlex.split(last.removeprefix("Next: "))
    assert last.startswith("Next: ") and program == "nucleate"
    return " ".join(lines), arguments


def test_what_a_training_needed_it_needs_again(tmp_path):
    classes = masks(tmp_path / "classes", lambda labels: labels > 0)
    found = manifest(0.0, 80)
    lines = last_words(found, FALLING, classes, tmp_path / "model", "binary", ["--channel", "-DAPI"])
    assert "not numbered" not in " ".join(lines)
    arguments = shlex.split(lines[-1].removeprefix("Next: "))
    assert arguments[:3] == ["nucleate", "train", str(classes)] and "--masks" in arguments
    assert arguments[-2:] == ["--channel", "-DAPI"]


def test_a_good_model_is_used_next(cells):
    text, arguments = said(manifest(0.7, 80), FALLING, cells)
    assert arguments == ["predict", str(cells.parent / "model"), str(cells), "--out", "found"]
    assert "Panoptic quality 0.700 on 80 held-out nuclei." in text and "not usable" not in text


@pytest.mark.parametrize("quality", [0.0, 0.05, 0.19, None])
@pytest.mark.parametrize("n_true", [0, 1, 19, 20, 200])
@pytest.mark.parametrize("history", [FALLING, SETTLED])
def test_a_useless_or_unjudged_model_is_never_used_next(cells, quality, n_true, history):
    text, (name, *_) = said(manifest(quality, n_true), history, cells)
    assert "not usable yet. The likeliest cause: " in text and name in ("train", "check")
    assert ("There is no score" in text) == (quality is None or n_true == 0)


def test_few_nuclei_make_a_score_worth_little_however_good_it_is(cells):
    text, arguments = said(manifest(1.0, 3, nuclei=17), SETTLED, cells)
    assert "too few nuclei: 17 nuclei labelled, 3 of them held out" in text and "1.000 on 3 held-out nuclei" in text
    assert arguments == ["train", str(cells), "--out", str(cells.parent / "model-2")]
    assert "1 nucleus labelled, 0 of them held out" in said(manifest(None, 0, nuclei=1), SETTLED, cells)[0]


def test_a_run_that_was_too_short_is_to_be_longer(cells):
    (cells.parent / "model-2").mkdir()
    text, arguments = said(manifest(0.01, 80), FALLING[:2], cells)
    assert "too short: after 2 epochs" in text and arguments[-1].endswith("model-3")
    assert "too short: after 1 epoch validation" in said(manifest(0.01, 80), FALLING[:1], cells)[0]
    assert "too short" not in said(manifest(0.01, 80), SETTLED, cells)[0]


def test_masks_that_are_not_numbered_are_named(tmp_path):
    cells = masks(tmp_path / "cells", lambda labels: labels > 0)
    text, arguments = said(manifest(0.01, 80), FALLING, cells)
    assert "nuclei are not numbered" in text and arguments == ["check", str(cells)]


@pytest.mark.parametrize("change", [lambda labels: labels[::-1], lambda labels: np.roll(labels, 30, axis=1)])
def test_masks_that_do_not_lie_on_the_images_are_named(tmp_path, change):
    cells = masks(tmp_path / "cells", change)
    assert "masks are moved, mirrored, turned" in said(manifest(0.01, 80), FALLING, cells)[0]


def test_a_model_of_the_package_that_does_better_is_named_with_both_numbers(cells):
    text, arguments = said(manifest(0.4, 80, fluorescence=0.8), FALLING, cells)
    assert "fluorescence of the package does better on the same nuclei: 0.800 against 0.400." in text
    assert arguments[:2] == ["predict", "fluorescence"]
    assert "does better" not in said(manifest(0.4, 80, fluorescence=0.3), FALLING, cells)[0]
    text, (name, *_) = said(manifest(0.0, 80, fluorescence=0.8), FALLING, cells)
    assert "0.800 against 0.000" in text and name == "train"


def test_a_folder_that_has_gone_meanwhile_ends_nothing(tmp_path):
    assert "not usable" in said(manifest(0.0, 80), SETTLED, tmp_path / "gone")[0]


def test_a_model_that_was_trained_says_it_end_to_end(tmp_path, capsys):
    from nucleate.cli import main

    cells, out = tmp_path / "-my cells", tmp_path / "o'model"
    write_folder(cells, "fluorescence", 2, seed=3, height=96, width=96)
    with pytest.raises(SystemExit) as end:
        main(["train", str(cells), "--out", str(out), "--minutes", "0.05"])
    assert not end.value.code
    *_, next_line = lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("Next: nucleate predict") for line in lines), lines
    found = store.read_manifest(out)
    assert 0 < found.scores["fluorescence"]["panoptic_quality"] <= 1 and f"{out / store.REPORT}" in lines[-4]
    assert shlex.split(next_line)[1] == "nucleate" and Path(shlex.split(next_line)[3]) == cells
    assert "The model fluorescence of the package has panoptic quality" in (out / store.CARD).read_text()
