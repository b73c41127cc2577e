"""GeoJSON: what QuPath looks for is there, and the polygons drawn on the slide are the labels."""

import json
import uuid

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shapely.geometry import shape as geometry

from nucleate.io.formats import geojson

LABELS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 2))


def read(path):
    value = json.loads(path.read_bytes())
    assert value["type"] == "FeatureCollection"
    return value["features"]


@settings(deadline=None, max_examples=80)
@given(
    labels=LABELS,
    origin=st.tuples(st.integers(0, 10**5), st.integers(0, 10**5)),
    downsample=st.sampled_from([1.0, 4.0, 0.5, 4.000_312, 1.9953]),
)
def test_the_polygons_are_the_labels(tmp_path_factory, nuclei_of, labels, origin, downsample):
    path = tmp_path_factory.mktemp("geojson") / "x.geojson"
    nuclei = nuclei_of(labels, origin=origin, downsample=downsample)
    labels = nuclei.labels
    geojson.write(path, nuclei)
    y, x = ((place + 0.5 + begin) * downsample for place, begin in zip(np.indices(labels.shape), origin, strict=True))
    drawn = np.zeros_like(labels)
    features = read(path)
    for number, feature in enumerate(features, start=1):
        outline = geometry(feature["geometry"])
        assert outline.is_valid, shapely.is_valid_reason(outline)
        assert (outline.geom_type == "Polygon") == (feature["geometry"]["type"] == "Polygon")
        assert outline.area == pytest.approx((labels == number).sum() * downsample**2, rel=1e-2)
        drawn[shapely.contains_xy(outline, x, y)] += number
    np.testing.assert_array_equal(drawn, labels)
    assert len(features) == labels.max()


def test_a_detection_with_its_measurements(tmp_path, nuclei_of):
    nuclei = nuclei_of(np.ones((2, 3), np.int32), pixel_size=0.5, origin=(10, 20), entropy=True)
    geojson.write(tmp_path / "x.geojson", nuclei)
    (feature,) = read(tmp_path / "x.geojson")
    assert feature["type"] == "Feature" and uuid.UUID(feature["id"]).version == 5
    assert feature["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[20, 10], [23, 10], [23, 12], [20, 12], [20, 10]]],
    }
    assert feature["properties"] == {
        "objectType": "detection",
        "classification": {"name": "Nucleus", "color": [255, 221, 0]},
        "measurements": {
            "Area µm^2": 1.5,
            "Diameter µm": 1.382,
            "Mean intensity": 10.5,
            "Score": 0.75,
            "Entropy bits": 0.125,
        },
    }


def test_without_a_pixel_size_lengths_are_in_pixels(tmp_path, nuclei_of):
    geojson.write(tmp_path / "x.geojson", nuclei_of(np.ones((2, 3), np.int32)))
    (feature,) = read(tmp_path / "x.geojson")
    assert feature["properties"]["measurements"] == {
        "Area px^2": 6,
        "Diameter px": 2.764,
        "Mean intensity": 10.5,
        "Score": 0.75,
    }


def test_holes_are_inner_rings_and_pieces_are_polygons(tmp_path, nuclei_of):
    labels = np.zeros((5, 9), np.int32)
    labels[:3, :3], labels[1, 1] = 1, 0
    labels[0, 5], labels[1, 6] = 2, 2
    geojson.write(tmp_path / "x.geojson", nuclei_of(labels))
    ring, pair = (feature["geometry"] for feature in read(tmp_path / "x.geojson"))
    assert ring["type"] == "Polygon" and len(ring["coordinates"]) == 2
    assert pair["type"] == "MultiPolygon" and len(pair["coordinates"]) == 2
    # RFC 7946: outer rings are counterclockwise, holes clockwise.
    assert shapely.LinearRing(ring["coordinates"][0]).is_ccw and not shapely.LinearRing(ring["coordinates"][1]).is_ccw


def test_ids_are_the_same_each_time_and_differ_between_nuclei_regions_and_images(tmp_path, nuclei_of):
    labels = np.array([[1, 0, 2]], np.int32)

    def ids(**options):
        geojson.write(tmp_path / "x.geojson", nuclei_of(labels, **options))
        return [feature["id"] for feature in read(tmp_path / "x.geojson")]

    assert ids() == ids()
    every = [*ids(), *ids(name="other"), *ids(origin=(0, 1)), *ids(downsample=2.0)]
    assert len(set(every)) == 8
