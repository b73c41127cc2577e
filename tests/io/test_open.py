"""Any image to its reader: by what is in it; threads see the same pixels; cut and deleted files get a sentence."""

from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import tifffile

from nucleate.errors import ImageError
from nucleate.io.open import open_reader
from nucleate.io.reader import MemoryReader
from nucleate.io.tiff_reader import TiffReader

PIXELS = np.random.default_rng(2).integers(0, 255, (90, 70, 3), dtype=np.uint8)


def test_the_kind_is_what_is_in_the_file(tmp_path):
    tifffile.imwrite(tmp_path / "a.png", PIXELS, tile=(16, 16), photometric="rgb")
    (tmp_path / "b.tif").write_bytes(imagecodecs.png_encode(PIXELS))
    for name, kind in (("a.png", TiffReader), ("b.tif", MemoryReader)):
        with open_reader(tmp_path / name) as reader:
            assert type(reader) is kind
            np.testing.assert_array_equal(reader.read(reader.box), PIXELS)
        with pytest.raises(ImageError, match="has no level 1"):
            open_reader(tmp_path / name, 1)


@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"rowsperstrip": 3}, {"compression": None}])
def test_threads_read_the_same(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", **{"compression": "zlib", **options})
    with open_reader(tmp_path / "a.tif") as reader, ThreadPoolExecutor(8) as threads:
        boxes = [*reader.pieces(300)] * 3
        for box, found in zip(boxes, threads.map(reader.read, boxes), strict=True):
            np.testing.assert_array_equal(found, PIXELS[box.within(reader.box)])


@pytest.mark.parametrize("name", ["missing.tif", "folder", "notes.tif"])
def test_what_is_no_image(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.tif").write_text("notes")
    with pytest.raises(ImageError, match=name):
        open_reader(tmp_path / name)


def test_a_file_that_is_cut_short_at_once_or_midway(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, tile=(16, 16), photometric="rgb")
    data = path.read_bytes()
    with open_reader(path) as reader:
        with path.open("r+b") as file:
            file.truncate(len(data) // 2)
        with pytest.raises(ImageError, match="ended while it was read"):
            reader.read(reader.box)
    with pytest.raises(ImageError, match="is cut off"):
        open_reader(path)
