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
from nucleate.evaluation import evaluate, summary
from nucleate.io.formats import FORMATS
from nucleate.io.prediction_json import PredictionRecord, write_record
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
    assert summary(found)["images"][0]["predicted"] is None


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
    document = summary(found)
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
    with pytest.raises(DatasetError, match=r"b\.png and 1 more have no predicted partner"):
        evaluate(predicted, true)
    with pytest.raises(DatasetError, match="give two files or two folders"):
        evaluate(predicted / "a.tif", true)
    write(predicted / "a.png", squares())
    with pytest.raises(DatasetError, match=r"both label images of a;"):
        evaluate(predicted, true)
    small = write(tmp_path / "small.tif", squares(shape=(30, 60)))
    with pytest.raises(ImageError, match=r"small\.tif is 30 x 60 .*a\.png is 40 x 60"):
        evaluate(small, true / "masks" / "a.png")


def results(folder, memory_instances, formats=("tif",), **images):
    """What `nucleate predict` writes of images, by their names."""
    for name, labels in images.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [Nucleus(number, 1.0, 1.0, 100, 11.3, 1.0, 0.5) for number in range(1, int(labels.max()) + 1)]
        files = {kind: FORMATS[kind].file(path.name) for kind in formats}
        for kind, file in files.items():
            FORMATS[kind].write(path.parent / file, memory_instances(path.name, labels.astype(np.int32), rows))
        record = PredictionRecord(str(path), 0, (0, 0), labels.shape, 1.0, None, len(rows), files)
        write_record(path.parent / f"{path.name}.json", record)


def grey(shape=(40, 60)):
    return np.random.default_rng(0).normal(100, 20, shape).clip(0, 255).astype(np.uint8)


def test_images_in_place_of_true_masks_are_refused(tmp_path, memory_instances):
    """As in `evaluate found new` where new/ holds the images."""
    results(tmp_path / "found", memory_instances, a=squares())
    write(tmp_path / "new" / "a.tif", grey())
    for one, other in (("found", "new"), ("new", "found")):
        with pytest.raises(ImageError, match=r"new/a\.tif holds .* as an image does"):
            evaluate(tmp_path / one, tmp_path / other)
    with pytest.raises(ImageError, match=r"array of true labels holds .* as an image does"):
        evaluate(squares(), grey())


def test_class_masks_are_refused_and_taken_on_purpose(tmp_path):
    classes = (squares() > 0).astype(np.uint8) * 255
    predicted, true = write(tmp_path / "p.tif", squares()), write(tmp_path / "t.png", classes)
    for one, other in ((predicted, true), (true, predicted), (squares(), classes)):
        with pytest.raises(ImageError, match=r"single value 255 in 3 pieces.*--masks binary"):
            evaluate(one, other)
        assert evaluate(one, other, masks="binary").scores.panoptic_quality == 1
        assert (
            evaluate(one, other, masks="labels").scores.n_true + 2
            == 6 - evaluate(one, other, masks="labels").scores.n_predicted
        )


def test_what_prediction_wrote_is_numbered_whatever_it_looks_like(tmp_path, memory_instances):
    """One nucleus found in two pieces is no class mask."""
    split = (squares(count=2) > 0).astype(np.uint16)
    results(tmp_path / "found", memory_instances, a=split)
    write(tmp_path / "true" / "a.tif", squares())
    assert evaluate(tmp_path / "found", tmp_path / "true").scores.n_predicted == 1
    assert evaluate(tmp_path / "found/a_labels.tif", tmp_path / "true/a.tif").scores.n_predicted == 1


@pytest.mark.parametrize("formats", [("tif", "csv"), ("zarr",), ("geojson",), ("roi",), ("roi", "geojson", "zarr")])
def test_results_beside_their_images_are_scored_in_every_format(tmp_path, memory_instances, formats):
    data = tmp_path / "data"
    write(data / "a.tif", grey())
    write(data / "a_masks.tif", squares())
    results(data, memory_instances, formats, a=squares(shift=1))
    found = evaluate(data, data)
    assert found.scores == pool([match(squares().astype(np.int32), squares(shift=1).astype(np.int32))])
    assert found.images[0].truth == data / "a_masks.tif"


