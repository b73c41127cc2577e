"""A small model folder that learns on-line, and corrections for it."""

import hashlib
import platform

import numpy as np
import torch

from nucleate.data.augment import AugmentationConfig
from nucleate.data.normalization import normalise
from nucleate.data.synthetic import fluorescence
from nucleate.networks import store
from nucleate.networks.manifest import (
    DataPart,
    Manifest,
    NormalisationPart,
    ThresholdsPart,
    TrainingPart,
    architecture_part,
)
from nucleate.networks.unet import Architecture, UNet
from nucleate.training.online import OnlineConfig
from nucleate.training.replay import Memory

SMALL = OnlineConfig(steps=2, tolerance=1.0, variation=AugmentationConfig(crop=32))


def drawn(seed, side=48):
    return fluorescence(seed=(9, seed), height=side, width=side, diameter=12.0)


def pairs(count, seed=0):
    return [(normalise(image, 1), labels) for image, labels in (drawn(100 * seed + k) for k in range(count))]


def small_model(folder, *, replay=True, seed=0):
    """A network with random weights as a model folder; it finds nothing, and can learn."""
    torch.manual_seed(seed)
    network = UNet(Architecture(widths=(8, 8)))
    weights = store.encode_weights(network, half=True)
    memory = Memory.of(pairs(3, 1), pairs(2, 2)).encoded() if replay else None
    manifest = Manifest(
        name="small",
        architecture=architecture_part(network.architecture),
        normalisation=NormalisationPart(low=1.0, high=99.8),
        thresholds=ThresholdsPart(
            foreground=0.5, peak_threshold=0.2, nms_radius=1.0, assign_radius=1.0, min_area=5, seed_foreground=0.0
        ),
        data=DataPart(
            source="drawn", labelled=1, nuclei=1, median_diameter=12.0, validation="none", channels=("grey",)
        ),
        trainings=(
            TrainingPart(
                seed=0, loss="cross_entropy", epochs=0, steps=0, seconds=0.0, best_epoch=0, stopped="At once."
            ),
        ),
        scores={},
        versions={"python": platform.python_version()},
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        replay_sha256=None if memory is None else hashlib.sha256(memory).hexdigest(),
    )
    store.write(folder, manifest, weights, [], {} if memory is None else {store.REPLAY: memory})
    return folder


def contents(folder):
    """The files that predict, and the state; what tells the time is left out."""
    names = ("model.json", "online/state-0.safetensors", "online/state-1.safetensors",
             "online/weights-0.safetensors", "online/weights-1.safetensors", "weights.safetensors")  # fmt: skip
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def unknown(labels):
    return np.full_like(labels, -1)
