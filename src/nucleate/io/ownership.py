"""Files that a command is to write and that are there already: what Nucleate wrote before may be replaced."""

from __future__ import annotations

import os
from pathlib import Path

from nucleate.errors import OutputError

_READ = 2**16  # bytes at each end of a file, where formats say what wrote it


def refuse_replacing(path: Path, mark: bytes | None, *, overwrite: bool = False) -> None:
    """Raise `OutputError` where a file is in the way that does not hold `mark`, as those of Nucleate do, at its
    beginning or its end, unless it is to be replaced all the same; None where no file does. An empty one is nobody's.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     notes = Path(folder) / "notes.json"
    ...     refuse_replacing(notes, b"nucleate")
    ...     _ = notes.write_text("mine")
    ...     try:
    ...         refuse_replacing(notes, b"nucleate")
    ...     except OutputError as error:
    ...         print(str(error).replace(folder, "DIR"))
    DIR/notes.json is there already and nucleate did not write it: choose another name, or replace it with --overwrite.
    """
    if overwrite or not path.is_file():
        return
    try:
        with path.open("rb") as file:
            ends = [file.read(_READ)]
            file.seek(max(0, file.seek(0, os.SEEK_END) - _READ))
            ends.append(file.read())
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}): choose another name.") from error
    if ends[0] and (mark is None or not any(mark in end for end in ends)):
        raise OutputError(
            f"{path} is there already and nucleate did not write it: choose another name, or replace it with"
            " --overwrite."
        )
