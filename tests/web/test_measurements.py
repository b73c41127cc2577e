"""Rows by number, without reading the table."""

import numpy as np
import pytest

from nucleate.errors import InputError
from nucleate.io.formats import table
from nucleate.types import Nucleus
from nucleate.web import measurements
from nucleate.web.measurements import Measurements


@pytest.fixture
def path(tmp_path, memory_instances):
    rows = [Nucleus(number, 1.5 * number, 2.0, 9, 3.385, 7.25, 0.5) for number in range(1, 1001)]
    labels = np.arange(1001, dtype=np.int32)[None]
    table.write(tmp_path / "x.csv", memory_instances("x", labels, rows, pixel_size=0.5))
    return tmp_path / "x.csv"


@pytest.mark.parametrize("chunk", [7, 2**24])
def test_each_row_is_found(path, monkeypatch, chunk):
    monkeypatch.setattr(measurements, "_CHUNK", chunk)
    rows = Measurements(path)
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
