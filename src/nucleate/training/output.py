"""The folder that a training writes its model to, alone or by several ranks, of which the first one writes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from nucleate.errors import ModelError, OutputError
from nucleate.networks import store
from nucleate.networks.manifest import Manifest
from nucleate.networks.runtime import device, prefers_bfloat16
from nucleate.parallel import Communicator
from nucleate.parallel.launch import done_by_living, require_same, require_shared
from nucleate.sentences import count
from nucleate.training.checkpoint import Checkpoint
from nucleate.training.config import TrainingConfig


def check_output(out: Path, *, resume: bool) -> None:
    """Refuse a folder that holds a model, or another run, or that can be none, before anything is read."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise OutputError(f"{out} cannot be written ({there} is a file): choose another --out.")
    if (out / store.MANIFEST).exists():
        raise ModelError(f"{out} already holds a finished model: choose another --out, or delete it first.")
    if Checkpoint(out).path.exists() and not resume:
        raise ModelError(f"{out} holds an unfinished run: resume it with --resume, or delete {Checkpoint(out).path}.")
    others = [] if Checkpoint(out).path.exists() else [out / name for name in store.FILES if (out / name).exists()]
    if others:
        raise OutputError(f"{others[0]} is there already and belongs to no model: choose another --out.")


def prepare_output(out: Path) -> None:
    """Make the model's folder, or say before anything is computed that it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}): choose another --out.") from error


def begin_together(ranks: Communicator, facts: Mapping[str, str], out: Path) -> tuple[Communicator, bool]:
    """The ranks that begin a run, once they have the same `facts` and see one folder; and rank 0's word on whether
    products are in bfloat16."""

    def begin(ranks: Communicator) -> bool:
        require_same(ranks, facts)
        ranks.by_first(partial(prepare_output, out))
        require_shared(ranks, out)
        return ranks.agree(prefers_bfloat16(device()))

    return done_by_living(ranks, begin)


def too_many_ranks(ranks: Communicator, config: TrainingConfig, what: str) -> str:
    """What to say where some ranks have no work."""
    return (
        f"{ranks.size} ranks share batches of {count(config.batch, what)}, so that only {config.batch} of them work: "
        "start no more, or give a larger --batch."
    )


def written_by_first(ranks: Communicator, finish: Callable[[], Manifest]) -> Manifest:
    """The manifest on every rank, of the model that the first one that lives wrote by `finish`."""
    manifest: Manifest | None = None

    def work(ranks: Communicator) -> Manifest:
        nonlocal manifest
        if ranks.rank == 0 and manifest is None:
            manifest = finish()
        ranks.barrier()  # polite, as choosing thresholds takes its time
        found = ranks.agree(None if manifest is None else manifest.model_dump_json())
        return manifest or Manifest.model_validate_json(found or "")

    return done_by_living(ranks, work)[1]
