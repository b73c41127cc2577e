"""Labels that are written come back equal from every format that holds them, and what is broken gets a sentence."""

import contextlib
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from roifile import ROI_TYPE, ImagejRoi

from nucleate.errors import ImageError
from nucleate.io.formats import FORMATS
from nucleate.io.label_file import read_labels
from nucleate.io.prediction_json import PredictionRecord, record_file, write_record

LABELS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 4))
KINDS = ("tif", "zarr", "geojson", "roi")
PLACES = st.fixed_dictionaries(
    {
        "origin": st.tuples(st.integers(0, 10**5), st.integers(0, 10**5)),
        "downsample": st.sampled_from([1.0, 4.0, 0.5, 4.000_312, 1.9953]),
    }
)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(labels=LABELS)
def test_written_labels_come_back(tmp_path_factory, nuclei_of, kind, labels):
    nuclei = nuclei_of(labels)
    path = tmp_path_factory.mktemp("trip") / FORMATS[kind].file("cells")
    FORMATS[kind].write(path, nuclei)
    found = read_labels(path, nuclei.shape)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, nuclei.labels)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(labels=LABELS, place=PLACES)
def test_a_region_of_a_slide_comes_back_where_its_record_is_beside_it(tmp_path_factory, nuclei_of, kind, labels, place):
    nuclei = nuclei_of(labels, **place)
    folder = tmp_path_factory.mktemp("trip")
    path = folder / FORMATS[kind].file("cells")
    FORMATS[kind].write(path, nuclei)
    write_record(folder / record_file("cells"), PredictionRecord.of(nuclei, folder / "cells.svs", 0, {kind: path.name}))
    np.testing.assert_array_equal(read_labels(path), nuclei.labels)


@pytest.mark.parametrize("kind", ["geojson", "roi"])
def test_outlines_alone_reach_as_far_as_they_do(tmp_path, nuclei_of, kind):
    labels = np.zeros((9, 12), np.int32)
    labels[2:4, 3:8], labels[5:7, 1:4] = 1, 2
    FORMATS[kind].write(tmp_path / "x", nuclei_of(labels))
    np.testing.assert_array_equal(read_labels(tmp_path / "x"), labels[:7, :8])
    np.testing.assert_array_equal(read_labels(tmp_path / "x", (4, 20)), np.pad(labels, ((0, 0), (0, 8)))[:4])


def features(*geometries, kind="annotation"):
    return [{"type": "Feature", "geometry": one, "properties": {"objectType": kind}} for one in geometries]


SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]]}
OTHER = {"type": "Polygon", "coordinates": [[[3, 0], [5, 0], [5, 2], [3, 2], [3, 0]]]}
AROUND = {"type": "Polygon", "coordinates": [[[0, 0], [6, 0], [6, 3], [0, 3], [0, 0]]]}
POINT = {"type": "Point", "coordinates": [1, 1]}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (features(SQUARE, POINT, OTHER), [[1, 1, 0, 2, 2, 0]]),
        (features(AROUND) + features(OTHER, SQUARE, kind="detection"), [[2, 2, 0, 1, 1, 0]]),
        ([{**features(AROUND, kind="cell")[0], "nucleusGeometry": SQUARE}], [[1, 1, 0, 0, 0, 0]]),
    ],
    ids=["annotations", "detections in an annotation", "the nucleus of a cell"],
)
def test_what_qupath_exports(tmp_path, found, expected):
    for value in (found, {"type": "FeatureCollection", "features": found}):
        (tmp_path / "x.geojson").write_text(json.dumps(value))
        assert read_labels(tmp_path / "x.geojson", (1, 6)).tolist() == expected


def test_what_imagej_draws(tmp_path):
    polygon = ImagejRoi.frompoints([[1.2, 1.2], [3.7, 1.2], [3.7, 2.7], [1.2, 2.7]])
    rectangle = ImagejRoi(roitype=ROI_TYPE.RECT, top=0, left=5, bottom=2, right=7)
    point = ImagejRoi.frompoints([[1, 1]])
    point.roitype = ROI_TYPE.POINT
    with zipfile.ZipFile(tmp_path / "x_rois.zip", "w") as archive:
        for number, one in enumerate((polygon, point, rectangle)):
            archive.writestr(f"{number:04}-0001.roi", one.tobytes())
    assert read_labels(tmp_path / "x_rois.zip", (3, 8)).tolist() == [
        [0, 0, 0, 0, 0, 2, 2, 0],
        [0, 1, 1, 1, 0, 2, 2, 0],
        [0, 1, 1, 1, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"type": "FeatureCollection"}', "is no GeoJSON"),
        (b'{"kind": "nucleate prediction"}', "is no GeoJSON"),
        (b"[{]", "is no GeoJSON"),
        (b"[" * 10**5, "is no GeoJSON"),
        (b'[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, "x"]]]}}]', "is no GeoJSON"),
        (b'[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, NaN], [1, 1]]]}}]', "is no GeoJSON"),
        (b'[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1e9, 0], [1, 1e9]]]}}]', "above the limit"),
        (b"PK\3\4 and no more", "is no ZIP of ImageJ regions"),
    ],
)
def test_what_is_broken_is_refused(tmp_path, content, says):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ImageError, match=rf"x .*{says}|x {says}") as caught:
        read_labels(tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"notes", b"Iout" + b"\xff" * 60, b""])
def test_an_archive_of_something_else(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.roi" if content else "a.txt", content)
    with pytest.raises(ImageError, match="is no ZIP of ImageJ regions"):
        read_labels(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", ["geojson", "roi"])
@settings(deadline=None, max_examples=60)
@given(changes=st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path_factory, nuclei_of, kind, changes):
    path = tmp_path_factory.mktemp("damaged") / "x"
    FORMATS[kind].write(path, nuclei_of(np.kron(np.eye(3, dtype=np.int32), np.ones((2, 2), np.int32))))
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    path.write_bytes(data)
    with contextlib.suppress(ImageError):
        read_labels(path, (6, 6))
