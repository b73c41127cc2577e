"""The results of all planes of a stack together: one stack of labels, and one table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nucleate.errors import OutputError
from nucleate.inference.request import Request
from nucleate.inference.sources import Source
from nucleate.inference.summary import Failed, ImageResult
from nucleate.io.atomic import write_json, write_text
from nucleate.io.formats import FORMATS, label_stack
from nucleate.io.label_file import read_labels
from nucleate.io.prediction_json import read_record, record_file

KIND = "nucleate stack of labels"
"""Under `kind` in NAME.json of a stack."""

TOGETHER = ("tif", "csv")
"""The formats in which a stack has one file; of the others each plane has its own."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The planes of one stack, each segmented as an image of its own, in the order T, Z; and the `name` of their
    results together."""

    name: str
    planes: tuple[Source, ...]

    @property
    def axes(self) -> dict[str, int]:
        """The axes of the stack and their lengths: T, Z or both."""
        ts = {one.plane.t for one in self.planes if one.plane.t is not None}
        zs = {one.plane.z for one in self.planes if isinstance(one.plane.z, int)}
        lengths = {"T": len(ts), "Z": len(zs)}
        return {axis: length for axis, length in lengths.items() if length > 1}

    def files(self, formats: Sequence[str]) -> dict[str, str]:
        """The files of the stack, by format."""
        stem = self.name.rpartition("/")[2]
        return {name: FORMATS[name].file(stem) for name in TOGETHER if name in formats}

    def record(self, out: Path) -> Path:
        """What tells of the stack."""
        return out / f"{self.name}.json"


def stacks_of(sources: Sequence[Source]) -> list[Stack]:
    """The stacks of which each plane is segmented."""
    found: dict[str, list[Source]] = {}
    for source in sources:
        if source.stack is not None:
            found.setdefault(source.stack, []).append(source)
    return [Stack(name, tuple(planes)) for name, planes in found.items()]


def refuse_others(stacks: Sequence[Stack], out: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` where the files of a stack would replace what no earlier run wrote."""
    for stack in stacks:
        record = stack.record(out)
        ours = {record.name, *_written(record)}
        for name in () if overwrite else (record.name, *stack.files(TOGETHER).values()):
            place = record.with_name(name)
            if (place.exists() and name not in ours) or (name == record.name and place.exists() and len(ours) == 1):
                raise OutputError(
                    f"{place} is there already and is not what nucleate predict wrote of this stack: choose another"
                    " --out, or replace it with --overwrite."
                )


def _written(record: Path) -> list[str]:
    """The files that an earlier run wrote of a stack."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return list(found["files"].values()) if found["kind"] == KIND else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def write_stacks(stacks: Sequence[Stack], results: Mapping[str, ImageResult], out: Path, request: Request) -> None:
    """Write the files of each stack whose planes are all segmented, and NAME.json, which names its axes and files."""
    for stack in stacks:
        counts = [one.count for source in stack.planes if not isinstance(one := results[source.name], Failed)]
        if len(counts) < len(stack.planes):
            continue
        record, files = stack.record(out), stack.files(request.formats)
        if "tif" in files:
            first = read_record(out / record_file(stack.planes[0].name))
            size = None if first is None else first.pixel_size
            labels = (read_labels(_file(one, "tif", out)) for one in stack.planes)
            label_stack.write(record.with_name(files["tif"]), labels, stack.axes, max(counts), size)
        if "csv" in files:
            write_text(record.with_name(files["csv"]), "".join(_table(stack, out)))
        write_json(
            record,
            {
                "kind": KIND,
                "image": str(stack.planes[0].path.resolve()),
                "axes": {**stack.axes, "Y": None, "X": None},
                "numbers": "from 1 in each plane; nothing is linked between planes",
                "planes": [record_file(one.name) for one in stack.planes],
                "files": files,
            },
        )


def _file(source: Source, name: str, out: Path) -> Path:
    return source.folder(out) / FORMATS[name].file(source.stem)


def _table(stack: Stack, out: Path) -> Iterator[str]:
    """The rows of all planes, with the numbers of frame and plane, from 1, before each."""
    names = [axis.lower() for axis in stack.axes]
    head: list[str] = []
    for source in stack.planes:
        with _file(source, "csv", out).open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        here = {"t": source.plane.t, "z": source.plane.z}
        if not head:
            head = rows[0]
            yield _line([*names, *head])
        yield from (_line([*(str(here[name]) for name in names), *row]) for row in rows[1:])


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
