"""The table of an image: each nucleus has its row, and lists are sorted, filtered and cut into parts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import MemoryInstances

from nucleate.errors import InputError
from nucleate.io.formats import table
from nucleate.types import Nucleus
from nucleate.web import measurements
from nucleate.web.measurements import PART, Filter, Measurements


@pytest.fixture
def path(tmp_path):
    rows = [Nucleus(number, 1.5 * number, 2.0, 9, 3.385, 7.25, 0.5) for number in range(1, 1001)]
    labels = np.arange(1001, dtype=np.int32)[None]
    table.write(tmp_path / "x.csv", MemoryInstances("x", labels, rows, pixel_size=0.5))
    return tmp_path / "x.csv"


@pytest.mark.parametrize("chunk", [7, 2**24])
def test_each_row_is_found(path, chunk):
    rows = Measurements(path, chunk)
    for number in (1, 2, 9, 10, 500, 1000):
        row = rows.row(number)
        assert row["id"] == str(number) and float(row["y"]) == 1.5 * number and float(row["y_um"]) == 0.75 * number
        assert list(row) == [*table.COLUMNS, *table.MICROMETRES]


@pytest.mark.parametrize("number", [0, -1, 1001, 10**30])
def test_there_are_no_other_rows(path, number):
    with pytest.raises(InputError, match=f"no nucleus {number} in"):
        Measurements(path).row(number)


def test_a_table_that_was_changed_or_is_gone_is_named(path):
    rows = Measurements(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *lines[2:]]))
    with pytest.raises(InputError, match=r"x\.csv has something else than nucleus 1"):
        rows.row(1)
    path.unlink()
    with pytest.raises(InputError, match=r"x\.csv cannot be read \(No such file"):
        rows.row(1)
    with pytest.raises(InputError, match=r"x\.csv cannot be read"):
        Measurements(path).row(1)
    path.write_bytes(b"\xff\n\xff,1\n")
    with pytest.raises(InputError, match="something else"):
        Measurements(path).row(1)


VALUES = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, 0.0]))


@settings(max_examples=60)
@given(
    values=st.lists(VALUES, max_size=250),
    descending=st.booleans(),
    low=st.none() | st.floats(-1e6, 1e6),
    high=st.none() | st.floats(-1e6, 1e6),
)
def test_a_list_is_what_sorting_and_filtering_by_hand_gives(tmp_path_factory, values, descending, low, high):
    path = tmp_path_factory.mktemp("list") / "x.csv"
    path.write_text("id,area\n" + "".join(f"{number},{value}\n" for number, value in enumerate(values, 1)))
    rows, parts, start = Measurements(path), [], 0
    while (part := rows.listed("area", descending, Filter("area", low, high), start))["rows"]:
        assert part["columns"] == ["id", "area"] and len(part["rows"]) <= PART
        parts, start = parts + part["rows"], start + PART
    kept = [
        (number, value)
        for number, value in enumerate(values, 1)
        if (low is None or value >= low) and (high is None or value <= high)
    ]
    kept.sort(key=lambda row: (math.isnan(row[1]), -row[1] if descending else row[1]))
    assert part["found"] == len(kept)
    assert parts == [[number, value if math.isfinite(value) else None] for number, value in kept]


def test_what_cannot_be_listed_is_said(path, monkeypatch):
    rows = Measurements(path)
    assert rows.listed("id", False, Filter())["found"] == 1000
    for sort, column in (("colour", "id"), ("id", "colour")):
        with pytest.raises(InputError, match="no column colour: choose from id, y, x,"):
            rows.listed(sort, False, Filter(column))
    with monkeypatch.context() as patched:
        patched.setattr(measurements, "LISTED", 999)
        with pytest.raises(InputError, match="too long to be listed, with 1,000 nuclei of at most 999"):
            rows.listed("id", False, Filter())
    path.write_text("id,area\n1,large\n")
    with pytest.raises(InputError, match="no table of numbers any more"):
        Measurements(path).listed("id", False, Filter())
    path.write_text("")
    with pytest.raises(InputError, match="no column id"):
        Measurements(path).listed("id", False, Filter())


def test_a_table_that_was_altered_takes_little_memory(path, monkeypatch):
    path.write_text("id,area\n" + "1" * 200_000 + ",2\n")
    with pytest.raises(InputError, match="line of 200003 characters"):
        Measurements(path).row(1)
    path.write_text("id\rx,area\n1,2\n")
    with pytest.raises(InputError, match="something else than nucleus 1"):
        Measurements(path).row(1)
    monkeypatch.setattr(measurements, "_MOST", 10)
    path.write_text("\n" * 20)
    with pytest.raises(InputError, match="more than 10 lines"):
        Measurements(path).row(1)


def test_an_image_without_nuclei_has_an_empty_list(tmp_path):
    table.write(tmp_path / "x.csv", MemoryInstances("x", np.zeros((3, 3), np.int32), []))
    assert Measurements(tmp_path / "x.csv").listed("area", True, Filter("score", 0.5)) == {
        "columns": list(table.COLUMNS),
        "found": 0,
        "rows": [],
    }
