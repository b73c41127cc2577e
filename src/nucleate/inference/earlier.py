"""What lies in the folder of results before a run: what a run wrote may be replaced, what a person made may not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nucleate.errors import InputError, OutputError
from nucleate.inference.resume import is_writing, work_folder
from nucleate.inference.sources import Source
from nucleate.io.digest import digest_of
from nucleate.io.prediction_json import PredictionRecord, read_record, record_file

LONGEST_NAME = 255
"""Bytes; the file systems in use have no longer names."""

_MEND = "choose another --out, or replace it with --overwrite"


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier run left of one image in `folder`: its `record`, and the formats whose files are `intact`, which
    is to say as they were written; `changed` are those that are there and are not."""

    folder: Path
    record: PredictionRecord | None = None
    intact: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, source: Source, out: Path) -> Earlier:
        folder = source.folder(out)
        record = None
        with suppress(InputError):
            record = read_record(folder / record_file(source.stem))
        if record is None:
            return cls(folder)
        writing = is_writing(folder, source.stem)
        same = {name: _is_same(folder / file, record.digests.get(name)) for name, file in record.files.items()}
        return cls(
            folder,
            record,
            frozenset(name for name, one in same.items() if one),
            frozenset(name for name, one in same.items() if one is False and name in record.digests and not writing),
        )

    def is_finished(self, identity: str, wanted: Mapping[str, str]) -> bool:
        """Whether all that is wanted is there, as it was written for the same image, model and options."""
        return (
            self.record is not None
            and self.record.identity == identity
            and wanted.items() <= self.record.files.items()
            and self.intact >= wanted.keys()
        )

    def valid_beside(self, identity: str, written: Mapping[str, str]) -> dict[str, str]:
        """The files of other formats that show the same nuclei as those that are written now."""
        if self.record is None or self.record.identity != identity:
            return {}
        return {name: file for name, file in self.record.files.items() if name in self.intact and name not in written}

    def remove_others(self, kept: Mapping[str, str]) -> list[str]:
        """Remove the files of other nuclei that the earlier run wrote, and give their names."""
        files = {} if self.record is None else self.record.files
        old = [file for name, file in files.items() if name in self.intact and file not in kept.values()]
        for file in old:
            _remove(self.folder / file)
        return old

    def set_aside(self, written: Mapping[str, str]) -> list[str]:
        """Give another name to those files in the way that were changed since; a sentence for each."""
        files = {} if self.record is None else self.record.files
        sentences = []
        for path in (self.folder / file for name, file in files.items() if name in self.changed):
            if path.name not in written.values() or (path.is_file() and path.stat().st_size == 0):
                continue
            kept = next(place for place in _backups(path) if not os.path.lexists(place))
            try:
                path.rename(kept)
            except OSError as error:
                raise OutputError(f"{path} cannot be renamed ({error.strerror}): choose another --out.") from error
            sentences.append(f"{path} was changed since it was written: what it was is in {kept.name}.")
        return sentences


def _are_two(one: Path, other: Path) -> bool:
    """Whether both are there, and are two files."""
    try:
        return not one.samefile(other)
    except OSError:
        return False


def _backups(path: Path) -> Iterable[Path]:
    yield path.with_name(f"{path.name}.bak")
    number = 2
    while True:
        yield path.with_name(f"{path.name}.bak{number}")
        number += 1


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_same(path: Path, digest: str | None) -> bool | None:
    """Whether a file has this digest; None where it is not there."""
    try:
        return digest_of(path) == digest if path.exists() else None
    except OSError:
        return False


def examine(
    files: Mapping[Source, Sequence[str]], out: Path, images: Iterable[Path], *, resume: bool, overwrite: bool
) -> dict[str, Earlier]:
    """What earlier runs left of each image, by its name, once it is sure that nothing else is in the way.

    Args:
        files: for each image the names of the files that are to be written of it.
        out: the folder of the results.
        images: the files of all images that were given.
        resume: whether files of an earlier run that were changed since are to be written again.
        overwrite: whether anything but the images may be replaced.

    Raises:
        OutputError: where a result would replace an image, or what it may not.
    """
    inodes = {(about.st_dev, about.st_ino) for one in images if (about := _about(one)) is not None}
    found = {}
    for source, names in files.items():
        earlier = Earlier.of(source, out)
        for path in (earlier.folder / name for name in names):
            about = _about(path)
            if about is not None and (about.st_dev, about.st_ino) in inodes:
                raise OutputError(
                    f"{path} is one of the images, and the result of {source.path} would replace it: choose another"
                    " --out."
                )
        if overwrite:
            earlier = replace(earlier, changed=frozenset())
        elif not is_writing(earlier.folder, source.stem):  # else they are what a run wrote that was ended there
            _refuse_others(source, names, earlier, resume)
        found[source.name] = earlier
    return found


def _about(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None  # what is wrong with an image is said where it is opened


def _refuse_others(source: Source, names: Iterable[str], earlier: Earlier, resume: bool) -> None:
    """Raise where a result would replace what no run wrote, what was changed since, or that of another image."""
    record = earlier.record
    ours = {} if record is None else {file: name for name, file in record.files.items()}
    if record is not None:
        ours[record_file(source.stem)] = "record"
        before = record.locate(earlier.folder)
        if _are_two(before, source.path):
            raise OutputError(
                f"{earlier.folder / record_file(source.stem)} belongs to the results of another image, {before}:"
                f" {_MEND}."
            )
    for path in (earlier.folder / name for name in names):
        if not os.path.lexists(path):
            continue
        if path.name not in ours:
            raise OutputError(f"{path} is there already and is no result of nucleate predict: {_MEND}.")
        if ours[path.name] in earlier.changed and not resume:
            raise OutputError(f"{path} was changed since nucleate predict wrote it: {_MEND}.")


def too_long_name(source: Source, files: Iterable[str]) -> str | None:
    """A sentence where a result of an image would have a name that no file can have."""
    longest = max((*files, work_folder(Path(), source.stem).name), key=_bytes)
    if _bytes(longest) <= LONGEST_NAME:
        return None
    return (
        f"{source.path} has so long a name that its results cannot bear it ({longest} has {_bytes(longest)} bytes, and"
        f" {LONGEST_NAME} are possible): give it a shorter one."
    )


def _bytes(name: str) -> int:
    return len(os.fsencode(name))
