"""Rows of a table of nuclei by their number, however long the table is."""

from __future__ import annotations

import csv
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import InputError

_CHUNK = 2**24  # bytes read at once


class Measurements:
    """The table in a CSV file whose row n is nucleus n. Only the places of the rows are in memory, found on first use.

    May be used from several threads at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts: NDArray[np.int64] | None = None
        self._lock = threading.Lock()

    def row(self, number: int) -> dict[str, str]:
        """The measurements of a nucleus, by column.

        Raises `InputError` where the table has no such nucleus or cannot be read.
        """
        try:
            with self._lock:
                if self._starts is None:
                    self._starts = self._find_rows()
            if not 1 <= number < len(self._starts) - 1:
                raise InputError(f"There is no nucleus {number} in {self.path}.")
            columns, values = self._read(0), self._read(number)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error.strerror}): run nucleate predict again.") from error
        row = dict(zip(columns, values, strict=False))
        if len(columns) != len(values) or row.get("id") != str(number):
            raise InputError(f"{self.path} has something else than nucleus {number} in its row: predict again.")
        return row

    def _find_rows(self) -> NDArray[np.int64]:
        """Where each line begins, and where the last one ends."""
        found, at = [np.zeros(1, dtype=np.int64)], 0
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + at + 1)
                at += len(chunk)
        return np.concatenate(found)

    def _read(self, line: int) -> list[str]:
        assert self._starts is not None  # found before
        begin, end = self._starts[line : line + 2]
        with self.path.open("rb") as file:
            file.seek(begin)
            text = file.read(end - begin).decode("utf-8", "replace")
        return next(csv.reader([text.rstrip("\n")]), [])
