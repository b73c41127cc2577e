"""Training from a model that is there already: its network, made to fit the images, ready to learn on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nucleate.errors import ModelError
from nucleate.inference.backends import TorchBackend
from nucleate.networks.manifest import PARTS, Ancestor
from nucleate.networks.runtime import device, place
from nucleate.networks.store import Model
from nucleate.networks.unet import UNet
from nucleate.networks.unfold import negated, unfolded, with_channels
from nucleate.postprocess.scores import mean_ap
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.hold_out import Pair
from nucleate.training.segmentation import ValidationSet

ASKED = 10
"""The most labelled images that a model is scored on before it learns from them, spread evenly over all."""

LEARNING_RATE = 0.5
"""That of a network which has learnt already, as a part of that of a fresh one."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Where training begins: a `network`, its `lineage`, how well it does untrained on the labelled images (mean AP),
    and whether bright and dark were `exchanged` in it. A pre-trained one has no score."""

    network: UNet
    lineage: tuple[Ancestor, ...]
    score: float | None
    exchanged: bool

    def sentence(self) -> str:
        """What was taken, for a person."""
        if self.score is None:
            return f"Training starts from {self.lineage[-1].name}, which is pre-trained; its last layer is new."
        how = ", with bright and dark exchanged" if self.exchanged else ""
        return (
            f"Training starts from {self.lineage[-1].name}{how}, which scores {self.score:.3f} on the labelled images"
            " as it is."
        )


def warm_start(model: Model, pairs: Sequence[Pair], channels: int, seed: int = 0) -> WarmStart:
    """The network of `model` for images of so many channels.

    A model of bright nuclei on dark ground serves images of the opposite kind with the sign of its first layer
    changed; the sign with the better score on these labelled images is taken, the model's own where they are alike.

    Args:
        model: what training starts from.
        pairs: the labelled images, normalised.
        channels: of the images.
        seed: of the last layer, where the model is pre-trained and has none.

    Raises:
        ModelError: the model cannot learn on, or tells other classes of pixels apart.
    """
    architecture = model.network.architecture
    if architecture.classes != 2:
        raise ModelError(
            f"{model.folder} tells {architecture.classes} classes of pixels apart, and training from a model knows"
            " two: train without --from."
        )
    own = with_channels(unfolded(model.network), channels)
    parent = Ancestor(name=model.manifest.name, weights_sha256=model.manifest.weights_sha256)
    lineage = (*model.manifest.lineage, parent)
    if model.manifest.architecture.parts != PARTS:
        torch.manual_seed(seed)
        own.heads.load_state_dict(UNet(own.architecture).heads.state_dict())
        return WarmStart(place(own, device()), lineage, None, False)
    labelled, criterion = ValidationSet(pairs[:: -(-len(pairs) // ASKED)]), SegmentationCriterion()
    candidates = [(own, False), (negated(own), True)]
    scores = [
        mean_ap(labelled.evaluate(TorchBackend(network.folded()), criterion, model.thresholds).scores)
        for network, _ in candidates
    ]
    best = scores.index(max(scores))
    network, exchanged = candidates[best]
    return WarmStart(place(network, device()), lineage, scores[best], exchanged)
