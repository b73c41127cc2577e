"""The table: every value as it was measured, in pixels and micrometres of the whole level."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.io.formats import table
from nucleate.types import Nucleus

PIXELS = ["id", "y", "x", "area", "diameter", "mean_intensity", "score"]
NUMBER = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, rows


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 10**9), NUMBER, NUMBER, st.integers(1, 10**9), FINITE, FINITE, st.floats(0, 1)),
        max_size=5,
    )
)
def test_values_are_read_back_exactly(tmp_path_factory, memory_instances, rows):
    path = tmp_path_factory.mktemp("table") / "x.csv"
    labels = np.arange(len(rows) + 1, dtype=np.int32)[None]
    table.write(path, memory_instances("x", labels, [Nucleus(*row) for row in rows]))
    header, found = read(path)
    assert header == PIXELS == list(table.COLUMNS)
    kinds = (int, float, float, int, float, float, float)
    assert [tuple(kind(cell) for kind, cell in zip(kinds, row, strict=True)) for row in found] == rows


def test_micrometres_follow_where_the_pixel_size_is_known(tmp_path, nuclei_of):
    labels = np.zeros((9, 9), np.int32)
    labels[2:4, 3:8] = 1
    table.write(tmp_path / "x.csv", nuclei_of(labels, pixel_size=0.25))
    header, (row,) = read(tmp_path / "x.csv")
    assert header == [*PIXELS, "y_um", "x_um", "area_um2", "diameter_um"]
    assert row == ["1", "2.5", "5.0", "10", "3.568", "10.5", "0.75", "0.625", "1.25", "0.625", "0.892"]


def test_a_region_counts_from_the_whole_level(tmp_path, nuclei_of):
    labels = np.array([[0, 1, 1, 1]], np.int32)
    table.write(tmp_path / "x.csv", nuclei_of(labels, origin=(100_000, 7), pixel_size=0.5))
    _, (row,) = read(tmp_path / "x.csv")
    assert row[1:3] == ["100000.0", "9.0"] and row[7:9] == ["50000.0", "4.5"]


@pytest.mark.parametrize("size", [None, 0.5])
def test_entropy_comes_last_where_it_was_asked_for(tmp_path, nuclei_of, size):
    table.write(tmp_path / "x.csv", nuclei_of(np.eye(2, dtype=np.int32), pixel_size=size, entropy=True))
    header, (row,) = read(tmp_path / "x.csv")
    assert header[-1] == "entropy" and row[-1] == "0.125" and len(header) == len(row) == (8 if size is None else 12)


def test_lines_end_as_on_unix(tmp_path, nuclei_of):
    table.write(tmp_path / "x.csv", nuclei_of(np.eye(2, dtype=np.int32)))
    assert (tmp_path / "x.csv").read_bytes().count(b"\n") == 2 and b"\r" not in (tmp_path / "x.csv").read_bytes()
