"""The reader of results and the samples, which need no napari."""

import csv
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tifffile

from nucleate.errors import InputError, NucleateWarning
from nucleate.napari.reader import get_reader, read
from nucleate.napari.samples import picture


def test_labels_come_with_the_table(results):
    for name in ("a_labels.tif", "a_labels.zarr"):
        path = str(results / name)
        ((labels, options, kind),) = get_reader(path)(path)
        assert kind == "labels" and (labels == tifffile.imread(results / "a_labels.tif")).all()
        with (results / "a.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert options["features"]["index"].tolist() == list(range(1, labels.max() + 1)) and len(rows) > 3
        assert options["features"]["area"].tolist() == np.bincount(labels.ravel())[1:].tolist()
        assert options["features"]["score"].tolist() == [float(row["score"]) for row in rows]


def test_a_record_brings_the_image_and_both_lie_where_they_do_in_the_whole_image(results):
    (image, about, kind), (labels, options, _) = read(str(results / "b.json"))
    whole = tifffile.imread(results / "b.tif")
    assert kind == "image" and image.shape == labels.shape == (200, 180)
    assert options["scale"] == about["scale"] == (2, 2) and options["translate"] == about["translate"]
    # The middle of the first pixel lies amid the four pixels of the whole image that it stands for.
    y, x = about["translate"]
    assert (y, x) == (40.5, 80.5)
    assert (image[0, 0] == whole[40:42, 80:82]).all() and (image[5, 9] == whole[50:52, 98:100]).all()
    assert labels.any() and options["name"] == "b nuclei"


def test_an_image_without_nuclei_has_no_features(results):
    ((labels, options, _),) = read(str(results / "empty_labels.tif"))
    assert not labels.any() and options["features"] is None


def test_corrected_labels_are_opened_without_the_measurements_of_others(results, tmp_path):
    for name in ("a.json", "a.csv", "a_labels.tif"):
        (tmp_path / name).write_bytes((results / name).read_bytes())
    labels = tifffile.imread(tmp_path / "a_labels.tif")
    tifffile.imwrite(tmp_path / "a_labels.tif", np.where(labels == 1, 0, labels))
    ((read_back, options, _),) = read(str(tmp_path / "a_labels.tif"))
    assert 1 not in read_back and options["features"] is None


def test_labels_are_opened_where_the_image_is_gone(results, tmp_path):
    record = json.loads((results / "a.json").read_text()) | {"image": str(tmp_path / "gone.tif"), "relative": None}
    (tmp_path / "a.json").write_text(json.dumps(record))
    for name in ("a.csv", "a_labels.tif"):
        (tmp_path / name).write_bytes((results / name).read_bytes())
    with pytest.warns(NucleateWarning, match=r"without their image.*gone\.tif"):
        assert [kind for *_, kind in read(str(tmp_path / "a.json"))] == ["labels"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("x.json", "{}"), ("x.json", "[1]"), ("x.json", "no json"), ("x_labels.tif", ""), ("x_labels.zarr", "")],
)
def test_what_is_no_result_is_left_to_other_readers(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert get_reader(str(tmp_path / name)) is None
    assert get_reader(str(tmp_path / "absent.json")) is None and get_reader([str(tmp_path / name)]) is None


def test_a_record_without_labels_is_one_sentence(results, tmp_path):
    record = json.loads((results / "a.json").read_text())
    record["files"] = {"csv": "a.csv"}
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"a\.json names no label image: .*--format tif"):
        read(str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("channels", "kind", "options"),
    [
        (1, np.uint16, {}),
        (3, np.uint8, {"rgb": True}),
        (3, np.uint16, {"channel_axis": 2}),
        (2, np.uint8, {"channel_axis": 2}),
    ],
)
def test_colour_and_channels(channels, kind, options):
    data, found, _ = picture(np.zeros((4, 5, channels), kind), {})
    assert found == options and data.shape[:2] == (4, 5) and data.ndim == (3 if channels > 1 else 2)


def test_nothing_heavy_is_loaded_to_read_or_to_draw():
    script = "import sys, nucleate.napari.reader, nucleate.napari.samples, nucleate.napari.prediction\n"
    script += "print({'torch', 'napari', 'qtpy'} & {name.partition('.')[0] for name in sys.modules})"
    with warnings.catch_warnings():
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
