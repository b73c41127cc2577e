"""The files of a model folder that people read: the card and the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nucleate.curves.curves import Curves, curves
from nucleate.networks import store
from nucleate.networks.manifest import Manifest, TrainingPart
from nucleate.report.plots import curves_png

IMAGES = {"validation": "the validation images", "test": "the test images, which it had never seen"}
"""What the scores of a manifest are of, by their names there."""


def card_files(manifest: Manifest, history: Sequence[Mapping[str, float]]) -> dict[str, bytes]:
    """The card and the picture of the curves, by the names of their files; see `training.fit.fit`."""
    run = run_curves(history, manifest.training)
    return {store.CARD: card(manifest).encode(), store.CURVES: curves_png([run])}


def run_curves(history: Sequence[Mapping[str, float]], training: TrainingPart) -> Curves:
    """The curves of a model's run, with the epoch kept, the end and the part judged over-fitting."""
    # Decided within the first epoch it has no place on the curves.
    stop, start = training.stop_epoch or None, training.over_fitting
    return curves(history, training.best_epoch, stop, None if start is None or stop is None else (start, stop))


def card(manifest: Manifest, scored: str = "validation") -> str:
    """The model's README, with the scores of the manifest that have the name `scored`."""
    data, training = manifest.data, manifest.training
    licence = f" ({data.licence})" if data.licence else ""
    channels = f"{len(data.channels)} channel{'' if len(data.channels) == 1 else 's'}"
    return f"""# {manifest.name}

Finds nuclei in images with {channels} ({", ".join(data.channels)}).

    nucleate predict {manifest.name} IMAGES --out DIR

## Data
{data.source}{licence}: {data.labelled} labelled images, {data.nuclei} nuclei, median diameter
{data.median_diameter:.1f} pixels. {data.validation}

{_scores(manifest.scores.get(scored), IMAGES[scored])}
## Training
{training.epochs} epochs, {training.steps} steps, {training.seconds:.0f} s, loss {training.loss}, seed {training.seed};
the weights of epoch {training.best_epoch} are kept. {training.stopped}

![curves]({store.CURVES})
"""


def _scores(scores: Mapping[str, Any] | None, images: str) -> str:
    if scores is None:
        return "## Scores\nNone: no nucleus could be held out, so nobody knows how good the model is.\n"
    rows = "".join(
        f"| {row['threshold']:g} | {row['precision']:.3f} | {row['recall']:.3f} | {row['ap']:.3f} |\n"
        for row in scores["thresholds"]
    )
    return f"""## Scores on {images}
Panoptic quality {scores["panoptic_quality"]:.3f}, AJI {scores["aji"]:.3f}, {scores["n_true"]} nuclei.

| IoU | precision | recall | AP |
| --- | --- | --- | --- |
{rows}
Epoch and thresholds were chosen on the validation images.
"""
