"""Learning from the images without labels, too: from a folder to a model in two stages.

`pseudo` (self-training; Lee, 2013): a teacher learns from the labels; when it is finished, what it says of the other
images is half of each batch of a student, which starts from the teacher. `pretrain`: the network first learns from all
images without labels (`training.pretrain`), and then from the labels.

The first stage is kept in the folder STAGE of the model until the second is finished, so that a run can be resumed at
any moment of either.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from nucleate.errors import InputError, ModelError
from nucleate.inference.backends import TorchBackend
from nucleate.networks import store
from nucleate.networks.manifest import Manifest
from nucleate.parallel import Communicator, SingleProcess
from nucleate.sentences import count
from nucleate.training import pseudo_labels
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import Phase, fit, load_labelled
from nucleate.training.output import check_output
from nucleate.training.pretrain import pretrain, run_config

Unlabelled = Literal["no", "pretrain", "pseudo"]
"""What is done with the images that have no labels."""

CHOICES: tuple[Unlabelled, ...] = ("no", "pretrain", "pseudo")

STAGE = ".first-stage"
"""Below the model's folder."""

LABELS = "pseudo_labels.safetensors"

SHARES = {"pseudo": 0.6, "pretrain": 0.375}
"""The part of the minutes, or of the epochs, that the first stage takes."""


def chosen(text: str) -> Unlabelled:
    """The choice that a text names.

    Raises:
        InputError: it names none.
    """
    for one in CHOICES:
        if text == one:
            return one
    raise InputError(f"--unlabelled is {text!r}: choose one of {', '.join(CHOICES)}.")


def train_in_stages(
    folder: Path,
    out: Path,
    config: TrainingConfig,
    how: Unlabelled,
    *,
    resume: bool = False,
    phase: Phase | None = None,
    ranks: Communicator | None = None,
    parent: Path | None = None,
    **options: Any,
) -> Manifest:
    """Train on a folder whose images are labelled in part.

    Args:
        folder, out, config, resume, phase, ranks, parent, options: as of `fit.fit`; `parent` is what the first stage
            starts from.
        how: what is done with the images without labels; see above.

    Raises:
        NucleateError: as of `fit.fit`; or no image is without labels.
    """
    ranks, told = ranks or SingleProcess(), phase or (lambda _: None)
    if how == "no":
        return fit(folder, out, config, resume=resume, phase=phase, ranks=ranks, parent=parent, **options)
    begun = (out / STAGE).exists()
    check_output(out, resume=resume or begun)
    if begun and not resume:
        raise ModelError(f"{out} holds an unfinished run: resume it with --resume, or delete {out}.")
    channel, warn = options.get("channel"), options.get("warn")
    stage, first, second = out / STAGE, *_shared(config, SHARES[how])
    common: dict[str, Any] = {"channel": channel, "phase": phase, "ranks": ranks, "warn": warn, "parent": parent}
    common["name"] = f"{out.name} (first stage)"
    # Read before anything is trained: what cannot be used is said at once.
    masks, corrections = options.get("masks", "auto"), options.get("corrections")
    channels = load_labelled(folder, options.get("validation"), channel, masks, corrections).channels
    images, left_out = pseudo_labels.unlabelled_images(folder, channel, channels)
    if not (stage / store.MANIFEST).exists():
        again = (stage / store.UNFINISHED).exists()
        if how == "pretrain":
            told(f"first stage: pre-training, with {count(len(images), 'image')} without labels among others")
            mine = run_config(seed=config.seed, minutes=first.minutes, epochs=first.epochs)
            pretrain(folder, stage, mine, resume=again, observe=options.get("observe"), **common)
        else:
            told("first stage: from the labels")
            fit(folder, stage, first, resume=again, **common, **_without(options, "channel", "warn", "extra_files"))
    labelled: list[pseudo_labels.PseudoLabelled] = []
    if how == "pseudo":
        told(f"labelling {count(len(images), 'image')}")
        of = {"images": pseudo_labels.digest(images), "model": store.read_manifest(stage).weights_sha256}
        ranks.by_first(partial(_label, stage, images, of))
        labelled = pseudo_labels.read(stage / LABELS, images, of)
        if warn is not None and ranks.rank == 0:
            for sentence in left_out:
                warn(sentence)
    told("second stage")
    # A resumed run may have ended within either stage.
    again = resume and (out / store.UNFINISHED).exists()
    manifest = fit(
        folder,
        out,
        second,
        resume=again,
        phase=phase,
        ranks=ranks,
        parent=stage,
        pseudo=labelled,
        **options,
    )
    ranks.by_first(partial(shutil.rmtree, stage))
    return manifest


def _label(stage: Path, images: list[Any], of: dict[str, str]) -> None:
    """Write the labels that the finished teacher gives, once."""
    if (stage / LABELS).exists():
        return
    teacher = store.read(stage)
    engine = TorchBackend(teacher.network, bfloat16=False)
    found = [pseudo_labels.pseudo_labels(engine, teacher.thresholds, image) for image in images]
    pseudo_labels.write(stage / LABELS, found, of)


def _shared(config: TrainingConfig, share: float) -> tuple[TrainingConfig, TrainingConfig]:
    """The limits of the two stages; a run without a limit has none in either."""
    minutes, epochs = config.minutes, config.epochs
    ahead = None if epochs is None else max(1, round(share * epochs))
    first = replace(config, minutes=None if minutes is None else share * minutes, epochs=ahead)
    left = None if epochs is None or ahead is None else max(1, epochs - ahead)
    second = replace(config, minutes=None if minutes is None else (1 - share) * minutes, epochs=left)
    return first, second


def _without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}
