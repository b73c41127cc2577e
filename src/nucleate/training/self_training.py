"""Learning from images without labels, and from those of a former training, too: from a folder to a model in stages.

`pseudo` (self-training; Lee, 2013): a teacher learns from the labels; when it is finished, what it says of the other
images is half of each batch of a student, which starts from the teacher. `pretrain`: the network first learns from all
images without labels (`training.pretrain`), and then from the labels. `auto`: as `pseudo`, but where there is no image
without labels there is one stage, and where the finished teacher misses too much (`choice.may_teach`) the second stage
goes on with the labels alone.

`replay` is a folder of labelled images from which the model that training starts from has learnt. Half of each batch is
drawn from them, so that it does not forget them (experience replay; Robins, 1995).

The first stage is kept in the folder STAGE of the model until the second is finished, so that a run can be resumed at
any moment of either.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from nucleate.data.dataset import find
from nucleate.data.inspect import labelled
from nucleate.data.masks import Masks
from nucleate.data.normalization import normalise
from nucleate.errors import InputError, ModelError
from nucleate.inference.backends import TorchBackend
from nucleate.io.digest import digest_of_arrays
from nucleate.io.stack import Choice
from nucleate.networks import store
from nucleate.networks.manifest import Manifest
from nucleate.parallel import Communicator, SingleProcess
from nucleate.sentences import count
from nucleate.training import pseudo_labels
from nucleate.training.choice import choose_start, may_teach
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import Phase, fit, load_labelled
from nucleate.training.journal import corrections_of
from nucleate.training.output import check_output
from nucleate.training.pretrain import pretrain, run_config
from nucleate.training.pseudo_labels import PseudoLabelled

Unlabelled = Literal["no", "pretrain", "pseudo", "auto"]
"""What is done with the images that have no labels."""

CHOICES: tuple[Unlabelled, ...] = ("no", "pretrain", "pseudo", "auto")

STAGE = ".first-stage"
"""Below the model's folder."""

LABELS = "pseudo_labels.safetensors"

SHARES = {"pseudo": 0.6, "auto": 0.6, "pretrain": 0.375}
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
    parent: Path | Literal["auto"] | None = None,
    replay: Path | None = None,
    **options: Any,
) -> Manifest:
    """Train on a folder whose images are labelled in part.

    Args:
        folder, out, config, resume, phase, ranks, options: as of `fit.fit`.
        parent: the model that the first stage starts from, whose corrections are learnt from, too; "auto": what
            `choice.choose_start` says.
        how: what is done with the images without labels; see above.
        replay: labelled images of a former training.

    Raises:
        NucleateError: as of `fit.fit`; or no image is without labels.
    """
    ranks, told = ranks or SingleProcess(), phase or (lambda _: None)
    channel, warn, masks = options.get("channel"), options.get("warn"), options.get("masks", "auto")
    stacks: Choice | None = options.get("stacks")
    reasons, old = list[str](), list[PseudoLabelled]()
    check_output(out, resume=resume or (out / STAGE).exists())
    told("reading the images")
    corrections = corrections_of(parent) if isinstance(parent, Path) else None
    data = load_labelled(folder, options.get("validation"), channel, masks, stacks, corrections)
    options["data"] = data
    if parent == "auto":
        told("choosing what to start from")
        start = choose_start(data, config, ranks=ranks)
        parent = start.parent
        reasons.append(start.reason)
        told(start.reason)
    if replay is not None:
        if parent is None:
            raise InputError(
                f"--replay is {replay}, but training starts from scratch: give a model that learnt from it, --from."
            )
        old = former(replay, len(data.channels), masks)
    if how == "auto" and not find(folder).unlabelled:
        reasons.append("No image is without labels.")
        how = "no"
    if how == "no":
        return fit(
            folder,
            out,
            config,
            resume=resume,
            phase=phase,
            ranks=ranks,
            parent=parent,
            others=old,
            reasons=reasons,
            **options,
        )
    if (out / STAGE).exists() and not resume:
        raise ModelError(f"{out} holds an unfinished run: resume it with --resume, or delete {out}.")
    stage, first, second = out / STAGE, *_shared(config, SHARES[how])
    common: dict[str, Any] = {"channel": channel, "phase": phase, "ranks": ranks, "warn": warn, "parent": parent}
    common["name"] = f"{out.name} (first stage)"
    images, left_out = pseudo_labels.unlabelled_images(folder, channel, data.channels, stacks)
    if not (stage / store.MANIFEST).exists():
        again = (stage / store.UNFINISHED).exists()
        if how == "pretrain":
            told(f"first stage: pre-training, with {count(len(images), 'image')} without labels among others")
            mine = run_config(seed=config.seed, minutes=first.minutes, epochs=first.epochs)
            pretrain(folder, stage, mine, resume=again, observe=options.get("observe"), stacks=stacks, **common)
        else:
            told("first stage: from the labels")
            others = {"others": old, **_without(options, "channel", "warn", "extra_files")}
            fit(folder, stage, first, resume=again, **common, **others)
    teaches = how == "pseudo"
    if how == "auto":
        teaches, reason = may_teach(store.read_manifest(stage).scores.get("validation"))
        reasons.append(reason)
        told(reason)
    taught = list[PseudoLabelled]()
    if teaches:
        told(f"labelling {count(len(images), 'image')}")
        of = {"images": digest_of_arrays(images), "model": store.read_manifest(stage).weights_sha256}
        ranks.by_first(partial(_label, stage, images, of))
        taught = pseudo_labels.read(stage / LABELS, images, of)
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
        others=[*taught, *old],
        reasons=reasons,
        **options,
    )
    ranks.by_first(partial(shutil.rmtree, stage))
    return manifest


def former(folder: Path, channels: int, masks: Masks = "auto") -> list[PseudoLabelled]:
    """The labelled images of a former training, as a network of so many channels sees them: grey ones as copies of
    their channel, red, green and blue ones as their mean where there is one channel.

    Raises:
        DatasetError, ImageError: they cannot be used, or have another number of channels.
    """
    pairs = labelled(folder, masks).pairs
    return [PseudoLabelled(normalise(image, channels), labels, labels < 0) for image, labels in pairs]


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
