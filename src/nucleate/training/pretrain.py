"""A folder of images without labels -> the folder of a pre-trained model, which a training can start from."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nucleate
from nucleate.data.normalization import Normalisation
from nucleate.errors import DatasetError
from nucleate.io.stack import Choice
from nucleate.networks import store
from nucleate.networks.manifest import (
    Ancestor,
    Manifest,
    NormalisationPart,
    PartName,
    ThresholdsPart,
    architecture_part,
)
from nucleate.networks.pretraining import PretrainingNetwork
from nucleate.networks.runtime import device, place, prefers_bfloat16
from nucleate.networks.unet import Architecture
from nucleate.networks.unfold import unfolded, with_channels
from nucleate.parallel import Communicator, SingleProcess
from nucleate.parallel.launch import done_by_living
from nucleate.sentences import count
from nucleate.training.checkpoint import Checkpoint
from nucleate.training.config import TrainingConfig
from nucleate.training.contrast import PretrainingConfig
from nucleate.training.fit import Phase, training_part
from nucleate.training.output import begin_together, check_output, too_many_ranks, written_by_first
from nucleate.training.parallel import Serial, Threads
from nucleate.training.pretraining import HeldOut, PretrainingResult, PretrainingTask
from nucleate.training.trainer import Observer, Trainer, TrainingResult
from nucleate.training.unlabelled import UnlabelledImages, load_unlabelled
from nucleate.training.warm_start import LEARNING_RATE
from nucleate.types import Thresholds

PARTS: tuple[PartName, ...] = ("encoder", "decoder")
"""What of the network is kept: all but the last layer, which a training makes anew."""

SMALLEST = 32
"""Pixels; the side of the smallest crops."""

BATCH, SAMPLES = 32, 1024
"""Pairs of views a step, and an epoch."""


def run_config(*, seed: int = 0, minutes: float | None = None, epochs: int | None = None) -> TrainingConfig:
    """How a pre-training goes, unless otherwise said."""
    return TrainingConfig(seed=seed, minutes=minutes, epochs=epochs, batch=BATCH, samples=SAMPLES)


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What further files of a model folder tell of: the model's history, and how it sees the held-out crops.

    `before` is the result before the training; `crops` (N, 2, C, S, S) are the views of the held-out crops as they are
    searched for, and `images` the numbers of the images that they are of.
    """

    folder: Path
    manifest: Manifest
    history: Sequence[Mapping[str, Any]]
    before: PretrainingResult
    after: PretrainingResult
    crops: Tensor
    images: Sequence[int]


ExtraFiles = Callable[[Pretrained], Mapping[str, bytes]]
"""From a pre-trained model to further files of its folder, by their names."""


def pretrain(
    folder: Path,
    out: Path,
    config: TrainingConfig,
    what: PretrainingConfig | None = None,
    *,
    channel: str | int | None = None,
    resume: bool = False,
    observe: Observer | None = None,
    phase: Phase | None = None,
    warn: Callable[[str], None] | None = None,
    name: str | None = None,
    source: str | None = None,
    extra_files: ExtraFiles | None = None,
    ranks: Communicator | None = None,
    parent: Path | None = None,
    stacks: Choice | None = None,
) -> Manifest:
    """Pre-train on all images of a folder, without their masks, and write the model.

    Args:
        folder: Holds images; see `data.dataset`.
        out: The model folder. The state of an unfinished run is kept in it.
        config: How the run goes; its samples are pairs of views.
        what: What is learnt.
        channel: Name or number of the channel to learn from, where images have several; "all" for all of them.
        resume: Go on with the unfinished run in `out`.
        observe: Called after each step.
        phase: Called where another part of the work begins.
        warn: Told each thing that may be wrong with the images, as a sentence.
        name: Of the model; by default that of `out`.
        source: What the images are; by default the name of `folder`.
        extra_files: Makes further files of the model folder (`report.pretraining.pretraining_files`).
        ranks: The processes that train together, each of which reads `folder`; the first one writes `out`, and
            calls `warn`.
        parent: The model folder to start from; by default random weights.
        stacks: What is taken of files with several images and of stacks.

    Returns:
        The model's manifest.

    Raises:
        NucleateError: The images cannot be used, the folder not written, the run not resumed, or the embeddings have
            collapsed.
    """
    ranks, phase, warn = ranks or SingleProcess(), phase or (lambda _: None), warn or (lambda _: None)
    what = what or PretrainingConfig()
    check_output(out, resume=resume)
    start = None if parent is None else store.read(parent, whole=False)
    phase("reading the images")
    data = load_unlabelled(folder, channel, stacks)
    what, warnings = fitting(what, data, folder)
    facts = {"version": nucleate.__version__, "options": str((config, what, resume)), "images": data.digest()}
    facts["--from"] = "" if start is None else start.manifest.weights_sha256
    ranks, bfloat16 = begin_together(ranks, facts, out)
    if ranks.rank == 0:
        for sentence in (*data.warnings, *warnings):
            warn(sentence)
        if ranks.size > config.batch:
            warn(too_many_ranks(ranks, config, "pair"))
    network, lineage = _begin(start, len(data.channels), config), tuple[Ancestor, ...]()
    if start is not None:
        lineage = (*start.manifest.lineage, _ancestor(start))
        rate = LEARNING_RATE * config.learning_rate
        config = replace(config, learning_rate=rate, parent=start.manifest.weights_sha256)
    held_out = HeldOut(data.held_out, what, config.seed, config.batch)
    if len(held_out) < 2:
        raise DatasetError(
            f"The images in {folder} are too few or too small to hold out two crops of {what.view.variation.crop}"
            " pixels: give more of them, or larger ones."
        )
    with Threads() as threads:
        ranks, before = done_by_living(
            ranks, lambda ranks: held_out.evaluate(network, bfloat16=bfloat16, parallel=threads, ranks=ranks)
        )
        phase(f"training on {count(data.count, 'image')} without labels")
        task = PretrainingTask(data.training, held_out, config, what, before)
        trainer = Trainer(
            network,
            task,
            config,
            parallel=threads,
            ranks=ranks,
            bfloat16=bfloat16,
            checkpoint=Checkpoint(out),
            observe=observe,
        )
        result = trainer.train(resume=resume)

    def finish() -> Manifest:
        phase("writing the model")
        return _finish(result, before, held_out, data, config, lineage, out, name, source or folder.name, extra_files)

    return written_by_first(trainer.ranks, finish)


