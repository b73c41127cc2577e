"""A copy of a model folder, which may learn on-line."""

from __future__ import annotations

import shutil
from pathlib import Path

from nucleate.errors import ModelError, OutputError
from nucleate.io.atomic import atomic_folder
from nucleate.networks import store
from nucleate.sentences import command


def copied(model: str, out: Path) -> Path:
    """Copy a model, a folder or an embedded one by its name, to the new folder `out`; corrections come along.

    Raises:
        ModelError: there is no such model, or `out` holds one already.
    """
    source = store.locate(model)
    store.read(source)
    if (out / store.MANIFEST).exists():
        raise ModelError(f"{out} already holds a model: let it learn, with {command('learn', out)} and no --out.")
    if out.resolve().is_relative_to(source.resolve()):
        raise OutputError(f"{out} lies in the model that is copied: choose another --out.")
    with atomic_folder(out, holds=store.MANIFEST) as passing:
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.name != "lock":
                target = passing / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    return out
