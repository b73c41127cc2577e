"""The work folder of an unfinished run: what it was begun with, and whether it may be resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from nucleate.errors import ImageError, OutputError
from nucleate.inference.block_store import FolderBlockStore
from nucleate.io.atomic import write_json

BEGUN = "begun.json"

_WHOLE = 2**22  # bytes; a smaller file is read as a whole
_SAMPLES, _SAMPLE = 64, 2**16  # of a larger one so many parts of so many bytes


def work_folder(out: Path, name: str) -> Path:
    """Where the unfinished run of an image of this name lies."""
    return out / f".{name}.work"


def refuse_unfinished(out: Path, name: str) -> None:
    """Raise `OutputError` where there is an unfinished run."""
    folder = work_folder(out, name)
    if folder.exists():
        raise OutputError(f"{out} holds an unfinished run of {name}: continue it with --resume, or delete {folder}.")


def open_work(out: Path, name: str, identity: dict[str, Any]) -> FolderBlockStore:
    """The store of an image, new or resumed.

    Args:
        out: where the results go.
        name: of the image.
        identity: what the results depend on, for JSON.

    Raises:
        OutputError: where an unfinished run was begun with another image, model, engine or options.
    """
    folder = work_folder(out, name)
    begun = _begun(folder / BEGUN)
    identity = json.loads(json.dumps(identity))
    if begun is None:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / BEGUN, identity)
    elif begun != identity:
        other = next(key for key in (*identity, *begun) if identity.get(key) != begun.get(key))
        raise OutputError(
            f"{folder} was begun with another {other}: use the same, or delete that folder to begin anew."
        )
    return FolderBlockStore(folder)


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


def fingerprint(path: Path) -> str:
    """What tells an image file from another, or from what it was before: its size and 64 parts all over it, or all of
    a small one. A copy has the same. Of a folder, the names and sizes of what is directly in it and its metadata.

    Raises `ImageError` where it cannot be read.
    """
    found = hashlib.sha256()
    try:
        if path.is_dir():
            for one in sorted(path.iterdir()):
                found.update(f"{one.name} ".encode("utf-8", "surrogateescape"))
                if one.is_file() and one.stat().st_size < _WHOLE:
                    found.update(one.read_bytes())
            return found.hexdigest()
        size = path.stat().st_size
        found.update(str(size).encode())
        with path.open("rb") as file:
            if size <= _WHOLE:
                found.update(file.read())
            else:
                for part in range(_SAMPLES):
                    file.seek((size - _SAMPLE) * part // (_SAMPLES - 1))
                    found.update(file.read(_SAMPLE))
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist: check the path.") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}): check what it is and who may read it.") from error
    return found.hexdigest()
