"""The card of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from nucleate.curves.curves import Curves, curves
from nucleate.networks import store
from nucleate.networks.manifest import Manifest, TrainingPart
from nucleate.sentences import command, count

IMAGES = {"validation": "the validation images", "test": "the test images, which it had never seen"}
"""What the scores of a manifest are of, by their names there; others are of a model of the package."""


def run_curves(history: Sequence[Mapping[str, float]], training: TrainingPart) -> Curves:
    """The curves of a model's run, with the epoch kept, the end and the part judged over-fitting."""
    # Decided within the first epoch it has no place on the curves.
    stop, start = training.stop_epoch or None, training.over_fitting
    return curves(history, training.best_epoch, stop, None if start is None or stop is None else (start, stop))


def card(manifest: Manifest, model: Path | str, scored: str = "validation") -> str:
    """The model's README: `model` is its folder or its name in the package; `scored` names the scores to show."""
    data, training = manifest.data, manifest.training
    licence = f" ({data.licence})" if data.licence else ""
    nuclei, steps = count(data.nuclei, "nucleus", "nuclei"), count(training.steps, "step")
    return f"""# {manifest.name}

Finds nuclei in images with {count(len(data.channels), "channel")} ({", ".join(data.channels)}).

    {command("predict", model, "IMAGES", "--out", "DIR")}

## Data
{data.source}{licence}: {count(data.labelled, "labelled image")}, {nuclei}, median diameter
{data.median_diameter:.1f} pixels. {data.validation}

{_scores(manifest, scored)}
## Training
{count(training.epochs, "epoch")}, {steps}, {training.seconds:.0f} s, loss {training.loss}, seed {training.seed};
the weights of epoch {training.best_epoch} are kept. {" ".join((training.stopped, *training.reasons))}

![curves]({store.CURVES})
"""


def _scores(manifest: Manifest, scored: str) -> str:
    scores = manifest.scores.get(scored)
    if not known(scores):
        return "## Scores\nNone: no nucleus could be held out, so nobody knows how good the model is.\n"
    rows = "".join(
        f"| {row['threshold']:g} | {row['precision']:.3f} | {row['recall']:.3f} | {row['ap']:.3f} |\n"
        for row in scores["thresholds"]
    )
    others = "".join(
        f"The model {name} of the package has panoptic quality {other['panoptic_quality']:.3f} on the same images.\n"
        for name, other in manifest.scores.items()
        if name not in IMAGES
    )
    nuclei = count(scores["n_true"], "nucleus", "nuclei")
    return f"""## Scores on {IMAGES[scored]}
Panoptic quality {scores["panoptic_quality"]:.3f}, AJI {scores["aji"]:.3f}, {nuclei}.
{others}
| IoU | precision | recall | AP |
| --- | --- | --- | --- |
{rows}
Epoch and thresholds were chosen on the validation images.
"""


def known(scores: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Whether there are scores, and true nuclei that they are of."""
    return scores is not None and scores.get("n_true", 1) > 0
