"""ImageJ ROIs, read back by roifile: filled, they are the labels."""

import zipfile

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from roifile import ROI_TYPE, ImagejRoi, roiread

from nucleate.io.formats import imagej_roi

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)).filter(np.any)


def filled(roi, shape, origin):
    """The pixels whose middle lies inside an odd number of the ROI's rings, as ImageJ fills a path."""
    y, x = (place + 0.5 + begin for place, begin in zip(np.indices(shape), origin, strict=True))
    inside = np.zeros(shape, bool)
    for ring in roi.coordinates(multi=True):
        inside ^= shapely.contains_xy(shapely.Polygon(ring), x, y)
    return inside


@settings(deadline=None, max_examples=80)
@given(
    mask=MASKS,
    origin=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)) | st.tuples(st.just(60_530), st.just(32_764)),
)
@example(mask=np.ones((3, 3), bool), origin=(40_000, 60_532))
@example(mask=np.ones((3, 3), bool), origin=(40_000, 60_533))
@example(mask=np.ones((3, 3), bool), origin=(150_000, 0))
def test_filled_they_are_the_labels(tmp_path_factory, nuclei_of, mask, origin):
    path = tmp_path_factory.mktemp("roi") / "x.zip"
    imagej_roi.write(path, nuclei_of(mask.astype(np.int32), origin=origin))
    (roi,) = roiread(path)
    np.testing.assert_array_equal(filled(roi, mask.shape, origin), mask)


def test_a_plain_nucleus_is_a_polygon_of_whole_coordinates(tmp_path, nuclei_of):
    labels = np.zeros((9, 9), np.int32)
    labels[2:4, 3:8], labels[5:8, 1:4] = 1, 2
    imagej_roi.write(tmp_path / "x.zip", nuclei_of(labels, origin=(100, 200)))
    first, second = roiread(tmp_path / "x.zip")
    assert first.roitype == ROI_TYPE.TRACED and not first.subpixelresolution
    assert (first.left, first.top, first.right, first.bottom) == (203, 102, 208, 104)
    assert first.coordinates().tolist() == [[203, 102], [208, 102], [208, 104], [203, 104]]
    assert (first.name, second.name) == ("1", "2")


@pytest.mark.parametrize(
    "rows", [["###", "#.#", "###"], ["#.#"], ["#.", ".#"]], ids=["hole", "two pieces", "two that meet in a corner"]
)
def test_what_has_several_rings_is_composite(tmp_path, nuclei_of, rows):
    mask = np.array([[character == "#" for character in row] for row in rows])
    imagej_roi.write(tmp_path / "x.zip", nuclei_of(mask.astype(np.int32)))
    (roi,) = roiread(tmp_path / "x.zip")
    assert roi.composite and roi.roitype == ROI_TYPE.RECT and len(roi.coordinates(multi=True)) == 2
    np.testing.assert_array_equal(filled(roi, mask.shape, (0, 0)), mask)


def test_members_are_named_by_number_in_order(tmp_path, field):
    imagej_roi.write(tmp_path / "x.zip", field(3, 5))
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() == [f"{number}.roi" for number in range(1, 16)]
        assert ImagejRoi.frombytes(archive.read("7.roi")).name == "7"
        assert archive.testzip() is None