def fitting(what: PretrainingConfig, data: UnlabelledImages, folder: Path) -> tuple[PretrainingConfig, tuple[str, ...]]:
    """Crops that fit into half of the images or more, and a sentence where these are smaller ones.

    Raises:
        DatasetError: the images are too small for any.
    """
    sides = sorted(min(image.shape[1:]) for image in (*data.training, *data.held_out))
    if len(data.training) == len(data.held_out):  # strips, which were cut off
        sides = sorted(min(image.shape[1:]) for image in data.training)
    wanted, middle = what.view.variation.crop, sides[len(sides) // 2]
    crop = min(wanted, middle // 16 * 16)
    if crop < SMALLEST:
        raise DatasetError(
            f"The images in {folder} are too small ({middle} pixels along their shorter side): pre-training needs"
            f" {SMALLEST} or more."
        )
    if crop == wanted:
        return what, ()
    view = replace(what.view, variation=replace(what.view.variation, crop=crop))
    return replace(what, view=view), (f"The images are small: crops of {crop} in place of {wanted} pixels are taken.",)


def _begin(start: store.Model | None, channels: int, config: TrainingConfig) -> PretrainingNetwork:
    """The network that learns: with random weights, a function of the seed, or encoder and decoder of a model."""
    architecture = Architecture(channels=channels, widths=config.widths)
    known = None
    if start is not None:
        known = with_channels(unfolded(start.network), channels)
        architecture = replace(known.architecture, classes=2)
    torch.manual_seed(config.seed)
    network = PretrainingNetwork(architecture)
    if known is not None:
        network.encoder.load_state_dict(known.encoder.state_dict())
        network.decoder.load_state_dict(known.decoder.state_dict())
    return place(network, device())


def _ancestor(start: store.Model) -> Ancestor:
    return Ancestor(name=start.manifest.name, weights_sha256=start.manifest.weights_sha256)


def _finish(
    result: TrainingResult,
    before: PretrainingResult,
    held_out: HeldOut,
    data: UnlabelledImages,
    config: TrainingConfig,
    lineage: tuple[Ancestor, ...],
    out: Path,
    name: str | None,
    source: str,
    extra_files: ExtraFiles | None,
) -> Manifest:
    """From trained weights to the model folder."""
    network, state = result.network, result.state
    assert isinstance(network, PretrainingNetwork)
    learnt = network.learnt(config.seed)
    weights = store.encode_weights(learnt, parts=PARTS)
    terms = "+".join(f"{weight:g}*{term}" for term, weight in held_out.criterion.terms.items())
    manifest = Manifest(
        name=name or out.name,
        architecture=architecture_part(learnt.architecture).model_copy(update={"parts": PARTS}),
        normalisation=NormalisationPart(**asdict(Normalisation())),
        thresholds=ThresholdsPart(**asdict(Thresholds())),
        pixel_size=data.pixel_size,
        data=data.part(source),
        lineage=lineage,
        trainings=(training_part(config, state, judged=True).model_copy(update={"loss": terms}),),
        scores={},
        versions={"nucleate": nucleate.__version__, "torch": torch.__version__, "python": platform.python_version()},
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    extra: Mapping[str, bytes] = {}
    if extra_files is not None:
        bfloat16 = prefers_bfloat16(device())
        after = held_out.evaluate(network, bfloat16=bfloat16, parallel=Serial(), ranks=SingleProcess())
        crops, images = held_out.views().image, [index for index, _, _ in held_out.places]
        pretrained = Pretrained(out, manifest, state.history, before, after, crops, images)
        extra = extra_files(pretrained)
    store.write(out, manifest, weights, state.history, extra)
    Checkpoint(out).path.unlink(missing_ok=True)
    return manifest
