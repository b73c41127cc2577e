"""The work folder of an unfinished run: what it was begun with, and whether it may be resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from nucleate.errors import ImageError, OutputError
from nucleate.inference.block_store import FolderBlockStore
from nucleate.io.atomic import write_json
from nucleate.io.digest import digest_of
from nucleate.parallel import Communicator, SingleProcess

PATIENCE = 60.0
"""Seconds that a rank waits for what another one has written."""

BEGUN, WRITING = "begun.json", "writing"


def work_folder(out: Path, name: str) -> Path:
    """Where the unfinished run of an image of this name lies."""
    return out / f".{name}.work"


def is_unfinished(place: Path) -> bool:
    """Whether there is a run to resume of the image whose results lie at this place, without their endings."""
    return (work_folder(place.parent, place.name) / BEGUN).exists()


def refuse_unfinished(out: Path, name: str) -> None:
    """Raise `OutputError` where there is an unfinished run."""
    if is_unfinished(out / name):
        folder = work_folder(out, name)
        raise OutputError(f"{out} holds an unfinished run of {name}: continue it with --resume, or delete {folder}.")


def begin_writing(out: Path, name: str) -> None:
    """Note that results of this image are being written: what lies under their names from now on is the program's own,
    until a record says so."""
    folder = work_folder(out, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WRITING).touch()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}): choose another --out.") from error


def is_writing(out: Path, name: str) -> bool:
    """Whether a run ended while it wrote the results of this image."""
    return (work_folder(out, name) / WRITING).exists()


def end_work(out: Path, name: str) -> None:
    """Remove the work folder, as all results are written; the note of that last, so that this can be repeated."""
    folder = work_folder(out, name)
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != WRITING:
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def open_work(out: Path, name: str, identity: dict[str, Any], ranks: Communicator | None = None) -> FolderBlockStore:
    """The store of an image, new or resumed.

    Args:
        out: where the results go.
        name: of the image.
        identity: what the results depend on, for JSON.
        ranks: the processes that share the work; the first one makes the folder.

    Raises:
        OutputError: where an unfinished run was begun with another image, model, engine or options.
    """
    folder, ranks = work_folder(out, name), ranks or SingleProcess()
    ranks.by_first(partial(_begin, folder, json.loads(json.dumps(identity))))
    return FolderBlockStore(folder, patience=PATIENCE if ranks.size > 1 else 0.0)


def _begin(folder: Path, identity: dict[str, Any]) -> None:
    begun = _begun(folder / BEGUN)
    if begun is None:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / BEGUN, identity)
    elif begun != identity:
        other = next(key for key in (*identity, *begun) if identity.get(key) != begun.get(key))
        raise OutputError(
            f"{folder} was begun with another {other}: use the same, or delete that folder to begin anew."
        )


def _begun(path: Path) -> dict[str, Any] | None:
    """What a run was begun with; None where that is not known, and what was computed is of no use."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def digest(identity: dict[str, Any]) -> str:
    """An identity as one short text."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def written_digest(path: Path) -> str:
    """The digest of a result, by which it is known that it is still as it was written."""
    try:
        return digest_of(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be read again ({error.strerror}): was its disk removed?") from error


def fingerprint(path: Path) -> str:
    """What tells an image from another, or from what it was before: the digest of all bytes of its file, or of all
    files of its folder but the labels of an OME-Zarr, which prediction may write. A copy has the same. Raises
    `ImageError` where it cannot be read."""
    try:
        return digest_of(path, without="labels")
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist: check the path.") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}): check what it is and who may read it.") from error
