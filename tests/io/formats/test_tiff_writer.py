"""TIFF by pieces: the same file whatever the number of threads, and never far ahead of the one who writes."""

import threading

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.errors import OutputError
from nucleate.io.formats import tiff_writer
from nucleate.io.formats.tiff_writer import in_order


@given(items=st.lists(st.integers()), threads=st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_results_come_in_the_order_of_the_items(items, threads):
    assert list(in_order(lambda item: item + 1, items, threads)) == [item + 1 for item in items]


def test_no_more_than_two_items_a_thread_are_ahead():
    begun, lock = [], threading.Lock()

    def note(item):
        with lock:
            begun.append(item)
        return item

    for taken, _ in enumerate(in_order(note, range(100), 3), start=1):
        assert len(begun) <= taken + 2 * 3


def test_an_error_reaches_the_reader_and_ends_the_work():
    begun = []

    def fail(item):
        begun.append(item)
        if item == 5:
            raise OutputError("full")
        return item

    found = []
    with pytest.raises(OutputError, match="full"):
        found.extend(in_order(fail, range(1000), 2))
    assert found == [0, 1, 2, 3, 4] and len(begun) < 20


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.float32])
def test_the_same_file_for_any_number_of_threads(tmp_path, monkeypatch, tiled, dtype):
    monkeypatch.setattr(tiff_writer, "TILE", 16)
    monkeypatch.setattr(tiff_writer, "MANY", 2)
    image = np.random.default_rng(0).integers(0, 9, (75, 101)).astype(dtype)
    files = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(tiff_writer, "THREADS", threads)
        path = tmp_path / f"{threads}.tif"
        tiff_writer.write(
            path, image.shape, image.dtype, lambda box: image[box.y : box.bottom, box.x : box.right], tiled=tiled
        )
        np.testing.assert_array_equal(tifffile.imread(path), image)
        files.append(path.read_bytes())
    assert len(set(files)) == 1
