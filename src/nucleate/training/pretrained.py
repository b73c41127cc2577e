"""How the models of the package do on validation images of one's own."""

from __future__ import annotations

from nucleate.data.normalization import Normalisation
from nucleate.inference.backends import TorchBackend
from nucleate.networks import store
from nucleate.postprocess.scores import Scores
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.segmentation import ValidationSet


def compare_pretrained(validation: ValidationSet, criterion: SegmentationCriterion, channels: int) -> dict[str, Scores]:
    """The scores of the models for so many channels on the validation images, by their names.

    None where no nucleus is held out.
    """
    if not any((labels > 0).any() for _, labels in validation.pairs):
        return {}
    found = {}
    for name in store.EMBEDDED:
        model = store.read(store.locate(name))
        # The images are normalised already, in the way of a model that is trained today.
        if model.manifest.architecture.channels == channels and model.normalisation == Normalisation():
            found[name] = validation.evaluate(TorchBackend(model.network), criterion, model.thresholds).scores
    return found
