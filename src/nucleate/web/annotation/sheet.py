"""What a person said of one tile: its labels, and the record of every stroke on disk."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import InputError
from nucleate.io import lines
from nucleate.types import Labels

KIND, VERSION = "nucleate annotation", 1

UNKNOWN = -1
"""The label of a pixel of which nothing was said."""

KEPT, KEPT_RUNS = 200, 100_000
"""Strokes of a tile, and their runs, that are in memory: to be undone after a page was loaded again, and for other
pages."""

TAB = 2**16
"""Each page numbers its new nuclei from a multiple of this, so that two pages never give one number to two nuclei."""

_HIGHEST = 2**31 - 1
_LONGEST = 2**16  # bytes of the first line


@dataclass(frozen=True, slots=True)
class Edit:
    """One stroke: the `name` by which the page knows it, the tool, and what became of which pixels.

    `runs` is (n, 3): the first pixel of a run in the order of rows, its length, its label. `before` is what these
    pixels were, in the same form.
    """

    name: str
    tool: str
    runs: NDArray[np.int64]
    before: NDArray[np.int64]

    def size(self) -> int:
        """How many runs it takes."""
        return len(self.runs) + len(self.before)

    def as_json(self) -> dict[str, Any]:
        runs, before = self.runs.reshape(-1).tolist(), self.before.reshape(-1).tolist()
        return {"name": self.name, "tool": self.tool, "runs": runs, "before": before}


class Sheet:
    """The labels of one tile, int32 (height, width), -1 unknown, 0 background, above 0 a nucleus each.

    Every stroke is appended to the file at `path` and forced to the disk before it counts, so that a crash at any
    moment leaves all strokes that were answered. `revision` is how many there are. A last line that is not whole is
    dropped.

    Raises `InputError` where the file is of another tile or cannot be understood.
    """

    def __init__(self, path: Path, about: dict[str, Any], shape: tuple[int, int]) -> None:
        self.path, self._about, self.shape = path, {"kind": KIND, "version": VERSION, **about}, shape
        self.labels: Labels = np.full(shape, UNKNOWN, dtype=np.int32)
        self.revision = self.tab = 0
        self.marks: list[dict[str, Any]] = []
        self._recent: deque[Edit] = deque()
        self._names: set[str] = set()
        self._begun = False
        for line in self._lines():
            self._take(line)

    @property
    def said(self) -> bool:
        """Whether anything is known of any pixel."""
        return bool((self.labels != UNKNOWN).any())

    def apply(self, name: str, tool: str, runs: Sequence[int]) -> None:
        """Make a stroke; one whose name is known already was made, and is not made again.

        Raises `InputError` for runs that are none of this tile, `OutputError` where it cannot be written.
        """
        if name in self._names:
            return
        checked = self._checked(runs)
        self._append({"name": name, "tool": tool, "runs": list(runs)})
        self._make(name, tool, checked)

    def since(self, revision: int) -> list[Edit] | None:
        """The strokes after this revision; None where they are not in memory."""
        count = self.revision - revision
        if not 0 <= count <= len(self._recent):
            return None
        return list(self._recent)[len(self._recent) - count :]

    def recent(self) -> list[Edit]:
        return list(self._recent)

    def mark(self, **what: Any) -> None:
        """Note something of the tile, on disk."""
        self._append(what)
        self.marks.append(what)

    def at(self, revision: int) -> Labels:
        """The labels as they were at a revision."""
        labels: Labels = np.full(self.shape, UNKNOWN, dtype=np.int32)
        count = 0
        for line in self._lines():
            if "runs" in line and count < revision:
                _write(labels, self._checked(line["runs"]))
                count += 1
        return labels

    def new_tab(self) -> int:
        """The number of a page that shows this tile; no other has had it."""
        self.tab += 1
        return self.tab

    def _make(self, name: str, tool: str, runs: NDArray[np.int64]) -> None:
        flat = self.labels.reshape(-1)
        before = [_runs_of(flat, start, length) for start, length, _ in runs.tolist()]
        self._recent.append(Edit(name, tool, runs, np.concatenate([*before, np.zeros((0, 3), np.int64)])))
        while len(self._recent) > KEPT or sum(map(Edit.size, self._recent)) > KEPT_RUNS:
            self._recent.popleft()
        _write(self.labels, runs)
        self._names.add(name)
        self.revision += 1
        self.tab = max(self.tab, int(runs[:, 2].max(initial=0)) // TAB)

    def _checked(self, runs: Sequence[int]) -> NDArray[np.int64]:
        try:
            checked = np.array(runs, dtype=np.int64).reshape(-1, 3)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{self.path.name} has a stroke that is no list of runs.") from error
        start, length, value = checked.T
        pixels = self.shape[0] * self.shape[1]
        inside = (start >= 0) & (length > 0) & (length <= pixels) & (start <= pixels - length)
        if not (inside & (value >= UNKNOWN) & (value <= _HIGHEST)).all():
            raise InputError(f"{self.path.name} has a stroke that reaches out of its tile.")
        return checked

    def _take(self, line: dict[str, Any]) -> None:
        try:
            if "runs" in line:
                self._make(str(line["name"]), str(line["tool"]), self._checked(line["runs"]))
            else:
                self.marks.append(line)
        except KeyError as error:
            raise self._fault(f"lacks {error}") from error

    def _lines(self) -> Iterator[dict[str, Any]]:
        """What the file holds after its first line."""
        try:
            texts = lines.read(self.path)
        except (OSError, UnicodeDecodeError) as error:
            raise self._fault(f"cannot be read ({error})") from error
        for number, text in enumerate(texts):
            try:
                line = json.loads(text)
            except ValueError as error:
                raise self._fault(f"is not JSON in line {number + 1}") from error
            if number == 0 and line != self._about:
                raise self._fault("is of another tile")
            self._begun = True
            if number:
                yield line

    def _fault(self, what: str) -> InputError:
        return InputError(f"{self.path} {what}: move it elsewhere to correct this tile anew.")

    def _append(self, line: dict[str, Any]) -> None:
        if not self._begun:
            lines.append(self.path, _text(self._about))
            self._begun = True
        lines.append(self.path, _text(line))


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":"))


def tile_of(path: Path) -> int:
    """The number of the tile that a file is of; raises `InputError` where it does not say."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.readline(_LONGEST))
        number = int(said["tile"])
        if said["kind"] == KIND and number >= 0:
            return number
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no record of strokes ({error}): move it elsewhere.") from error
    raise InputError(f"{path} is no record of strokes: move it elsewhere.")


def _write(labels: Labels, runs: NDArray[np.int64]) -> None:
    flat = labels.reshape(-1)
    for start, length, value in runs.tolist():
        flat[start : start + length] = value


def _runs_of(flat: NDArray[np.int32], start: int, length: int) -> NDArray[np.int64]:
    """A stretch of pixels as runs (n, 3) of equal labels."""
    part = flat[start : start + length]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(part)) + 1])
    lengths = np.diff(np.append(begins, length))
    return np.stack([begins + start, lengths, part[begins].astype(np.int64)], axis=1)
