"""COCO files are what pycocotools writes and reads: run lengths bit for bit, polygons but for pixels at the edge."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.io.formats.test_qupath import HOLED, NUCLEUS, SHAPE, inside

from nucleate.errors import ImageError
from nucleate.io.formats import coco, rle
from nucleate.io.label_file import read_label_file, read_labels

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
LABELS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-1, 4))


def flat(runs, height, width):
    mask = np.zeros(height * width, bool)
    mask[rle.decode(runs, height, width)] = True
    return mask.reshape(height, width)


@pytest.fixture(scope="module")
def masks():
    """The masks of pycocotools, which asks numpy for a copy in a way that is going out of use."""
    return pytest.importorskip("pycocotools.mask")


decoded = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def plain(mask):
    """Runs by the definition: down the columns, one pixel after the other."""
    runs, value = [0], False
    for one in mask.T.ravel():
        if one != value:
            runs.append(0)
            value = one
        runs[-1] += 1
    return runs


@settings(max_examples=200)
@given(MASKS)
def test_runs_are_those_of_the_definition_and_come_back(mask):
    runs = plain(mask)
    if mask.any():
        assert rle.encode(np.flatnonzero(mask.T), mask.size) == runs
    np.testing.assert_array_equal(flat(runs, *mask.shape), mask)
    np.testing.assert_array_equal(flat(rle.pack(runs), *mask.shape), mask)


@settings(max_examples=100)
@given(mask=MASKS.filter(np.any))
def test_packed_runs_are_those_of_pycocotools(masks, mask):
    theirs = masks.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert rle.pack(rle.encode(np.flatnonzero(mask.T), mask.size)).encode() == theirs
    np.testing.assert_array_equal(flat(theirs, *mask.shape), mask)


@given(st.text("0123456789:;<=>?@ABCdklmno~ é", max_size=30))
def test_runs_of_anything_are_read_or_refused(counts):
    with contextlib.suppress(ValueError):
        assert rle.decode(counts, 3, 5).size <= 15


def write(path, annotations, **image):
    entry = {"id": 7, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1], **image}
    path.write_text(json.dumps({"images": [entry], "annotations": [{"image_id": 7, **one} for one in annotations]}))
    return path


def polygon(geometry):
    return np.asarray(geometry.exterior.coords).ravel().tolist()


@decoded
def test_polygons_are_filled_and_crowds_are_unknown(tmp_path, masks):
    crowd = masks.encode(np.asfortranarray((np.indices(SHAPE)[1] > 50).astype(np.uint8)))
    annotations = [
        {"segmentation": [polygon(NUCLEUS)], "iscrowd": 0},
        {"segmentation": {"size": list(SHAPE), "counts": plain(inside(HOLED))}, "iscrowd": 0},
        {"segmentation": {"size": list(SHAPE), "counts": crowd["counts"].decode()}, "iscrowd": 1},
    ]
    labels = read_labels(write(tmp_path / "x.json", annotations), SHAPE)
    np.testing.assert_array_equal(labels == 1, inside(NUCLEUS))
    np.testing.assert_array_equal(labels == 2, inside(HOLED))
    assert (labels[:, 51:] == -1).all() and (labels[:, :51] >= 0).all()
    theirs = masks.decode(masks.frPyObjects([polygon(NUCLEUS)], *SHAPE))[..., 0] > 0
    assert np.count_nonzero(theirs != (labels == 1)) < 25  # it rounds corners to a fifth of a pixel, and draws the edge


def test_several_polygons_of_one_annotation_are_one_nucleus_also_where_they_overlap(tmp_path):
    pieces = [[2, 2, 8, 2, 8, 8, 2, 8], [6, 6, 12, 6, 12, 12, 6, 12]]
    found = read_label_file(write(tmp_path / "x.json", [{"segmentation": pieces}]), SHAPE)
    assert (found.labels == 1).sum() == 36 + 36 - 4 and found.notes == ()


@decoded
@settings(max_examples=60)
@given(labels=LABELS)
def test_what_is_written_comes_back_and_is_what_pycocotools_reads(masks, labels):
    height, width = labels.shape
    entries = coco.entry(labels, 1, 1)
    image = {"id": 1, "file_name": "a.png", "height": height, "width": width}
    file = coco.parse({"images": [image], "annotations": entries}, None)
    found, notes = coco.paint(file, "a.png", labels.shape)
    values = np.unique(labels[labels > 0])
    np.testing.assert_array_equal(found, np.where(labels < 0, -1, np.searchsorted(values, labels) + 1) * (labels != 0))
    assert notes == ()
    for one, value in zip(entries, [*values, -1], strict=False):
        mask = masks.decode(one["segmentation"])
        np.testing.assert_array_equal(mask, labels == value)
        assert (
            masks.area(one["segmentation"]) == one["area"] and masks.toBbox(one["segmentation"]).tolist() == one["bbox"]
        )


@pytest.mark.parametrize(
    ("annotation", "image", "says"),
    [
        ({"segmentation": [[1, 2, 3]]}, {}, "broken annotation of a.png"),
        ({"segmentation": [["x", 2]]}, {}, "broken annotation of a.png"),
        ({"segmentation": {"size": [3, 3], "counts": [9]}}, {}, "broken annotation of a.png"),
        ({"segmentation": {"size": [40, 60], "counts": [9]}}, {}, "broken annotation of a.png"),
        ({}, {}, "broken annotation of a.png"),
        ({"segmentation": []}, {"height": 30}, "a.png is 60 x 30 pixels, and it is 60 x 40"),
        ({"segmentation": []}, {"height": None}, "broken annotation of a.png"),
    ],
)
def test_what_is_broken_is_named(tmp_path, annotation, image, says):
    with pytest.raises(ImageError, match=says):
        read_labels(write(tmp_path / "x.json", [annotation], **image), SHAPE)


@pytest.mark.parametrize(
    "images", [[{"id": 1}], [{"file_name": "a"}], [{"id": 1, "file_name": "a"}] * 2, [3], [{"id": 1, "file_name": ""}]]
)
def test_what_is_no_coco_is_named(tmp_path, images):
    (tmp_path / "x.json").write_text(json.dumps({"images": images, "annotations": []}))
    with pytest.raises(ImageError, match="is no COCO file"):
        coco.load(tmp_path / "x.json")


def test_an_image_is_found_by_its_name_and_its_folders(tmp_path):
    names = ["one/a.png", "two/a.png", "b.png", "c.jpg"]
    images = [{"id": number, "file_name": name, "height": 2, "width": 2} for number, name in enumerate(names)]
    file = coco.parse({"images": images, "annotations": []}, tmp_path)
    assert file.of(tmp_path / "two/a.png") == "two/a.png" and file.of(tmp_path / "three/a.png") is None
    assert file.of(tmp_path / "images/b.png") == "b.png" and file.of(tmp_path / "c.tif") == "c.jpg"
    (tmp_path / "x.json").write_text(json.dumps({"images": images, "annotations": []}))
    with pytest.raises(ImageError, match=r"holds the nuclei of 4 images and none, or several, called z\.png"):
        read_label_file(tmp_path / "x.json", (2, 2), image=tmp_path / "z.png")
    with pytest.raises(ImageError, match="4 images: nucleate convert"):
        read_labels(tmp_path / "x.json")
