"""What helps with the data at hand: which model training starts from, and whether a finished teacher may label images.

With few labels no image can be spared to decide this, so the rules are fixed beforehand and look at little: how well a
model does untrained on the labelled images; where that says nothing, short trials side by side, judged on what was held
out; and how many held-out nuclei a teacher finds. `benchmarks/few_labels.py` measures how they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nucleate.errors import ModelError
from nucleate.networks.store import EMBEDDED, locate, read
from nucleate.networks.unet import Architecture, UNet
from nucleate.parallel import Communicator, SingleProcess
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import LabelledImages
from nucleate.training.parallel import Threads
from nucleate.training.segmentation import SegmentationTask, ValidationSet
from nucleate.training.trainer import Trainer, new_network
from nucleate.training.warm_start import LEARNING_RATE, WarmStart, warm_start

LEAST = 0.2
"""Mean AP on the labelled images from which on a model that has not learnt from them is taken without a trial."""

TRIAL = 40
"""Steps of a trial."""

JUDGES = 10
"""The most held-out images, or strips, that a trial is judged on."""

CLEARLY = 0.05
"""The part by which the held-out error of the trial from a model must be below that from scratch."""

SURE = 0.75
"""Precision and recall at an IoU of 0.5, on held-out nuclei, from which on a model may label images for another one. A
model that misses more teaches what it misses as background."""


@dataclass(frozen=True, slots=True)
class Start:
    """What training starts from, a model folder or None for random weights, and the reason, in a sentence."""

    parent: Path | None
    reason: str


def choose_start(
    data: LabelledImages,
    config: TrainingConfig,
    candidates: Sequence[str] = EMBEDDED,
    ranks: Communicator | None = None,
) -> Start:
    """The model that training should start from, if any.

    The candidate that finds the nuclei of the labelled images best, untrained, is taken where its mean AP is `LEAST` or
    more. Below it, training from that candidate and from scratch are tried side by side, `TRIAL` steps each with the
    same samples, and the candidate is taken where its held-out error is lower by the part `CLEARLY`.

    Args:
        data: the labelled images.
        config: of the run; the trials have its seed, loss and variation.
        candidates: model folders, or names of models in the package.
        ranks: the processes that train together, of which the first one chooses.
    """
    name, reason = (ranks or SingleProcess()).by_first(partial(_choose, data, config, candidates))
    return Start(None if name is None else locate(name), reason)


def _choose(data: LabelledImages, config: TrainingConfig, candidates: Sequence[str]) -> tuple[str | None, str]:
    begun = {name: one for name in candidates if (one := _begun(name, data, config)) is not None}
    if not begun:
        return None, "Training starts from scratch: there is no other model to start from."
    best = max(begun, key=lambda name: begun[name].score or 0.0)
    scores = " and ".join(f"{name} {one.score:.3f}" for name, one in begun.items())
    if (begun[best].score or 0.0) >= LEAST:
        return best, f"Training starts from {best}: untrained, mean AP on the labelled images is {scores}."
    little = f"untrained, mean AP on the labelled images is but {scores}"
    if not data.validation:
        return None, f"Training starts from scratch: {little}, and nothing could be held out for a trial."
    fresh = new_network(Architecture(channels=len(data.channels), widths=config.widths), config.seed)
    scratch = trial_error(fresh, data, config)
    warm = trial_error(begun[best].network, data, replace(config, learning_rate=LEARNING_RATE * config.learning_rate))
    tried = f"after {TRIAL} steps of each the held-out error is {warm:.3f} from {best} and {scratch:.3f} from scratch"
    if warm < (1 - CLEARLY) * scratch:
        return best, f"Training starts from {best}: {little}; but {tried}."
    return None, f"Training starts from scratch: {little}, and {tried}."


def _begun(name: str, data: LabelledImages, config: TrainingConfig) -> WarmStart | None:
    """The candidate ready to learn; None for one of a kind that cannot learn on, or that is pre-trained alone."""
    try:
        found = warm_start(read(locate(name), whole=False), data.training, len(data.channels), config.seed)
    except ModelError:
        return None
    return None if found.score is None else found


def trial_error(network: UNet, data: LabelledImages, config: TrainingConfig) -> float:
    """The held-out error of a network after `TRIAL` steps; the network is changed."""
    short = replace(
        config, minutes=None, epochs=1, minimum=1, samples=TRIAL * config.batch, warm_up=min(config.warm_up, TRIAL // 4)
    )
    judges = ValidationSet(data.validation[:JUDGES])
    task = SegmentationTask(data.training, judges, short, network.architecture.classes)
    with Threads() as threads:
        result = Trainer(network, task, short, parallel=threads).train()
    error: float = result.state.history[-1]["valid_loss"]
    return error


def may_teach(scores: Mapping[str, Any] | None) -> tuple[bool, str]:
    """Whether a model with these validation scores (`Manifest.scores`) may label images, and why, in a sentence.

    >>> row = {"threshold": 0.5, "precision": 0.9, "recall": 0.6}
    >>> may, why = may_teach({"n_true": 40, "thresholds": [row]})
    >>> may, why.partition(": ")[2]
    (False, 'the model finds 60% of the held-out nuclei, and 90% of what it finds are nuclei; both must be 75%.')
    """
    left_out = "The images without labels are left out"
    row = next((one for one in (scores or {}).get("thresholds", ()) if one["threshold"] == 0.5), None)
    if scores is None or row is None or not scores.get("n_true"):
        return False, f"{left_out}: no nucleus was held out, so nobody knows how good the model is."
    recall, precision = row["recall"], row["precision"]
    found = f"the model finds {recall:.0%} of the held-out nuclei, and {precision:.0%} of what it finds are nuclei"
    if min(recall, precision) >= SURE:
        return True, f"The images without labels are learnt from: {found}."
    return False, f"{left_out}: {found}; both must be {SURE:.0%}."
