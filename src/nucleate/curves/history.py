"""Read the history of a training run, anyone's: one row an epoch, as CSV with a head or as JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucleate.errors import InputError

COLUMNS = {
    "train": ("train", "train_loss", "loss"),
    "valid": ("valid", "valid_loss", "val_loss"),
    "test": ("test", "test_loss"),
    "score": ("score",),
}
"""What is read, and the names that a file may give it; the first two must be there."""


@dataclass(frozen=True, slots=True)
class History:
    """The curves of a run, a value an epoch: errors, lower is better, and a `score`, higher is better.

    `test` and `score` are empty where the file has none. Epochs count from 1; `first` is what the file calls the first.
    """

    name: str
    train: tuple[float, ...]
    valid: tuple[float, ...]
    test: tuple[float, ...] = ()
    score: tuple[float, ...] = ()
    first: int = 1


def read(path: Path) -> History:
    """Read a CSV file (the first line names the columns) or JSON lines, by its content; other columns are passed over.

    A model folder stands for the history in it. Epochs, where they are given, must rise by one; NaN and infinite
    values are read as such, JSON's null as NaN.

    Raises `InputError` for a file that cannot be read or understood, with the line and what it holds.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "run.csv"
    ...     _ = file.write_text("epoch,loss,val_loss\\n0,3,4\\n1,2,5\\n")
    ...     history = read(file)
    >>> history.train, history.valid, history.test, history.first
    ((3.0, 2.0), (4.0, 5.0), (), 0)
    """
    file = path / "history.jsonl" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no text: give a CSV file or JSON lines.") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): give a CSV file or JSON lines.") from error
    rows = list(_json_rows(file, text) if text.lstrip().startswith("{") else _csv_rows(file, text))
    if not rows:
        raise InputError(f"{file} holds no epoch: give one row an epoch, below a line that names the columns.")
    names = {column: _name(file, column, rows[0][1]) for column in COLUMNS}
    values = {
        column: tuple(_number(file, line, name, row.get(name, "")) for line, row in rows) if name else ()
        for column, name in names.items()
    }
    return History(file.name if path == file else path.name, **values, first=_first_epoch(file, rows))


def _json_rows(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.splitlines(), start=1):
        if content.strip():
            try:
                row = json.loads(content)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{file}, line {line}: {_quoted(content)} is not JSON; write one object a line."
                ) from error
            if not isinstance(row, dict):
                raise InputError(f"{file}, line {line}: {_quoted(content)} is not an object; write one object a line.")
            yield line, row


def _csv_rows(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = text.splitlines()
    separator = max(",;\t", key=lines[0].count) if lines else ","
    reader = csv.reader(lines, delimiter=separator)
    try:
        yield from _cells(file, reader)
    except csv.Error as error:
        raise InputError(
            f"{file}, line {reader.line_num}: {error}, so this is no table of numbers; give a CSV file or JSON lines."
        ) from error


def _cells(file: Path, reader: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    head = [name.strip() for name in next(reader, [])]
    for cells in reader:
        if any(cell.strip() for cell in cells):
            if len(cells) != len(head):
                raise InputError(
                    f"{file}, line {reader.line_num}: there are {len(cells)} values below {len(head)} names;"
                    " give each column its value."
                )
            yield reader.line_num, dict(zip(head, cells, strict=True))


def _name(file: Path, column: str, row: dict[str, Any]) -> str | None:
    """What the file calls a column: the first of its names that is there; None where it may be missing and is."""
    found = next((name for name in COLUMNS[column] if name in row), None)
    if found is None and column in ("train", "valid"):
        raise InputError(
            f"{file} has no column {' or '.join(COLUMNS[column])} but {_quoted(', '.join(row)) if row else 'none'};"
            f" name the one that holds the {'training' if column == 'train' else 'validation'} error {column}."
        )
    return found


def _number(file: Path, line: int, name: str, value: object) -> float:
    try:
        if value is None:
            return float("nan")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError
        return float(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{file}, line {line}: {name} is {_quoted(value)}; write a number.") from error


def _first_epoch(file: Path, rows: list[tuple[int, dict[str, Any]]]) -> int:
    if "epoch" not in rows[0][1]:
        return 1
    numbers = [_number(file, line, "epoch", row.get("epoch", "")) for line, row in rows]
    for (line, _), before, number in zip(rows[1:], numbers, numbers[1:], strict=False):
        if number != before + 1:
            raise InputError(
                f"{file}, line {line}: epoch {number:g} follows epoch {before:g}; give every epoch once, in order."
            )
    if numbers[0] not in (0, 1):
        raise InputError(f"{file}, line {rows[0][0]}: the first epoch is {numbers[0]:g}; give the run from its start.")
    return int(numbers[0])


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")
