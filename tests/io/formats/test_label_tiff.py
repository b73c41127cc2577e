"""Label TIFFs: read back by others they are the labels, in strips and in tiles."""

import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from nucleate.io import tiff
from nucleate.io.formats import label_tiff, tiff_writer
from nucleate.io.label_file import read_labels
from nucleate.types import Box

LABELS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 9))


@settings(deadline=None, max_examples=60)
@given(labels=LABELS, stripped=st.sampled_from([8, 4096]))
def test_labels_round_trip(tmp_path_factory, nuclei_of, labels, stripped):
    path = tmp_path_factory.mktemp("labels") / "x.tif"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_tiff, "STRIPPED", stripped)
        patch.setattr(tiff_writer, "TILE", 16)
        nuclei = nuclei_of(labels)
        label_tiff.write(path, nuclei)
    np.testing.assert_array_equal(read_labels(path), nuclei.labels)
    np.testing.assert_array_equal(tifffile.imread(path), nuclei.labels)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.is_tiled == (max(labels.shape) > stripped)
        assert not page.is_tiled or page.tile == (16, 16)
        for place, size in zip(page.dataoffsets, page.databytecounts, strict=True) if page.is_tiled else ():
            assert len(zlib.decompress(path.read_bytes()[place : place + size])) == 16 * 16 * 2  # also at the border
        assert page.compression == 8 and page.dtype == np.uint16 and file.series[0].axes == "YX"


def test_other_readers_open_it(tmp_path, nuclei_of):
    labels = np.arange(600 * 10, dtype=np.int32).reshape(600, 10) // 100
    label_tiff.write(tmp_path / "x.tif", nuclei_of(labels))
    with Image.open(tmp_path / "x.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), labels)


@pytest.mark.parametrize(("count", "dtype"), [(0, np.uint16), (65535, np.uint16), (65536, np.uint32)])
def test_the_type_follows_from_the_count(tmp_path, field, count, dtype):
    nuclei = field(2, 2)
    nuclei.count = count
    label_tiff.write(tmp_path / "x.tif", nuclei)
    assert tifffile.imread(tmp_path / "x.tif").dtype == dtype


@pytest.mark.parametrize("size", [None, 0.2504, 1 / 3, 5.0])
def test_the_pixel_size_is_in_the_file(tmp_path, nuclei_of, size):
    label_tiff.write(tmp_path / "x.tif", nuclei_of(np.eye(3, dtype=np.int32), pixel_size=size))
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        found = tiff.pixel_size(file, file.pages[0])
    assert found == (None if size is None else pytest.approx(size, rel=1e-6))


def test_a_large_image_is_tiled_and_a_very_large_one_a_big_tiff(tmp_path, field, monkeypatch):
    nuclei = field(1, 103)  # 40 x 4120 pixels
    label_tiff.write(tmp_path / "x.tif", nuclei)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        assert file.pages[0].tile == (512, 512) and not file.is_bigtiff
    narrow = np.dtype(np.uint16)
    assert not tiff_writer.is_big((46_000, 46_000), narrow) and tiff_writer.is_big((46_500, 46_500), narrow)
    assert tiff_writer.is_big((33_000, 33_000), np.dtype(np.uint32))
    monkeypatch.setattr(tiff_writer, "is_big", lambda *_: True)
    label_tiff.write(tmp_path / "x.tif", nuclei)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.asarray(), nuclei.read(Box(0, 0, *nuclei.shape)))
