"""What `nucleate annotate` puts together: a model that learns, and the images of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nucleate.errors import ModelError
from nucleate.io.atomic import atomic_folder
from nucleate.networks.store import EMBEDDED, MANIFEST, is_hidden, locate
from nucleate.training.online import OnlineLearner
from nucleate.web.annotation.guesses import Order, checked
from nucleate.web.annotation.learner import Input
from nucleate.web.annotation.workplace import STORE, Workplace


@contextmanager
def annotating(
    model: str,
    folder: Path,
    out: Path | None = None,
    *,
    order: str = "entropy",
    seed: int = 0,
    channel: str | None = None,
) -> Iterator[Workplace]:
    """The images of a folder to be corrected, with a model that learns from it as long as the block lasts.

    Args:
        model: a model folder; or an embedded model, a copy of which learns in `out`.
        folder: of images.
        out: see above.
        order, seed, channel: as in `Workplace`.

    Raises `ModelError`, `DatasetError` and `OutputError` where one of them cannot be used.
    """
    wanted: Order = checked(order)
    learning = learning_folder(model, out)
    with OnlineLearner.open(learning) as learner:
        learner.catch_up()
        manifest = learner.model.manifest
        takes = Input(learner.model.normalisation, manifest.architecture.channels, tuple(manifest.data.channels))
        work = Workplace(folder, learner, takes, learning / STORE, order=wanted, seed=seed, channel=channel)
        try:
            yield work
        finally:
            work.close()


def learning_folder(model: str, out: Path | None) -> Path:
    """The folder of a model that may learn: itself, or the copy of an embedded one at `out`, made where it is missing.

    Raises `ModelError` where an embedded model has no `out`, and a model folder has one.
    """
    embedded = model in EMBEDDED and not is_hidden(model)
    if not embedded:
        if out is not None:
            raise ModelError(f"{model} learns itself: leave out --out, which is for a copy of {' or '.join(EMBEDDED)}.")
        return Path(model)
    if out is None:
        raise ModelError(
            f"{model} belongs to the package and is never changed: say with --out where a copy should learn."
        )
    if not (out / MANIFEST).is_file():
        source = locate(model)
        with atomic_folder(out, holds=MANIFEST) as copy:
            for file in source.iterdir():
                if file.is_file():
                    (copy / file.name).write_bytes(file.read_bytes())
    return out
