"""Scores from files: partners are found under each naming, and what does not fit is refused with one clear sentence."""

import io
import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from rich.console import Console

from nucleate.errors import DatasetError, ImageError
from nucleate.evaluation import evaluate, to_json
from nucleate.io.formats import FORMATS
from nucleate.postprocess.matching import match
from nucleate.postprocess.scores import pool
from nucleate.report.console import print_evaluation
from nucleate.types import Nucleus


def squares(shift=0, count=3, shape=(40, 60)):
    labels = np.zeros(shape, np.uint16)
    for i in range(count):
        labels[5 + shift : 15 + shift, 5 + 18 * i : 15 + 18 * i] = i + 1
    return labels


def write(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(labels).save(path)
    else:
        tifffile.imwrite(path, labels)
    return path


@pytest.fixture
def true(tmp_path):
    for name, labels in {"a": squares(), "b": squares(count=2), "c": squares(count=0)}.items():
        write(tmp_path / "true" / "masks" / f"{name}.png", labels)
    return tmp_path / "true"


def test_two_files(tmp_path):
    predicted, true = write(tmp_path / "p.tif", squares(shift=1)), write(tmp_path / "t.png", squares())
    found = evaluate(predicted, true)
    assert found.scores == pool([match(squares(), squares(shift=1))])
    assert [(i.name, i.predicted, i.truth) for i in found.images] == [("t", predicted, true)]


@pytest.mark.parametrize(
    "pattern", ["{}.tif", "{}_labels.tif", "{}_masks.tif", "labels/{}.tif", "labels/{}_labels.TIF"]
)
def test_partners_are_found_under_each_naming(tmp_path, true, pattern):
    for name, shift, count in (("a", 1, 3), ("b", 0, 2), ("c", 0, 0)):
        write(tmp_path / "predicted" / pattern.format(name), squares(shift, count))
    found = evaluate(tmp_path / "predicted", true)
    assert [i.name for i in found.images] == ["a", "b", "c"]
    assert [i.matching.n_true for i in found.images] == [3, 2, 0]
    assert found.scores == pool(i.matching for i in found.images)
    assert found.left_out == ()


@pytest.mark.parametrize("formats", [("zarr",), ("geojson",), ("roi",), ("tif", "geojson", "csv"), ("roi", "zarr")])
def test_every_format_that_is_written_is_scored(tmp_path, true, memory_instances, formats):
    """Also beside the images themselves, whose names are those of the outlines."""
    for name, shift, count in (("a", 1, 3), ("b", 0, 2), ("c", 0, 0)):
        labels = squares(shift, count).astype(np.int32)
        rows = [Nucleus(number, 1.0, 1.0, 100, 11.3, 1.0, 0.5) for number in range(1, count + 1)]
        for kind in formats:
            file = tmp_path / "predicted" / FORMATS[kind].file(name)
            FORMATS[kind].write(file, memory_instances(name, labels, rows))
        if "tif" not in formats:
            write(tmp_path / "predicted" / f"{name}.tif", labels.astype(np.uint16) * 900)
    found = evaluate(tmp_path / "predicted", true)
    assert [i.name for i in found.images] == ["a", "b", "c"]
    assert found.scores == pool([match(squares(0, n), squares(shift, n)) for n, shift in ((3, 1), (2, 0), (0, 0))])
    one = evaluate(tmp_path / "predicted" / FORMATS[formats[0]].file("a"), true / "masks" / "a.png")
    assert one.scores == pool([match(squares(), squares(shift=1))])


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, np.ndarray.tolist])
def test_two_arrays_are_scored_as_their_files_are(tmp_path, kind):
    predicted, truth = squares(shift=1).astype(np.int64), squares().astype(np.int64)
    found = evaluate(kind(predicted), kind(truth))
    assert found.scores == pool([match(truth.astype(np.int32), predicted.astype(np.int32))])
    assert found.scores == evaluate(write(tmp_path / "p.tif", squares(1)), write(tmp_path / "t.tif", squares())).scores
    assert json.loads(to_json(found))["images"][0]["predicted"] is None


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 4, 5), int), r"predicted labels has shape \(3, 4, 5\)"),
        (np.zeros(7, int), r"has shape \(7,\)"),
        (np.zeros((0, 4), int), "has shape"),
        (np.full((40, 60), 0.5), "fractions"),
        (np.full((40, 60), np.nan), "NaN"),
        (np.full((40, 60), "a"), "of type"),
        (np.zeros((40, 61), int), r"is 40 x 61 pixels .* the array of true labels is 40 x 60"),
    ],
)
def test_an_array_that_is_no_label_image_is_refused(array, says):
    with pytest.raises(ImageError, match=says):
        evaluate(array, squares())


def test_an_array_and_a_path_are_no_partners(true):
    with pytest.raises(DatasetError, match="give two arrays or two paths"):
        evaluate(squares(), true)


