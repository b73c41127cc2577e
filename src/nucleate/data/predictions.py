"""What `nucleate predict` left in a folder and in those below it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from nucleate.data.dataset import images_in
from nucleate.errors import InputError, NucleateError

GIVE = "give the --out of nucleate predict"
RESUME = "the same nucleate predict command with --resume continues an interrupted run"

_DEEPEST = 4  # folders within folders
_NAMED = 5  # names in a sentence


def contents_of(folder: Path) -> tuple[list[Path], list[str]]:
    """The JSON files that may be records, sorted, and the names of the images whose run is not finished."""

    def refuse(error: OSError) -> None:
        if error.filename == os.fspath(folder):
            raise InputError(f"{folder} cannot be read ({error.strerror}): {GIVE}.") from error

    records, unfinished = [], []
    for place, folders, files in os.walk(folder, onerror=refuse):
        within = Path(place).relative_to(folder)
        unfinished += [
            (within / one[1:-5]).as_posix() for one in folders if one.startswith(".") and one.endswith(".work")
        ]
        deep = len(within.parts) >= _DEEPEST
        folders[:] = [] if deep else [one for one in folders if not one.startswith(".") and not one.endswith(".zarr")]
        records += [path for one in files if one.endswith(".json") and (path := Path(place, one)).is_file()]
    return sorted(records), sorted(unfinished)


def without_result(done: set[Path]) -> list[str]:
    """A sentence for each folder with images that were segmented and images that were not."""
    sentences = []
    for folder in sorted({image.parent for image in done}):
        with suppress(NucleateError, OSError):
            images = images_in([folder])
            left = [image.name for image in images if image.resolve() not in done]
            if left:
                sentences.append(
                    f"{len(left)} of {len(images)} images in {folder} have no result here: {some(left)}; {RESUME}."
                )
    return sentences


def some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
