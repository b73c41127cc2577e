"""A folder of images -> a model folder: reads, holds out, trains, tunes the thresholds, and writes."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import nucleate
from nucleate.data.channels import common
from nucleate.data.dataset import find, pair
from nucleate.data.normalization import Normalisation, normalise
from nucleate.errors import DatasetError, ModelError, OutputError
from nucleate.inference.backends import TorchBackend
from nucleate.inference.select import compare
from nucleate.networks import store
from nucleate.networks.manifest import (
    DataPart,
    EnginesPart,
    Manifest,
    NormalisationPart,
    ThresholdsPart,
    TrainingPart,
    architecture_part,
)
from nucleate.networks.unet import Architecture, UNet
from nucleate.postprocess.scores import Scores, mean_ap
from nucleate.training.checkpoint import Checkpoint, TrainingState
from nucleate.training.config import TrainingConfig
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.early_stopping import select_epoch
from nucleate.training.parallel import Threads
from nucleate.training.segmentation import Pair, SegmentationTask, ValidationSet, hold_out, tune_thresholds
from nucleate.training.trainer import Observer, Trainer, new_network
from nucleate.types import Image, Labels, Thresholds


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """The labelled images of one or two folders, normalised, and what they are."""

    training: list[Pair]
    validation: list[Pair]
    rule: str
    channels: tuple[str, ...]
    pixel_size: float | None
    labelled: int
    nuclei: int
    median_diameter: float

    def part(self, source: str) -> DataPart:
        """The same as the manifest tells it."""
        return DataPart(
            source=source,
            labelled=self.labelled,
            nuclei=self.nuclei,
            median_diameter=round(self.median_diameter, 2),
            validation=self.rule,
            channels=self.channels,
        )


def load_labelled(folder: Path, validation: Path | None = None, channel: str | int | None = None) -> LabelledImages:
    """Read the labelled images of a folder. `channel` picks one of several by its name or its number from 1."""
    pairs = _pairs(folder)
    count = len(pairs)
    pairs += _pairs(validation) if validation else []
    images, channels = common([image for image, _ in pairs], folder, channel)
    chosen = [(image, labels) for image, (_, labels) in zip(images, pairs, strict=True)]
    read, held = chosen[:count], chosen[count:]
    normalised = [(normalise(image, len(channels)), labels) for image, labels in read]
    areas = np.concatenate([_areas(labels) for _, labels in read])
    if areas.size == 0:
        raise DatasetError(f"None of the {len(read)} masks in {folder} holds a nucleus: label some nuclei first.")
    if not any(np.ptp(image) for image, _ in normalised):
        raise DatasetError(
            f"None of the {len(read)} labelled images in {folder} shows anything, each has one value throughout:"
            " export them again."
        )
    if validation:
        kept, others = normalised, [(normalise(image, len(channels)), labels) for image, labels in held]
        rule = f"{len(others)} images of {validation.name} were given for validation."
    else:
        kept, others, rule = hold_out(normalised)
    sizes = {image.pixel_size for image, _ in read}
    return LabelledImages(
        training=kept,
        validation=others,
        rule=rule,
        channels=channels,
        pixel_size=sizes.pop() if len(sizes) == 1 else None,
        labelled=len(read),
        nuclei=int(areas.size),
        median_diameter=float(np.median(2 * np.sqrt(areas / np.pi))),
    )


ExtraFiles = Callable[[Manifest, Sequence[Mapping[str, float]]], Mapping[str, bytes]]
"""From the manifest and the history of a model to further files of its folder, by their names."""


def fit(
    folder: Path,
    out: Path,
    config: TrainingConfig,
    *,
    validation: Path | None = None,
    channel: str | int | None = None,
    resume: bool = False,
    observe: Observer | None = None,
    name: str | None = None,
    source: str | None = None,
    extra_files: ExtraFiles | None = None,
) -> Manifest:
    """Train on the labelled images of a folder and write the model.

    Args:
        folder: Holds images and masks; see `data.dataset`.
        out: The model folder. The state of an unfinished run is kept in it.
        config: How the run goes.
        validation: Folder of labelled images to choose on; without one, a part of `folder` is held out.
        channel: Name or number of the channel to learn from, where images have several; "all" for all of them.
        resume: Go on with the unfinished run in `out`.
        observe: Called after each step.
        name: Of the model; by default that of `out`.
        source: What the images are; by default the name of `folder`.
        extra_files: Makes further files of the model folder, such as its card (`report.card.card_files`).

    Returns:
        The model's manifest.

    Raises:
        NucleateError: The images cannot be used, the folder not written, or the run not resumed.
    """
    check_output(out, resume=resume)
    data = load_labelled(folder, validation, channel)
    prepare_output(out)
    architecture = Architecture(channels=len(data.channels), widths=config.widths)
    network = new_network(architecture, config.seed)
    task = SegmentationTask(data.training, ValidationSet(data.validation), config, architecture.classes)
    checkpoint = Checkpoint(out)
    with Threads() as threads:
        trainer = Trainer(network, task, config, parallel=threads, checkpoint=checkpoint, observe=observe)
        result = trainer.train(resume=resume)
    state, weights = result.state, store.encode_weights(result.network)
    thresholds, scores, engines = tune_prediction(result.network, task.validation, task.criterion)
    manifest = Manifest(
        name=name or out.name,
        architecture=architecture_part(architecture),
        normalisation=NormalisationPart(**asdict(Normalisation())),
        thresholds=ThresholdsPart(**asdict(thresholds)),
        pixel_size=data.pixel_size,
        data=data.part(source or folder.name),
        trainings=(_training_part(config, state),),
        scores={"validation": scores.as_dict() | {"mean_ap": mean_ap(scores)}},
        versions={"nucleate": nucleate.__version__, "torch": torch.__version__, "python": platform.python_version()},
        engines=engines,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    extra = extra_files(manifest, state.history) if extra_files is not None else {}
    store.write(out, manifest, weights, state.history, extra)
    checkpoint.path.unlink(missing_ok=True)
    return manifest


def _training_part(config: TrainingConfig, state: TrainingState) -> TrainingPart:
    return TrainingPart(
        seed=config.seed,
        loss=config.loss,
        epochs=len(state.history),
        steps=state.step,
        seconds=round(state.seconds, 1),
        best_epoch=state.best_epoch,
        stopped=_stopped(state),
        stop_epoch=state.stop_epoch,
        over_fitting=state.over_fitting,
    )


def tune_prediction(
    network: UNet, validation: ValidationSet, criterion: SegmentationCriterion
) -> tuple[Thresholds, Scores, EnginesPart]:
    """What a trained network needs to predict: its thresholds, tuned, their scores, and the engines that agree."""
    evaluation = validation.evaluate(TorchBackend(network), criterion, Thresholds())
    thresholds, scores = tune_thresholds(validation, evaluation.maps, Thresholds())
    return thresholds, scores, compare_engines(network, validation, criterion, thresholds)


def compare_engines(
    network: UNet, validation: ValidationSet, criterion: SegmentationCriterion, thresholds: Thresholds
) -> EnginesPart:
    """The engines side by side on the validation images, with these thresholds."""
    return compare(
        network,
        [image for image, _ in validation.pairs],
        lambda engine: validation.evaluate(engine, criterion, thresholds).scores.panoptic_quality,
    )


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


def _stopped(state: TrainingState) -> str:
    """Why the run ended, and what its cool-down changed."""
    stop = len(state.history) if state.stop_epoch is None else state.stop_epoch
    before, epochs = select_epoch([row["valid_loss"] for row in state.history[:stop]]), len(state.history) - stop
    if not before or not epochs:
        return state.why
    score = state.history[before - 1]["score"]
    change = f"{'rose' if state.best_score > score else 'fell'} from {score:.3f} to {state.best_score:.3f}"
    change = f"stayed at {score:.3f}" if state.best_score == score else change
    during = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return f"{state.why} In {during} of cool-down the validation score {change}."


def prepare_output(out: Path) -> None:
    """Make the model's folder, or say before anything is computed that it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}): choose another --out.") from error


def _pairs(folder: Path) -> list[tuple[Image, Labels]]:
    dataset = find(folder)
    if not dataset.labelled:
        raise DatasetError(
            f"{folder} holds {len(dataset.unlabelled)} images and no mask: put label images into {folder / 'masks'}."
        )
    return [(image, _numbered(labels)) for image, labels in map(pair, dataset.labelled)]


def _numbered(labels: Labels) -> Labels:
    """The nuclei as 1..N in the order of their numbers, which in a mask may be as large as its type allows."""
    nucleus = labels > 0
    numbered = np.minimum(labels, 0)
    numbered[nucleus] = 1 + np.unique(labels[nucleus], return_inverse=True)[1]
    return numbered


def _areas(labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    areas = np.bincount(labels[labels > 0].ravel())
    return areas[areas > 0]
