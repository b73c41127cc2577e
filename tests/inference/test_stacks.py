"""A hyperstack of 5 frames, 3 planes and 2 channels: predicted, and trained on, in each of the ways."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import tifffile

from nucleate.api import Segmenter
from nucleate.data.augment import AugmentationConfig
from nucleate.data.dataset import find
from nucleate.data.inspect import labelled
from nucleate.data.planes import expanded
from nucleate.data.synthetic import fluorescence
from nucleate.errors import DatasetError, OutputError
from nucleate.inference.image_input import Selection
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.inference.summary import Segmented
from nucleate.io.label_file import read_labels
from nucleate.io.prediction_json import read_record
from nucleate.io.stack import Choice
from nucleate.networks import store
from nucleate.training import fit
from nucleate.training.config import TrainingConfig
from nucleate.types import Plane

FRAMES, PLANES, HEIGHT, WIDTH = 5, 3, 64, 96
SHORT = TrainingConfig(epochs=1, samples=4, batch=2, widths=(8, 8), variation=AugmentationConfig(crop=64))


@pytest.fixture(scope="module")
def hyperstack():
    """Pixels (T, Z, C, Y, X) and labels (T, Z, Y, X); plane 2 is the brightest and sharpest."""
    made = [fluorescence(seed=t, height=HEIGHT, width=WIDTH, diameter=16) for t in range(FRAMES)]
    sharp = np.stack([image.pixels[..., 0] for image, _ in made]).astype(np.uint16)
    truth = np.stack([labels for _, labels in made]).astype(np.uint16)
    blurred = sharp // 2 + sharp.mean(axis=(1, 2), keepdims=True).astype(np.uint16) // 2
    planes = np.stack([blurred, sharp, blurred], axis=1)
    pixels = np.stack([planes, planes[..., ::-1]], axis=2)
    return pixels, np.repeat(truth[:, None], PLANES, axis=1)


def write(path, pixels, axes):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": axes, "unit": "um"}, resolution=(4, 4))


@pytest.fixture(scope="module")
def image(hyperstack, tmp_path_factory):
    path = tmp_path_factory.mktemp("stack") / "cells.tif"
    write(path, hyperstack[0], "TZCYX")
    return path


@pytest.fixture(scope="module")
def predictor():
    return Predictor(store.read(store.locate("fluorescence")), engine="torch")


def run(predictor, image, out, *, formats=("tif", "csv"), **words):
    return predict(predictor, [image], out, Request(formats=formats, channel="1", stacks=Choice(**words)))


@pytest.mark.parametrize("z", ["max", "mean", "best", "2"])
def test_one_plane_is_segmented_as_that_plane_alone(predictor, hyperstack, image, tmp_path, z):
    done = run(predictor, image, tmp_path / "out", z=z, t="4")
    (name,) = done.results
    assert name == "cells"
    frame = hyperstack[0][3]
    alone = {"max": frame.max(axis=0), "mean": frame.mean(axis=0).astype(np.float32)}.get(z, frame[1])
    write(tmp_path / "alone.tif", alone, "CYX")
    run(predictor, tmp_path / "alone.tif", tmp_path / "out")
    found = read_labels(tmp_path / "out" / "cells_labels.tif")
    assert found.max() > 2
    np.testing.assert_array_equal(found, read_labels(tmp_path / "out" / "alone_labels.tif"))
    record = read_record(tmp_path / "out" / "cells.json")
    assert record.plane == Plane(None, 2 if z in ("best", "2") else z, 4)
    assert any("plane 2 of 3 is in best focus" in note for note in done.notes) == (z == "best")


@pytest.mark.parametrize(
    ("words", "axes", "names"),
    [
        ({"z": "each", "t": "each"}, "TZYX", ["t", "z"]),
        ({"z": "each", "t": "2"}, "ZYX", ["z"]),
        ({"z": "max", "t": "each"}, "TYX", ["t"]),
    ],
)
def test_each_plane_gives_a_stack_of_labels_and_one_table(predictor, image, tmp_path, words, axes, names):
    done = run(predictor, image, tmp_path, **words)
    shape = {"TZYX": (FRAMES, PLANES), "ZYX": (PLANES,), "TYX": (FRAMES,)}[axes]
    assert len(done.results) == np.prod(shape) and not done.failed
    with tifffile.TiffFile(tmp_path / "cells_labels.tif") as file:
        assert file.is_imagej and file.series[0].axes == axes and file.series[0].shape == (*shape, HEIGHT, WIDTH)
        labels = file.asarray()
    with (tmp_path / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[: len(names) + 1] == [*names, "id"]
    assert (
        sum(done.nuclei.values())
        == len(rows)
        == sum(len(np.unique(p[p > 0])) for p in labels.reshape(-1, HEIGHT, WIDTH))
    )
    for row in rows[:: len(rows) // 7]:
        here = labels[tuple(int(row[name]) - 1 for name in names if name in row)]
        assert np.sum(here == int(row["id"])) == int(row["area"])
    (said,) = [note for note in done.notes if "plane by plane" in note]
    assert "nothing is linked between planes" in said
    told = json.loads((tmp_path / "cells.json").read_text())
    assert "".join(told["axes"]) == axes and len(told["planes"]) == len(done.results)
    single = read_record(tmp_path / told["planes"][-1])
    assert (single.t, single.z) == ((words["t"] == "each" and FRAMES) or 2, PLANES if words["z"] == "each" else "max")


def test_a_stack_is_written_again_but_nothing_else_is_replaced(predictor, image, tmp_path):
    first = run(predictor, image, tmp_path, z="each", t="1")
    before = (tmp_path / "cells_labels.tif").read_bytes()
    assert run(predictor, image, tmp_path, z="each", t="1").nuclei == first.nuclei
    assert (tmp_path / "cells_labels.tif").read_bytes() == before
    (tmp_path / "cells.json").unlink()
    with pytest.raises(OutputError, match=r"cells_labels\.tif is there already and is not what nucleate predict wrote"):
        run(predictor, image, tmp_path, z="each", t="1")


def test_without_a_word_a_stack_is_named_with_what_to_write(predictor, image, tmp_path):
    (reason,) = run(predictor, image, tmp_path).failed
    assert "is a stack of 5 frames (T) and 3 planes (Z)" in reason and "--z max" in reason and "--t each" in reason


def test_what_the_model_was_trained_on_is_the_default(image, tmp_path, predictor):
    model = predictor.model
    data = model.manifest.data.model_copy(update={"stacks": {"z": "max", "t": "each"}})
    kept = dataclasses.replace(model, manifest=model.manifest.model_copy(update={"data": data}))
    done = run(Predictor(kept, engine="torch"), image, tmp_path)
    assert len(done.results) == FRAMES and any("--z max --t each" in note for note in done.notes)
    result = Segmenter(Predictor(kept, engine="torch")).segment(image, t=2, channel=1)
    assert len(result) == done.nuclei["cells_planes/cells_t2"]


def test_resume_skips_the_planes_that_are_done(predictor, image, tmp_path):
    words = Choice(z="each", t="1")
    predict(predictor, [image], tmp_path, Request(channel="1", stacks=words))
    done = predict(predictor, [image], tmp_path, Request(channel="1", stacks=words, resume=True))
    assert not any(isinstance(one, Segmented) for one in done.results.values())
    other = predict(predictor, [image], tmp_path, Request(channel="1", stacks=Choice(z="each", t="2"), resume=True))
    assert all(isinstance(one, Segmented) for one in other.results.values())


def test_a_region_of_each_plane(predictor, image, tmp_path):
    selection = Selection.of(None, None, (8, 16, 40, 50))
    predict(predictor, [image], tmp_path, Request(selection, channel="1", stacks=Choice(z="1", t="each")))
    assert tifffile.imread(tmp_path / "cells_labels.tif").shape == (FRAMES, 40, 50)


@pytest.mark.parametrize(
    ("words", "axes", "pairs"),
    [
        ({"z": "max", "t": "1"}, "YX", 1),
        ({"z": "mean", "t": "each"}, "TYX", FRAMES),
        ({"z": "best", "t": "each"}, "TYX", FRAMES),
        ({"z": "best", "t": "3"}, "TZYX", 1),
        ({"z": "each", "t": "each"}, "TZYX", FRAMES * PLANES),
        ({"z": "2", "t": "each"}, "TZYX", FRAMES),
    ],
)
def test_stacks_are_trained_on_with_the_labels_of_their_planes(hyperstack, tmp_path, words, axes, pairs):
    pixels, truth = hyperstack
    truth = truth + (np.arange(FRAMES, dtype=np.uint16) * 100)[:, None, None, None] * (truth > 0)
    write(tmp_path / "images" / "a.tif", pixels, "TZCYX")
    write(tmp_path / "masks" / "a.tif", {"YX": truth[0, 0], "TYX": truth[:, 0], "TZYX": truth}[axes], axes)
    found = labelled(tmp_path, stacks=Choice(**words)).pairs
    assert len(found) == pairs and len({image.name for image, _ in found}) >= 1
    first = int(words["t"]) - 1 if words["t"] != "each" else 0
    np.testing.assert_array_equal(found[0][1], truth[first, 0])
    image = {"max": pixels[first].max(axis=0), "mean": pixels[first].mean(axis=0), "each": pixels[first, 0]}
    expected = image.get(words["z"], pixels[first, 1])
    np.testing.assert_allclose(found[0][0].pixels, np.moveaxis(expected, 0, 2), rtol=1e-6)


def test_the_model_remembers_and_predicts(hyperstack, tmp_path):
    pixels, truth = hyperstack
    write(tmp_path / "images" / "a.tif", pixels, "TZCYX")
    write(tmp_path / "masks" / "a.tif", truth[:, 1], "TYX")
    stacks = Choice(z="max", t="each")
    manifest = fit.fit(tmp_path, tmp_path / "model", SHORT, channel=1, stacks=stacks)
    assert manifest.data.stacks == {"z": "max", "t": "each"} and manifest.data.labelled == FRAMES
    assert store.read_manifest(tmp_path / "model").data.stacks == manifest.data.stacks


@pytest.mark.parametrize(
    ("words", "axes", "says"),
    [
        ({"z": "each", "t": "each"}, "TYX", "has one plane, and --z each takes all 3 of"),
        ({"z": "max", "t": "each"}, "TZYX", "is a stack of 3 planes, which are not those that are read of"),
        ({"z": "each", "t": "1"}, "YX", "has one plane, and --z each takes all 3 of"),
    ],
)
def test_a_mask_with_other_planes_is_one_sentence(hyperstack, tmp_path, words, axes, says):
    pixels, truth = hyperstack
    write(tmp_path / "images" / "a.tif", pixels, "TZCYX")
    write(tmp_path / "masks" / "a.tif", {"YX": truth[0, 0], "TYX": truth[:, 0], "TZYX": truth}[axes], axes)
    with pytest.raises(DatasetError, match=says) as error:
        expanded(find(tmp_path), Choice(**words))
    assert "\n" not in str(error.value)
