"""A folder of images -> a model folder: reads, holds out, trains, tunes the thresholds, and writes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nucleate
from nucleate.data.augment import TrainingImage
from nucleate.data.dataset import find, pair
from nucleate.data.normalization import Normalisation, normalise, pick
from nucleate.errors import DatasetError, ModelError, OutputError
from nucleate.inference.backends import TorchEngine
from nucleate.inference.select import compare
from nucleate.networks import store
from nucleate.networks.unet import Architecture, UNet
from nucleate.postprocess.scores import Scores, mean_ap
from nucleate.report.collect import Curves, curves
from nucleate.report.plots import plot_curves
from nucleate.training import checkpoint
from nucleate.training.criterion import Objective
from nucleate.training.early_stopping import kept
from nucleate.training.trainer import Observer, Settings, State, train
from nucleate.training.validation import Pair, Validation, hold_out, tune
from nucleate.types import Image, Labels, Thresholds


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labelled images of one or two folders, normalised, and what they are."""

    training: list[Pair]
    validation: list[Pair]
    rule: str
    channels: tuple[str, ...]
    pixel_size: float | None
    labelled: int
    nuclei: int
    median_diameter: float


def load(folder: Path, validation: Path | None = None, channel: str | None = None) -> Labelled:
    """Read the labelled images of a folder. `channel` picks one of several by its name."""
    read = [(_channel(image, channel), labels) for image, labels in _pairs(folder)]
    held = [(_channel(image, channel), labels) for image, labels in _pairs(validation)] if validation else []
    channels = _channels([image for image, _ in read + held], folder)
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
    return Labelled(
        training=kept,
        validation=others,
        rule=rule,
        channels=channels,
        pixel_size=sizes.pop() if len(sizes) == 1 else None,
        labelled=len(read),
        nuclei=int(areas.size),
        median_diameter=float(np.median(2 * np.sqrt(areas / np.pi))),
    )


