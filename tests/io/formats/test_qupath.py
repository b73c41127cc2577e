"""GeoJSON as QuPath exports it, made by shapely: nuclei, and what the classes of other objects say of them."""

import gzip
import json

import numpy as np
import pytest
import shapely
from shapely import affinity
from shapely.geometry import mapping

from nucleate.errors import ImageError
from nucleate.io.formats import qupath
from nucleate.io.label_file import read_label_file, read_labels

SHAPE = (40, 60)
Y, X = np.indices(SHAPE) + 0.5


def feature(geometry, name=None, kind="annotation", **more):
    properties = {"objectType": kind}
    if name is not None:
        properties["classification"] = {"name": name, "color": [200, 0, 0]}
    return {"type": "Feature", "id": "x", "geometry": {**mapping(geometry), **more}, "properties": properties}


def write(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def inside(geometry):
    return shapely.contains_xy(geometry, X, Y)


NUCLEUS = shapely.Point(12.3, 10.2).buffer(5.1)
HOLED = shapely.Point(30, 20).buffer(8).difference(shapely.Point(31, 20).buffer(3))
PIECES = shapely.MultiPolygon([shapely.box(44.2, 4, 48.1, 8), shapely.box(50, 5, 54, 9.6)])


def test_polygons_with_holes_and_several_pieces_are_those_of_shapely(tmp_path):
    path = write(tmp_path / "x.geojson", *map(feature, (NUCLEUS, HOLED, PIECES)))
    found = read_label_file(path, SHAPE)
    expected = inside(NUCLEUS) + 2 * inside(HOLED) + 3 * inside(PIECES)
    np.testing.assert_array_equal(found.labels, expected)
    assert found.notes == () and found.validation is None


def test_an_ellipse_is_one_again_and_a_rectangle_its_pixels(tmp_path):
    coarse = affinity.scale(shapely.Point(20, 15).buffer(1, quad_segs=4), 12, 7)
    path = write(tmp_path / "x.geojson", feature(coarse, isEllipse=True), feature(shapely.box(40, 20, 50, 30)))
    labels = read_labels(path, SHAPE)
    distance = ((X - 20) / 12) ** 2 + ((Y - 15) / 7) ** 2
    assert (labels[distance < 0.99] == 1).all() and not (labels[(distance > 1.001) & (X < 36)] == 1).any()
    assert (labels == 2).sum() == 100


@pytest.mark.parametrize("name", ["Training", "training", "Region*", "Region 2"])
def test_outside_what_was_labelled_all_is_unknown(tmp_path, name):
    region, beyond = shapely.box(5, 3, 35, 30), shapely.Point(50, 30).buffer(4)
    path = write(tmp_path / "x.geojson", feature(region, name), *map(feature, (NUCLEUS, HOLED, beyond)))
    labels = read_labels(path, SHAPE)
    assert (labels[~inside(region)] == -1).all()
    np.testing.assert_array_equal(labels[inside(region)], (inside(NUCLEUS) + 2 * inside(HOLED))[inside(region)])


def test_of_a_nucleus_that_lies_outside_for_the_larger_part_nothing_is_known(tmp_path):
    region, out, cut = shapely.box(0, 0, 20, 40), shapely.box(17, 2, 27, 8), shapely.box(11, 20, 25, 26)
    labels = read_labels(write(tmp_path / "x.geojson", feature(region, "Training"), feature(out), feature(cut)), SHAPE)
    assert (labels[inside(out)] == -1).all() and (labels[inside(cut) & inside(region)] == 2).all()
    assert (labels[~inside(region)] == -1).all() and (labels[inside(region) & ~inside(out) & ~inside(cut)] == 0).all()


def test_validation_rectangles_are_told(tmp_path):
    training, validation = shapely.box(0, 0, 30, 40), shapely.box(30, 0, 60, 40)
    across = shapely.box(28, 30, 36, 34)
    path = write(tmp_path / "x.geojson", feature(training, "Training"), feature(validation, "Validation"))
    assert read_label_file(path, SHAPE).validation.sum() == 30 * 40
    write(path, feature(training, "Training"), feature(validation, "Validation"), feature(across), feature(NUCLEUS))
    found = read_label_file(path, SHAPE)
    assert found.labels.min() == 0
    np.testing.assert_array_equal(found.validation, inside(validation) | inside(across))


def test_what_is_ignored_is_unknown(tmp_path):
    path = write(tmp_path / "x.geojson", feature(NUCLEUS), feature(shapely.box(10, 0, 20, 40), "Ignore*"))
    labels = read_labels(path, SHAPE)
    assert (labels[:, 10:20] == -1).all() and labels.max() == 1 and (labels[:, 20:] == 0).all()


def test_classes_are_read_as_versions_of_qupath_write_them(tmp_path):
    region = feature(shapely.box(0, 0, 20, 20))
    for value in ("Training", {"name": "Training", "colorRGB": -1}, {"names": ["Training"], "color": [1, 2, 3]}):
        region["properties"]["classification"] = value
        assert len(qupath.parse([region, feature(NUCLEUS)], tmp_path).training) == 1
    for value in (None, {}, {"names": []}, "Tumor", {"names": ["Tumor", "Positive"]}):
        region["properties"]["classification"] = value
        assert len(qupath.parse([region], tmp_path).nuclei) == 1


def test_detections_go_before_annotations_and_what_is_left_out_is_said(tmp_path):
    line = feature(shapely.LineString([(0, 0), (9, 9)]))
    parent = feature(shapely.box(0, 0, 60, 40))
    found = read_label_file(write(tmp_path / "x.geojson", parent, line, feature(NUCLEUS, kind="detection")), SHAPE)
    assert found.labels.max() == 1 and (found.labels > 0).sum() == inside(NUCLEUS).sum()
    assert "1 point or line is left out" in found.notes[0] and "1 annotation beside detections" in found.notes[1]


def test_it_may_be_packed_and_a_packed_bomb_is_refused(tmp_path, monkeypatch):
    plain = write(tmp_path / "x.geojson", feature(NUCLEUS))
    packed = tmp_path / "x.geojson.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    np.testing.assert_array_equal(read_labels(packed, SHAPE), read_labels(plain, SHAPE))
    packed.write_bytes(gzip.compress(plain.read_bytes())[:-9])
    with pytest.raises(ImageError, match="cannot be unpacked"):
        read_labels(packed, SHAPE)
    monkeypatch.setattr(qupath, "LARGEST", 10**5)
    packed.write_bytes(gzip.compress(b" " * 10**6))
    with pytest.raises(ImageError, match="unpacks to more than 100000 bytes"):
        read_labels(packed, SHAPE)


@pytest.mark.parametrize(
    "value", [[1], {"features": [1]}, [{"geometry": {"type": "Polygon"}}], [{"geometry": 3}], 3, None, "x"]
)
def test_what_is_no_geojson_is_named(tmp_path, value):
    with pytest.raises(ImageError, match=r"x\.geojson is no GeoJSON"):
        qupath.parse(value, tmp_path / "x.geojson")
