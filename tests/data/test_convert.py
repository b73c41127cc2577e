"""Data sets written in the layout of another program, and back: nothing that the layout can hold is lost."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.io import imread, imsave

from nucleate.data.convert import LAYOUTS, classes, convert
from nucleate.data.dataset import find, pair
from nucleate.data.inspect import labelled
from nucleate.errors import DatasetError, InputError, OutputError
from nucleate.io.formats.image_tiff import write_image, write_labels
from nucleate.io.label_file import read_labels
from nucleate.io.reader import read_image
from nucleate.types import Image

LABELS = hnp.arrays(np.int32, st.tuples(st.integers(2, 14), st.integers(2, 14)), elements=st.integers(-1, 4))


def numbered(labels):
    """Nuclei as 1..N in the order of their numbers, unknown -1."""
    values = np.unique(labels[labels > 0])
    return np.where(labels > 0, np.searchsorted(values, labels) + 1, np.minimum(labels, 0))


def data_set(folder, **masks):
    for name, labels in masks.items():
        (folder / "images").mkdir(parents=True, exist_ok=True)
        shape = (9, 7) if labels is None else labels.shape
        imsave(
            folder / f"images/{name}.png",
            np.arange(np.prod(shape), dtype=np.uint8).reshape(shape),
            check_contrast=False,
        )
        if labels is not None:
            write_labels(folder / f"masks/{name}.tif", labels)
    return folder


@pytest.mark.parametrize("to", LAYOUTS)
@settings(max_examples=12)
@given(labels=LABELS)
def test_written_and_read_again_labels_are_the_same(tmp_path_factory, to, labels):
    folder = data_set(tmp_path_factory.mktemp("data"), a=labels, b=None)
    out = folder / "out"
    done = convert(folder, out, to, "labels")
    assert (done.images, done.nuclei) == (2, np.unique(labels[labels > 0]).size)
    (sample,) = find(out).labelled
    expected = numbered(labels) if to != "cellpose" else np.maximum(numbered(labels), 0)
    np.testing.assert_array_equal(numbered(pair(sample)[1]), expected)
    assert sample.name == "a"
    again = convert(out, folder / "again", masks="labels")
    assert again.nuclei == done.nuclei
    np.testing.assert_array_equal(numbered(read_labels(folder / "again/masks/a.tif")), expected)
    assert any("became background" in note for note in done.notes) == (to == "cellpose" and bool((labels < 0).any()))


@pytest.mark.parametrize("to", LAYOUTS)
def test_images_are_the_same(tmp_path, to):
    folder = data_set(tmp_path / "in", a=np.eye(6, 8, dtype=np.int32), b=None)
    convert(folder, tmp_path / "out", to, "labels")
    dataset = find(tmp_path / "out")
    samples = {one.name: one.image for one in (*dataset.labelled, *dataset.unlabelled)}
    if to == "nnunet":  # which keeps what has no labels in a folder of its own
        samples["b"] = tmp_path / "out/imagesTs/b_0000.tif"
    for name in ("a", "b"):
        np.testing.assert_array_equal(
            read_image(samples[name]).pixels, read_image(folder / f"images/{name}.png").pixels
        )
    if to != "nnunet":
        assert samples["a"].read_bytes() == (folder / "images/a.png").read_bytes()


def test_what_nnunet_reads(tmp_path):
    labels = np.zeros((8, 8), np.int32)
    labels[1:4, 1:4], labels[1:4, 4:7], labels[7] = 1, 2, -1
    convert(data_set(tmp_path / "in", a=labels), tmp_path / "out", "nnunet")
    described = json.loads((tmp_path / "out/dataset.json").read_text())
    assert described == {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "nucleus": 1, "touching": 2, "ignore": 3},
        "numTraining": 1,
        "file_ending": ".tif",
    }
    found = tifffile.imread(tmp_path / "out/labelsTr/a.tif")
    np.testing.assert_array_equal(found, classes(labels))
    assert found[1].tolist() == [0, 1, 1, 2, 2, 1, 1, 0] and found.dtype == np.uint16
    assert tifffile.imread(tmp_path / "out/imagesTr/a_0000.tif").shape == (8, 8)


@given(LABELS)
def test_classes_are_those_of_the_definition(labels):
    found = classes(labels)
    for y, x in np.ndindex(labels.shape):
        around = labels[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        touches = ((around > 0) & (around != labels[y, x])).any()
        assert found[y, x] == (3 if labels[y, x] < 0 else 0 if labels[y, x] == 0 else 2 if touches else 1)


def qupath(folder):
    """Two rectangles, of which one is for validation, with a nucleus in each, and a third nucleus outside."""

    def box(left, top, right, bottom, name=None):
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        properties = {"classification": {"name": name}} if name else {}
        return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}

    objects = [box(0, 0, 20, 20, "Training"), box(20, 0, 40, 20, "Validation")]
    objects += [box(3, 3, 9, 9), box(24, 5, 32, 12), box(10, 25, 20, 32)]
    (folder / "annotations").mkdir(parents=True)
    imsave(folder / "a.png", np.arange(40 * 50, dtype=np.uint16).reshape(40, 50), check_contrast=False)
    (folder / "annotations/a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": objects}))
    return folder


@pytest.mark.parametrize("to", LAYOUTS)
def test_what_is_for_validation_is_written_for_validation(tmp_path, to):
    source, out = qupath(tmp_path / "in"), tmp_path / "out"
    convert(source, out, to)
    if to == "qupath":
        for folder in (source, out):
            found = labelled(folder)
            ((_, labels),), (part,) = found.pairs, found.validation
            assert np.unique(labels).tolist() == [-1, 0, 1, 2] and part.sum() == 400 and (labels[20:] == -1).all()
        return
    ((_, training),), ((_, validation),) = labelled(out).pairs, labelled(out / "validation").pairs
    unknown = 0 if to == "cellpose" else -1
    assert (training[:, 20:] == unknown).all() and (validation[:, :20] == unknown).all()
    assert (training > 0).sum() == 36 and (validation > 0).sum() == 56


def test_names_of_plates_stay_apart(tmp_path):
    for folder in ("A", "B"):
        data_set(tmp_path / "in" / folder, **{"1": np.eye(5, dtype=np.int32)})
    convert(tmp_path / "in", tmp_path / "out", masks="labels")
    assert [one.name for one in find(tmp_path / "out").labelled] == ["A_1", "B_1"]


def test_what_cannot_be_converted_is_refused_and_leaves_nothing(tmp_path):
    folder = data_set(tmp_path / "in", a=np.eye(6, 8, dtype=np.int32))
    with pytest.raises(InputError, match="no --to yolo: choose one of nucleate, cellpose"):
        convert(folder, tmp_path / "out", "yolo")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(OutputError, match="full is there already"):
        convert(folder, tmp_path / "full", masks="labels")
    write_labels(folder / "masks/a.tif", np.eye(3, dtype=np.int32))
    with pytest.raises(DatasetError, match="is 3 x 3 pixels and its image 8 x 6"):
        convert(folder, tmp_path / "out", masks="labels")
    (folder / "masks/a.tif").write_bytes(b"II*\0")
    with pytest.raises(DatasetError, match=r"No image of .* can be read"):
        convert(folder, tmp_path / "out", masks="labels")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "in"]


@pytest.mark.parametrize("channels", [("grey",), ("red", "green", "blue"), ("DAPI", "GFP")])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_come_back_with_their_channels_and_sizes(tmp_path, channels, dtype):
    pixels = np.arange(5 * 6 * len(channels)).reshape(5, 6, -1).astype(dtype)
    write_image(tmp_path / "a.tif", Image("a", pixels, channels, 0.25))
    found = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.pixels.dtype == dtype and found.channels == channels and found.pixel_size == pytest.approx(0.25)
    theirs, expected = imread(tmp_path / "a.tif"), np.moveaxis(pixels, 2, 0) if len(channels) == 2 else pixels
    np.testing.assert_array_equal(theirs.squeeze(), expected.squeeze())