def fit(
    folder: Path,
    out: Path,
    settings: Settings,
    *,
    validation: Path | None = None,
    channel: str | None = None,
    resume: bool = False,
    observe: Observer | None = None,
    name: str | None = None,
    source: str | None = None,
) -> store.Manifest:
    """Train on the labelled images of `folder` and write the model to `out`."""
    check_output(out, resume=resume)
    data = load(folder, validation, channel)
    prepare_output(out)
    architecture = Architecture(channels=len(data.channels))
    judge = Validation(data.validation)
    result = train(
        [TrainingImage.of(image, labels) for image, labels in data.training],
        judge,
        architecture,
        settings,
        folder=out,
        resume=resume,
        observe=observe,
    )
    weights = store.encode_weights(result.network)
    thresholds, scores, engines = ready(result.network, judge, Objective(architecture.classes, settings.loss))
    state = result.state
    manifest = store.Manifest(
        name=name or out.name,
        architecture=store.architecture_part(architecture),
        normalisation=store.NormalisationPart(**asdict(Normalisation())),
        thresholds=store.ThresholdsPart(**asdict(thresholds)),
        pixel_size=data.pixel_size,
        data=store.DataPart(
            source=source or folder.name,
            labelled=data.labelled,
            nuclei=data.nuclei,
            median_diameter=round(data.median_diameter, 2),
            validation=data.rule,
            channels=data.channels,
        ),
        trainings=(
            store.TrainingPart(
                seed=settings.seed,
                loss=settings.loss,
                epochs=len(state.history),
                steps=state.step,
                seconds=round(state.seconds, 1),
                best_epoch=state.best_epoch,
                stopped=_stopped(state),
                stop_epoch=state.stop_epoch,
                over_fitting=state.over_fitting,
            ),
        ),
        scores={"validation": scores.as_dict() | {"mean_ap": mean_ap(scores)}},
        versions={"nucleate": nucleate.__version__, "torch": torch.__version__, "python": platform.python_version()},
        engines=engines,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    plot_curves([run_curves(state.history, manifest.training)], out / store.CURVES)
    store.write(out, manifest, weights, state.history, card(manifest, scores))
    (out / checkpoint.FILE).unlink(missing_ok=True)
    return manifest


def ready(network: UNet, judge: Validation, objective: Objective) -> tuple[Thresholds, Scores, store.EnginesPart]:
    """What a trained network needs to predict: its thresholds, tuned, their scores, and the engines that agree."""
    judgement = judge.judge(TorchEngine(network), objective, Thresholds())
    thresholds, scores = tune(judge, judgement.maps, Thresholds())
    return thresholds, scores, engines_of(network, judge, objective, thresholds)


def engines_of(network: UNet, judge: Validation, objective: Objective, thresholds: Thresholds) -> store.EnginesPart:
    """The engines side by side on the validation images, with these thresholds."""
    return compare(
        network,
        [image for image, _ in judge.pairs],
        lambda engine: judge.judge(engine, objective, thresholds).scores.panoptic_quality,
    )


def check_output(out: Path, *, resume: bool) -> None:
    """Refuse a folder that holds a model, or another run, or that can be none, before anything is read."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise OutputError(f"{out} cannot be written ({there} is a file): choose another --out.")
    if (out / store.MANIFEST).exists():
        raise ModelError(f"{out} already holds a finished model: choose another --out, or delete it first.")
    if (out / checkpoint.FILE).exists() and not resume:
        raise ModelError(
            f"{out} holds an unfinished run: continue it with --resume, or delete {out / checkpoint.FILE}."
        )


def run_curves(history: Sequence[Mapping[str, float]], training: store.TrainingPart) -> Curves:
    """The curves of a model's run, with the epoch kept, the end and the part judged over-fitting."""
    # Decided within the first epoch it has no place on the curves.
    stop, start = training.stop_epoch or None, training.over_fitting
    return curves(history, training.best_epoch, stop, None if start is None or stop is None else (start, stop))


def _stopped(state: State) -> str:
    """Why the run ended, and what its cool-down changed."""
    stop = len(state.history) if state.stop_epoch is None else state.stop_epoch
    before, epochs = kept([row["valid_loss"] for row in state.history[:stop]]), len(state.history) - stop
    if not before or not epochs:
        return state.why
    score = state.history[before - 1]["score"]
    gain = f"took the score of the epoch kept from {score:.3f} to {state.best_score:.3f}"
    return f"{state.why} {_plural(epochs, 'epoch')} of cool-down {gain}."


def prepare_output(out: Path) -> None:
    """Make the model's folder, or say before anything is computed that it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}): choose another --out.") from error


def card(manifest: store.Manifest, scores: Scores, where: str = "the validation images") -> str:
    """The model's README; `where` names the images that the scores are of."""
    data, training = manifest.data, manifest.training
    rows = "".join(
        f"| {row.threshold:g} | {row.precision:.3f} | {row.recall:.3f} | {row.ap:.3f} |\n" for row in scores.at
    )
    licence = f" ({data.licence})" if data.licence else ""
    return f"""# {manifest.name}

Finds nuclei in images with {_plural(len(data.channels), "channel")} ({", ".join(data.channels)}).

    nucleate predict {manifest.name} IMAGES --out DIR

## Data
{data.source}{licence}: {data.labelled} labelled images, {data.nuclei} nuclei, median diameter
{data.median_diameter:.1f} pixels. {data.validation}

## Scores on {where}
Panoptic quality {scores.panoptic_quality:.3f}, AJI {scores.aji:.3f}, {scores.n_true} nuclei.

| IoU | precision | recall | AP |
| --- | --- | --- | --- |
{rows}
Epoch and thresholds were chosen on the validation images.

## Training
{training.epochs} epochs, {training.steps} steps, {training.seconds:.0f} s, loss {training.loss}, seed {training.seed};
the weights of epoch {training.best_epoch} are kept. {training.stopped}

![curves]({store.CURVES})
"""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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


def _channel(image: Image, channel: str | None) -> Image:
    return pick(image, channel) if channel is not None else image


def _channels(images: Sequence[Image], folder: Path) -> tuple[str, ...]:
    """The channels to train on: one where every image is grey (also if stored as red = green = blue)."""
    coloured = [image for image in images if len(image.channels) > 1 and not _is_grey(image)]
    if not coloured:
        return next((image.channels for image in images if len(image.channels) == 1), ("grey",))
    counts = {len(image.channels) for image in coloured}
    if len(counts) > 1:
        raise DatasetError(f"{folder} mixes images of {sorted(counts)} channels: choose one with --channel.")
    return coloured[0].channels


def _is_grey(image: Image) -> bool:
    first: Any = image.pixels[..., :1]
    return len(image.channels) == 3 and bool((image.pixels == first).all())


def _areas(labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    areas = np.bincount(labels[labels > 0].ravel())
    return areas[areas > 0]
