"""The table of one image: the measurements of one nucleus, and those of many, sorted and filtered."""

from __future__ import annotations

import csv
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import InputError

LISTED = 200_000
"""Nuclei; a longer table is not listed, as sorting it would keep a person waiting."""

PART = 100
"""Rows of the list that are sent at once."""

_CHUNK = 2**24  # bytes of a table read at once
_LONGEST = 2**16  # bytes of a line
_LARGEST = 2**26  # bytes of a table that is listed
_MOST = 2**24  # lines of a table


@dataclass(frozen=True, slots=True)
class Filter:
    """Nuclei whose value in `column` is at least `low` and at most `high`, where these are given."""

    column: str = "id"
    low: float | None = None
    high: float | None = None

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        kept = np.ones(values.shape, dtype=np.bool_)
        if self.low is not None:
            kept &= values >= self.low
        if self.high is not None:
            kept &= values <= self.high
        return kept


class Measurements:
    """The table in a CSV file whose row n is nucleus n. Only the places of the rows are in memory, and, once they are
    asked for as a list, the values. May be used from several threads at once."""

    def __init__(self, path: Path, chunk: int = _CHUNK) -> None:
        self.path, self._chunk = path, chunk
        self._starts: NDArray[np.int64] | None = None
        self._size = 0
        self._values: NDArray[np.float64] | None = None
        self._lock = threading.RLock()

    def row(self, number: int) -> dict[str, str]:
        """The measurements of a nucleus, by column.

        Raises `InputError` where the table has no such nucleus or cannot be read.
        """
        if not 1 <= number <= self._count():
            raise InputError(f"There is no nucleus {number} in {self.path}.")
        columns, values = self._read(0), self._read(number)
        row = dict(zip(columns, values, strict=False))
        if len(columns) != len(values) or row.get("id") != str(number):
            raise InputError(f"{self.path} has something else than nucleus {number} in its row: predict again.")
        return row

    def listed(self, sort: str, descending: bool, keep: Filter, start: int = 0) -> dict[str, Any]:
        """A part of the nuclei that a filter keeps, from the one at `start` of them in the order of a column.

        Returns:
            For JSON: `columns`, their names; `found`, how many nuclei are kept; `rows`, up to `PART` of them, a value
            a column, None where it is no number.

        Raises:
            InputError: the table has no such column, is too long to be listed or holds something else than numbers.
        """
        if self._count() > LISTED or self._size > _LARGEST:
            raise InputError(
                f"{self.path} is too long to be listed, with {self._count():,} nuclei of at most {LISTED:,}: ask for"
                " a nucleus by its number, or open the file in a spreadsheet."
            )
        columns, values = self._read(0), self._table()
        for name in (sort, keep.column):
            if name not in columns:
                raise InputError(f"{self.path} has no column {name}: choose from {', '.join(columns)}.")
        rows = values[keep(values[:, columns.index(keep.column)])]
        keys = rows[:, columns.index(sort)]
        rows = rows[np.argsort(-keys if descending else keys, kind="stable")]
        part = [[value if np.isfinite(value) else None for value in row] for row in rows[start : start + PART].tolist()]
        return {"columns": columns, "found": len(rows), "rows": part}

    def _count(self) -> int:
        """How many nuclei the table has."""
        with self._lock:
            if self._starts is None:
                try:
                    self._starts = self._find_rows()
                except OSError as error:
                    raise self._unreadable(error) from error
            return max(0, len(self._starts) - 2)

    def _table(self) -> NDArray[np.float64]:
        """All values (nuclei, columns)."""
        with self._lock:
            if self._values is None:
                columns, count = self._read(0), self._count()
                try:
                    read = np.loadtxt(self.path, delimiter=",", skiprows=1, ndmin=2, encoding="utf-8") if count else ()
                    self._values = np.reshape(read, (count, len(columns)))
                except OSError as error:
                    raise self._unreadable(error) from error
                except ValueError as error:
                    raise InputError(f"{self.path} is no table of numbers any more: predict again.") from error
            return self._values

    def _unreadable(self, error: OSError) -> InputError:
        return InputError(f"{self.path} cannot be read ({error.strerror}): run nucleate predict again.")

    def _find_rows(self) -> NDArray[np.int64]:
        """Where each line begins, and where the last one ends."""
        found, at, lines = [np.zeros(1, dtype=np.int64)], 0, 0
        with self.path.open("rb") as file:
            while chunk := file.read(self._chunk):
                found.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + at + 1)
                at, lines = at + len(chunk), lines + len(found[-1])
                if lines > _MOST:
                    raise InputError(f"{self.path} has more than {_MOST:,} lines: run nucleate predict again.")
        self._size = at
        return np.concatenate(found)

    def _read(self, line: int) -> list[str]:
        self._count()
        assert self._starts is not None  # found by counting
        begin, end = self._starts[line : line + 2] if len(self._starts) > line + 1 else (0, 0)
        if end - begin > _LONGEST:
            raise InputError(f"{self.path} has a line of {end - begin} characters: run nucleate predict again.")
        try:
            with self.path.open("rb") as file:
                file.seek(begin)
                text = file.read(end - begin).decode("utf-8", "replace")
        except OSError as error:
            raise self._unreadable(error) from error
        with suppress(csv.Error):
            return next(csv.reader([text.rstrip("\n")]), [])
        return []
