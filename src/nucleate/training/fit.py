"""A folder of images -> a model folder: reads, holds out, trains, tunes the thresholds, and writes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import nucleate
from nucleate.data.channels import common
from nucleate.data.duplicates import shared
from nucleate.data.inspect import labelled
from nucleate.data.masks import Masks
from nucleate.data.normalization import Normalisation, normalise
from nucleate.errors import DatasetError
from nucleate.inference.backends import TorchBackend
from nucleate.inference.select import compare
from nucleate.io.axes import RGB
from nucleate.io.digest import digest_of_arrays
from nucleate.io.stack import Choice
from nucleate.networks import store
from nucleate.networks.manifest import (
    Ancestor,
    DataPart,
    EnginesPart,
    Manifest,
    NormalisationPart,
    ThresholdsPart,
    TrainingPart,
    architecture_part,
)
from nucleate.networks.prototypes import prototypes_of
from nucleate.networks.unet import Architecture, UNet
from nucleate.parallel import Communicator, SingleProcess
from nucleate.postprocess.instances_from_maps import instances_from_maps
from nucleate.postprocess.scores import Scores, mean_ap
from nucleate.sentences import count
from nucleate.training.checkpoint import Checkpoint, TrainingState
from nucleate.training.config import TrainingConfig
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.early_stopping import select_epoch
from nucleate.training.hold_out import FEWEST, Pair, drawn, hold_out, unheld
from nucleate.training.output import begin_together, check_output, too_many_ranks, written_by_first
from nucleate.training.parallel import Threads
from nucleate.training.pretrained import compare_pretrained
from nucleate.training.pseudo_labels import PseudoLabelled
from nucleate.training.replay import Memory
from nucleate.training.segmentation import FEW, GRID, SegmentationTask, ValidationSet, tune_thresholds
from nucleate.training.trainer import Observer, Trainer, TrainingResult, new_network
from nucleate.training.warm_start import LEARNING_RATE, warm_start
from nucleate.types import Labels, Maps, Thresholds


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """The labelled images of one or two folders, normalised, and what they are.

    `validation` is empty where no nucleus can be held out, and `names` are those of its images, which are `separate`
    from those to learn from, or parts of the same; `warnings` say what may be wrong with the images.
    """

    training: list[Pair]
    validation: list[Pair]
    names: tuple[str, ...]
    rule: str
    separate: bool
    channels: tuple[str, ...]
    pixel_size: float | None
    labelled: int
    nuclei: int
    median_diameter: float
    warnings: tuple[str, ...]
    stacks: dict[Literal["z", "t"], str]

    def digest(self) -> str:
        """Of all pixels and labels: equal where the same images were read."""
        return digest_of_arrays(one for pair in (*self.training, *self.validation) for one in pair)

    def part(self, source: str) -> DataPart:
        """The same as the manifest tells it."""
        return DataPart(
            source=source,
            labelled=self.labelled,
            nuclei=self.nuclei,
            median_diameter=round(self.median_diameter, 2),
            validation=self.rule,
            channels=self.channels,
            stacks=self.stacks,
        )


def load_labelled(
    folder: Path,
    validation: Path | None = None,
    channel: str | int | None = None,
    masks: Masks = "auto",
    stacks: Choice | None = None,
    corrections: Path | None = None,
) -> LabelledImages:
    """Read the labelled images of a folder.

    Args:
        folder: Holds images and masks; see `data.dataset`.
        validation: The same to choose on; without one, a part of `folder` is held out.
        channel: Picks one of several by its name or its number from 1; see `data.channels.common`.
        masks: How masks are taken; see `data.masks`.
        stacks: What is taken of files with several images and of stacks.
        corrections: Of a model, which are learnt from, too; see `training.journal`.

    Raises:
        DatasetError: There is nothing to learn from, or a mask surely is a mistake.
    """
    found = labelled(folder, masks, stacks)
    more = labelled(corrections, "labels") if corrections is not None else None
    given = labelled(validation, masks, stacks) if validation else None
    pairs = [*found.pairs, *(given.pairs if given else ())]
    images, channels = common([image for image, _ in pairs], folder, channel)
    chosen = [(image, _numbered(labels)) for image, (_, labels) in zip(images, pairs, strict=True)]
    read, held = chosen[: len(found.pairs)], chosen[len(found.pairs) :]
    left_out = list[str]()
    for image, labels in more.pairs if more is not None else ():
        if len(image.channels) in (1, len(channels)) or (len(channels) == 1 and image.channels == RGB):
            read.append((image, _numbered(labels)))
        else:
            have = count(len(image.channels), "channel")
            left_out.append(f"The correction {image.name} is left out: it has {have}, the images {len(channels)}.")
    normalised = [(normalise(image, len(channels)), labels) for image, labels in read]
    areas = np.concatenate([_areas(labels) for _, labels in read])
    if areas.size == 0:
        raise DatasetError(f"None of the {len(read)} masks in {folder} holds a nucleus: label some nuclei first.")
    if not any(np.ptp(image) for image, _ in normalised):
        raise DatasetError(
            f"None of the {len(read)} labelled images in {folder} shows anything, each has one value throughout:"
            " export them again."
        )
    leaks: list[str] = []
    if validation:
        leaks = shared([image for image, _ in found.pairs], [image for image, _ in given.pairs] if given else [])
        kept = unheld(normalised, found.validation)
        others = [(normalise(image, len(channels)), labels) for image, labels in held]
        nuclei = sum(_areas(labels).size for _, labels in held)
        if not nuclei:
            raise DatasetError(
                f"None of the {len(held)} masks in {validation} holds a nucleus: label some there first."
            )
        rule = f"{len(others)} images of {validation.name} were given for validation, with {nuclei} nuclei."
    elif any(part is not None for part in found.validation):
        kept, others, rule = drawn(normalised, found.validation)
    else:
        kept, others, rule = hold_out(normalised)
    both = zip([*normalised, *(others if validation else [])], read + held, strict=True)
    names = {id(pixels): image.name for (pixels, _), (image, _) in both}
    sizes = {image.pixel_size for image, _ in read}
    return LabelledImages(
        training=kept,
        validation=others,
        names=tuple(names[id(image)] for image, _ in others),
        rule=rule,
        separate=validation is not None or len(normalised) >= FEWEST,
        channels=channels,
        pixel_size=sizes.pop() if len(sizes) == 1 else None,
        labelled=len(read),
        nuclei=int(areas.size),
        median_diameter=float(np.median(2 * np.sqrt(areas / np.pi))),
        warnings=(*found.warnings, *(given.warnings if given else ()), *leaks, *left_out),
        stacks=(stacks or Choice()).of_stacks(),
    )


UNJUDGED = 30
"""Epochs of a run without a limit in which no nucleus could be held out, so that no rule can tell when it is enough."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What further files of a model folder tell of.

    `held_out` are the validation images, normalised, with their labels; `names` are theirs, and `found` the labels that
    the model gives them.
    """

    folder: Path
    manifest: Manifest
    history: Sequence[Mapping[str, Any]]
    held_out: Sequence[Pair] = ()
    names: Sequence[str] = ()
    found: Sequence[Labels] = ()


ExtraFiles = Callable[[Trained], Mapping[str, bytes]]
"""From a trained model to further files of its folder, by their names."""

Phase = Callable[[str], None]
"""Is told, in a few words, what is being done from now on."""


def fit(
    folder: Path,
    out: Path,
    config: TrainingConfig,
    *,
    validation: Path | None = None,
    channel: str | int | None = None,
    masks: Masks = "auto",
    resume: bool = False,
    observe: Observer | None = None,
    phase: Phase | None = None,
    warn: Callable[[str], None] | None = None,
    name: str | None = None,
    source: str | None = None,
    extra_files: ExtraFiles | None = None,
    ranks: Communicator | None = None,
    parent: Path | None = None,
    others: Sequence[PseudoLabelled] = (),
    reasons: Sequence[str] = (),
    stacks: Choice | None = None,
    corrections: Path | None = None,
    data: LabelledImages | None = None,
) -> Manifest:
    """Train on the labelled images of a folder and write the model.

    Args:
        folder: Holds images and masks; see `data.dataset`.
        out: The model folder. The state of an unfinished run is kept in it.
        config: How the run goes.
        validation: Folder of labelled images to choose on; without one, a part of `folder` is held out.
        channel: Name or number of the channel to learn from, where images have several; "all" for all of them.
        masks: How masks are taken; see `data.masks`.
        resume: Go on with the unfinished run in `out`.
        observe: Called after each step.
        phase: Called where another part of the work begins.
        warn: Told each thing that may be wrong with the images, as a sentence.
        name: Of the model; by default that of `out`.
        source: What the images are; by default the name of `folder`.
        extra_files: Makes further files of the model folder, such as its card (`report.model_files.model_files`).
        ranks: The processes that train together, each of which reads `folder`; the first one writes `out`, and
            calls `warn`.
        parent: The model folder that training starts from; by default it starts from random weights.
        others: Images with pseudo-labels, or of a former training, which are half of each batch.
        reasons: Why it is done so, in sentences for the manifest.
        stacks: What is taken of files with several images and of stacks; the manifest remembers it.
        corrections: Folder of the corrections of a model, which are learnt from, too.
        data: What all these say to read, where it was read already.

    Where no nucleus can be held out, the run is judged on the images that it learns from: it ends at a limit, no
    threshold is tuned, and the manifest has no scores.

    Returns:
        The model's manifest.

    Raises:
        NucleateError: The images cannot be used, the folder not written, or the run not resumed.
    """
    ranks, phase, warn = ranks or SingleProcess(), phase or (lambda _: None), warn or (lambda _: None)
    check_output(out, resume=resume)
    start = None if parent is None else store.read(parent, whole=False)
    if data is None:
        phase("reading the images")
        data = load_labelled(folder, validation, channel, masks, stacks, corrections)
    facts = {"version": nucleate.__version__, "options": str((config, resume)), "images": data.digest()}
    facts["--from"] = "" if start is None else start.manifest.weights_sha256
    ranks, bfloat16 = begin_together(ranks, facts, out)
    if ranks.rank == 0:
        for sentence in data.warnings:
            warn(sentence)
        if ranks.size > config.batch:
            warn(too_many_ranks(ranks, config, "sample"))
    judged = bool(data.validation)
    if not judged and config.minutes is None and config.epochs is None:
        config = replace(config, epochs=UNJUDGED)
    phase(f"training on {count(data.labelled, 'labelled image')} with {count(data.nuclei, 'nucleus', 'nuclei')}")
    lineage: tuple[Ancestor, ...] = ()
    if start is None:
        network = new_network(Architecture(channels=len(data.channels), widths=config.widths), config.seed)
    else:
        begun = warm_start(start, data.training, len(data.channels), config.seed)
        network, lineage, rate = begun.network, begun.lineage, LEARNING_RATE * config.learning_rate
        config = replace(config, learning_rate=rate, parent=start.manifest.weights_sha256)
        phase(begun.sentence())
    task = SegmentationTask(
        data.training, ValidationSet(data.validation or data.training), config, network.architecture.classes, others
    )
    checkpoint = Checkpoint(out)
    with Threads() as threads:
        trainer = Trainer(
            network,
            task,
            config,
            parallel=threads,
            ranks=ranks,
            bfloat16=bfloat16,
            checkpoint=checkpoint,
            observe=observe,
        )
        result = trainer.train(resume=resume)

    def finish() -> Manifest:
        return _finish(
            result, task, data, config, lineage, reasons, out, phase, judged, name, source or folder.name, extra_files
        )

    return written_by_first(trainer.ranks, finish)


def _finish(
    result: TrainingResult,
    task: SegmentationTask,
    data: LabelledImages,
    config: TrainingConfig,
    lineage: tuple[Ancestor, ...],
    reasons: Sequence[str],
    out: Path,
    phase: Phase,
    judged: bool,
    name: str | None,
    source: str,
    extra_files: ExtraFiles | None,
) -> Manifest:
    """From trained weights to the model folder."""
    state, weights = result.state, store.encode_weights(result.network)
    thresholds, scores, engines = Thresholds(), dict[str, dict[str, object]](), None
    maps: Sequence[Maps] = ()
    if judged:
        thresholds, own, engines, maps = tune_prediction(
            result.network, task.validation, task.criterion, phase, tuple(GRID) if data.separate else FEW
        )
        phase("comparing with the models of the package")
        others = compare_pretrained(task.validation, task.criterion, len(data.channels))
        scores = {key: one.as_dict() | {"mean_ap": mean_ap(one)} for key, one in {"validation": own, **others}.items()}
    phase("measuring how alike the images are")
    prototypes = prototypes_of(result.network, [image for image, _ in data.training])
    kept = {} if prototypes is None else {store.PROTOTYPES: prototypes.encoded()}
    kept[store.REPLAY] = Memory.of(data.training, data.validation, config.seed).encoded()
    manifest = Manifest(
        name=name or out.name,
        architecture=architecture_part(result.network.architecture),
        normalisation=NormalisationPart(**asdict(Normalisation())),
        thresholds=ThresholdsPart(**asdict(thresholds)),
        pixel_size=data.pixel_size,
        data=data.part(source),
        lineage=lineage,
        trainings=(training_part(config, state, judged=judged, reasons=reasons),),
        scores=scores,
        versions={"nucleate": nucleate.__version__, "torch": torch.__version__, "python": platform.python_version()},
        engines=engines,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        prototypes_sha256=None if prototypes is None else hashlib.sha256(kept[store.PROTOTYPES]).hexdigest(),
        replay_sha256=hashlib.sha256(kept[store.REPLAY]).hexdigest(),
    )
    phase("writing the model")
    found = [instances_from_maps(one, thresholds).labels for one in maps]
    trained = Trained(out, manifest, state.history, data.validation, data.names, found)
    extra = extra_files(trained) if extra_files is not None else {}
    store.write(out, manifest, weights, state.history, {**extra, **kept})
    Checkpoint(out).path.unlink(missing_ok=True)
    return manifest


def training_part(
    config: TrainingConfig, state: TrainingState, *, judged: bool, reasons: Sequence[str] = ()
) -> TrainingPart:
    """How a run went, as the manifest tells it."""
    return TrainingPart(
        seed=config.seed,
        loss=config.loss,
        epochs=len(state.history),
        steps=state.step,
        seconds=round(state.seconds, 1),
        best_epoch=state.best_epoch,
        stopped=_stopped(state) if judged else state.why,
        stop_epoch=state.stop_epoch,
        over_fitting=state.over_fitting,
        reasons=tuple(reasons),
    )


def tune_prediction(
    network: UNet,
    validation: ValidationSet,
    criterion: SegmentationCriterion,
    phase: Phase = lambda _: None,
    names: Collection[str] = tuple(GRID),
) -> tuple[Thresholds, Scores, EnginesPart, Sequence[Maps]]:
    """What a trained network needs to predict: its thresholds, of which those of these names are tuned, their scores,
    and the engines that agree; and its maps of the validation images."""
    phase("choosing thresholds")
    evaluation = validation.evaluate(TorchBackend(network), criterion, Thresholds())
    thresholds, scores = tune_thresholds(validation, evaluation.maps, Thresholds(), names)
    phase("comparing engines")
    return thresholds, scores, compare_engines(network, validation, criterion, thresholds), evaluation.maps


def compare_engines(
    network: UNet, validation: ValidationSet, criterion: SegmentationCriterion, thresholds: Thresholds
) -> EnginesPart:
    """The engines side by side on the validation images, with these thresholds."""
    return compare(
        network,
        [image for image, _ in validation.pairs],
        lambda engine: validation.evaluate(engine, criterion, thresholds).scores.panoptic_quality,
    )


def _stopped(state: TrainingState) -> str:
    """Why the run ended, and what its cool-down changed."""
    stop = len(state.history) if state.stop_epoch is None else state.stop_epoch
    before, epochs = select_epoch([row["valid_loss"] for row in state.history[:stop]]), len(state.history) - stop
    if not before or not epochs:
        return state.why
    score = state.history[before - 1]["score"]
    change = f"{'rose' if state.best_score > score else 'fell'} from {score:.3f} to {state.best_score:.3f}"
    change = f"stayed at {score:.3f}" if state.best_score == score else change
    return f"{state.why} In {count(epochs, 'epoch')} of cool-down the validation score {change}."


def _numbered(labels: Labels) -> Labels:
    """The nuclei as 1..N in the order of their numbers, which in a mask may be as large as its type allows."""
    nucleus = labels > 0
    numbered = np.minimum(labels, 0)
    numbered[nucleus] = 1 + np.unique(labels[nucleus], return_inverse=True)[1]
    return numbered


def _areas(labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    areas = np.bincount(labels[labels > 0].ravel())
    return areas[areas > 0]