def test_corrected_results_are_true_masks(tmp_path, memory_instances):
    results(tmp_path / "found", memory_instances, a=squares(shift=1))
    results(tmp_path / "data", memory_instances, a=squares())
    write(tmp_path / "data" / "a.tif", grey())
    assert evaluate(tmp_path / "found", tmp_path / "data").images[0].truth == tmp_path / "data" / "a_labels.tif"


@pytest.mark.parametrize(
    ("prediction", "image", "mask"),
    [
        ("a_image", "a_image.tif", "a_mask.tif"),
        ("a", "images/a.tif", "masks/a_mask.png"),
        ("A01__a", "A01/a.tif", "A01/a_masks.tif"),
        ("A01__a", "images/A01/a.tif", "masks/A01/a.tif"),
        ("img_1", "Images/img_1.tif", "Masks/mask_1.tif"),
        ("c_0000", "imagesTr/c_0000.tif", "labelsTr/c.tif"),
        ("a", "A01/a.tif", "A01/a_masks.tif"),
        ("A01__images__a", "A01/images/a.tif", "A01/masks/a.tif"),
    ],
)
def test_predictions_find_their_partners_in_every_layout(tmp_path, memory_instances, prediction, image, mask):
    results(tmp_path / "found", memory_instances, **{prediction: squares(shift=1)})
    write(tmp_path / "data" / image, grey())
    write(tmp_path / "data" / mask, squares())
    found = evaluate(tmp_path / "found", tmp_path / "data")
    assert (found.scores.n_true, found.scores.n_predicted, found.left_out) == (3, 3, ())


def test_equal_names_in_subfolders_are_told_apart(tmp_path, memory_instances):
    results(tmp_path / "found", memory_instances, **{"1__a": squares(count=1), "2__a": squares(count=2)})
    for plate, count in (("1", 1), ("2", 2)):
        write(tmp_path / "data" / plate / "a.tif", grey())
        write(tmp_path / "data" / plate / "a_masks.tif", squares(count=count))
    assert evaluate(tmp_path / "found", tmp_path / "data").scores.panoptic_quality == 1
    results(tmp_path / "one", memory_instances, a=squares())
    with pytest.raises(DatasetError, match="1 more have no predicted partner"):
        evaluate(tmp_path / "one", tmp_path / "data")


def test_two_predictions_of_one_image_are_not_chosen_between(tmp_path):
    for name in ("a_img_labels", "a_image_labels"):
        write(tmp_path / "found" / f"{name}.tif", squares())
    with pytest.raises(DatasetError, match="a_image and a_img for"):
        evaluate(tmp_path / "found", write(tmp_path / "true" / "a.tif", squares()).parent)


def test_a_pair_that_cannot_be_read_does_not_end_the_others(tmp_path, true):
    for name, count in (("a", 3), ("b", 2), ("c", 0)):
        write(tmp_path / "predicted" / f"{name}.tif", squares(count=count))
    (tmp_path / "predicted" / "b.tif").write_bytes(b"II*\0")
    found = evaluate(tmp_path / "predicted", true)
    assert [image.name for image in found.images] == ["a", "c"]
    assert len(found.failed) == 1 and "b.tif" in found.failed[0] and summary(found)["failed"] == list(found.failed)
    assert found.warnings == (f"{true / 'masks' / 'c.png'}: The mask has no nucleus.",)


def test_masks_in_another_form_are_named(tmp_path):
    write(tmp_path / "found" / "a_labels.tif", squares())
    write(tmp_path / "data" / "images" / "a.png", grey())
    (tmp_path / "data" / "annotations.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}'
    )
    with pytest.raises(DatasetError, match="COCO"):
        evaluate(tmp_path / "found", tmp_path / "data")
