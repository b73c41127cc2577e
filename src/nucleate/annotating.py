"""What `nucleate annotate` puts together: a model that learns, and the images of a folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from nucleate.errors import NucleateWarning
from nucleate.networks.store import MANIFEST, locate
from nucleate.training.copying import copied
from nucleate.training.online import OnlineLearner
from nucleate.web.annotation.guesses import Order, checked
from nucleate.web.annotation.learner import Input
from nucleate.web.annotation.worker import step_back
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
        model: a model folder; or the name of an embedded model, which needs `out`, as it is never changed.
        folder: of images.
        out: a folder where a copy of the model learns, the one that is there already if it is.
        order, seed, channel: as in `Workplace`.

    Raises `ModelError`, `DatasetError` and `OutputError` where one of them cannot be used.
    """
    wanted: Order = checked(order)
    learning = learning_folder(model, out)
    # Its threads compute what the page must not wait for.
    with ThreadPoolExecutor(1, initializer=step_back) as behind:
        opened = behind.submit(OnlineLearner.open, learning, warn=_warn).result()
    with opened as learner:
        learner.catch_up()
        manifest = learner.model.manifest
        takes = Input(learner.model.normalisation, manifest.architecture.channels, tuple(manifest.data.channels))
        work = Workplace(folder, learner, takes, learning / STORE, order=wanted, seed=seed, channel=channel)
        try:
            yield work
        finally:
            work.close()


def _warn(sentence: str) -> None:
    warnings.warn(NucleateWarning(sentence), stacklevel=2)


def learning_folder(model: str, out: Path | None) -> Path:
    """The folder of a model that is to learn: its own, or that of a copy at `out`, made where it is missing.

    Raises `ModelError` where there is no such model.
    """
    if out is None:
        return locate(model)
    return out if (out / MANIFEST).is_file() else copied(model, out)