def test_outlines_are_drawn_on_the_partners_canvas_and_an_archive_of_something_else_is_ignored(tmp_path, true):
    square = {"type": "Polygon", "coordinates": [[[5, 5], [15, 5], [15, 15], [5, 15], [5, 5]]]}
    (tmp_path / "p.geojson").write_text(json.dumps([{"type": "Feature", "geometry": square}]))
    found = evaluate(tmp_path / "p.geojson", true / "masks" / "a.png")
    assert (found.images[0].matching.n_predicted, found.scores.at[0].tp) == (1, 1)
    for name in "abc":
        write(tmp_path / "predicted" / f"{name}.tif", squares())
    (tmp_path / "predicted" / "all.zip").write_bytes(b"PK")
    assert evaluate(tmp_path / "predicted", true).left_out == ()


@pytest.mark.parametrize("pattern", ["{}.tif", "{}_masks.png", "masks/{}.tif", "labelsTr/{}.tif"])
def test_true_labels_are_found_under_each_layout(tmp_path, pattern):
    write(tmp_path / "true" / pattern.format("a"), squares())
    write(tmp_path / "predicted" / "a.tif", squares())
    assert evaluate(tmp_path / "predicted", tmp_path / "true").scores.panoptic_quality == 1


def test_images_beside_marked_masks_are_no_labels(tmp_path):
    write(tmp_path / "true" / "a.tif", squares() * 900)
    write(tmp_path / "true" / "a_masks.tif", squares())
    write(tmp_path / "predicted" / "a.tif", squares())
    assert evaluate(tmp_path / "predicted", tmp_path / "true").scores.aji == 1


def test_predictions_without_true_labels_are_left_out_and_named(tmp_path, true):
    for name, count in (("a", 3), ("b", 2), ("c", 0), ("z", 1)):
        write(tmp_path / "predicted" / f"{name}.tif", squares(count=count))
    found = evaluate(tmp_path / "predicted", true)
    assert (found.left_out, found.scores.images, found.scores.panoptic_quality) == (("z",), 3, 1)
    console = Console(file=io.StringIO(), width=120)
    print_evaluation(found, console)
    assert "left out, without true labels: 1 (the first is z)" in console.file.getvalue()


def test_the_table_shows_the_scores(tmp_path, true):
    for name, shift, count in (("a", 1, 3), ("b", 0, 2), ("c", 0, 0)):
        write(tmp_path / "predicted" / f"{name}.tif", squares(shift, count))
    console = Console(file=io.StringIO(), width=120)
    print_evaluation(evaluate(tmp_path / "predicted", true), console)
    text = console.file.getvalue()
    assert "3 images, 5 true and 5 predicted nuclei" in text
    lines = {
        line.replace("│", " ").split()[0]: line.replace("│", " ").split() for line in text.splitlines() if line.strip()
    }
    assert lines["0.8"] == ["0.8", "5", "0", "0", *["1.000"] * 5]
    assert lines["0.9"] == ["0.9", "2", "3", "3", "0.400", "0.400", "0.400", "0.250", "0.667"]
    assert lines["panoptic"][2] == f"{(3 * 9 / 11 + 2) / 5:.3f}"


def test_json_holds_pooled_and_single_scores(tmp_path, true):
    for name, count in (("a", 3), ("b", 1), ("c", 0)):
        write(tmp_path / "predicted" / f"{name}.tif", squares(count=count))
    found = evaluate(tmp_path / "predicted", true)
    document = json.loads(to_json(found))
    assert document["scores"] == found.scores.as_dict()
    assert [i["name"] for i in document["images"]] == ["a", "b", "c"]
    assert document["images"][1]["scores"] == pool([found.images[1].matching]).as_dict()


def test_what_does_not_fit_is_refused(tmp_path, true):
    predicted = tmp_path / "predicted"
    with pytest.raises(DatasetError, match="predicted does not exist"):
        evaluate(predicted, true)
    predicted.mkdir()
    with pytest.raises(DatasetError, match="holds no label image"):
        evaluate(predicted, true)
    write(predicted / "a.tif", squares())
    with pytest.raises(DatasetError, match=r"b\.png and 1 more have no predicted partner.*named b\.tif"):
        evaluate(predicted, true)
    with pytest.raises(DatasetError, match="give two files or two folders"):
        evaluate(predicted / "a.tif", true)
    write(predicted / "a.png", squares())
    with pytest.raises(DatasetError, match=r"both label images of a;"):
        evaluate(predicted, true)
    small = write(tmp_path / "small.tif", squares(shape=(30, 60)))
    with pytest.raises(ImageError, match=r"small\.tif is 30 x 60 .*a\.png is 40 x 60"):
        evaluate(small, true / "masks" / "a.png")
