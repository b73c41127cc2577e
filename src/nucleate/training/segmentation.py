"""The task of segmentation: which labelled pixels are held out, and how a network is evaluated on them.

The rule. With `FEWEST` labelled images or more, every tenth is held out, from the fifth on, in the order of
their names.
With fewer, every image gives a strip instead: the last fifth of its longer side. A nucleus belongs to the strip when
its centre does; what is held out is unknown to training, and what is not is unknown to validation.

Strips do not see that the look of an image is learnt by heart. Leaving each of few images out of a run in turn would,
but such runs over-fit at other epochs than the one that learns from all: `benchmarks/own_curves.py` measures both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nucleate import losses
from nucleate.data.augment import AugmentationConfig, Batch, TrainingImage
from nucleate.data.sampler import Sampler
from nucleate.inference.backends import Backend, TorchBackend
from nucleate.networks.decode import to_maps
from nucleate.networks.unet import UNet
from nucleate.postprocess.instances_from_maps import instances_from_maps
from nucleate.postprocess.matching import Matching, match
from nucleate.postprocess.scores import Scores, mean_ap, pool
from nucleate.postprocess.targets import Targets, centres, whole
from nucleate.training.config import TrainingConfig
from nucleate.training.criterion import SegmentationCriterion, sum_terms, weighted_mean
from nucleate.training.parallel import Parallel, Serial
from nucleate.types import Labels, Maps, Thresholds

FEWEST = 10
"""From this number of labelled images on, whole images are held out; below it, strips."""

STRIP = 0.2
"""The part of the longer side that a strip takes."""

Pair = tuple[NDArray[np.float32], Labels]
"""A normalised image (channels, H, W) and its labels (H, W)."""


def hold_out(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair], str]:
    """Training pairs, validation pairs, and the rule that was applied as a sentence."""
    if len(pairs) >= FEWEST:
        training = [pair for index, pair in enumerate(pairs) if index % 10 != 4]
        validation = list(pairs[4::10])
        return training, validation, f"{len(validation)} of {len(pairs)} labelled images are held out for validation."
    strips = [_cut(labels) for _, labels in pairs]
    training = [(image, kept) for (image, _), (kept, _) in zip(pairs, strips, strict=True)]
    validation = [(image, held) for (image, _), (_, held) in zip(pairs, strips, strict=True)]
    return training, validation, f"The last fifth of each of {len(pairs)} labelled images is held out for validation."


def _cut(labels: Labels) -> tuple[Labels, Labels]:
    """The labels that training keeps and those that validation gets; -1 where the other has it."""
    axis = int(labels.shape[1] >= labels.shape[0])
    edge = int(labels.shape[axis] * (1 - STRIP))
    position = centres(labels).position[:, axis]
    strip = np.indices(labels.shape)[axis] >= edge
    in_strip = np.where(labels > 0, position[np.maximum(labels, 0)] >= edge, strip)
    return np.where(in_strip, -1, labels).astype(np.int32), np.where(in_strip, labels, -1).astype(np.int32)


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """`loss`, the criterion over all validation pixels; `scores` of the nuclei found; the `maps` they came from."""

    loss: float
    scores: Scores
    maps: tuple[Maps, ...]

    @property
    def score(self) -> float:
        """The number that chooses: average precision, pooled, mean over IoU 0.5, 0.6, 0.7, 0.8 and 0.9."""
        return mean_ap(self.scores)

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the history tells besides."""
        return {"panoptic_quality": self.scores.panoptic_quality}


class ValidationSet:
    """The validation images with their targets, ready for a network to be evaluated on after each epoch."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        self.targets: list[Targets] = [whole(labels) for _, labels in self.pairs]

    def evaluate(
        self,
        engine: Backend,
        criterion: SegmentationCriterion,
        thresholds: Thresholds,
        parallel: Parallel | None = None,
    ) -> ValidationResult:
        """The loss of the engine's maps and the scores of the nuclei in them, several images at once by `parallel`."""

        def one(index: int) -> tuple[dict[str, float], Maps, Matching]:
            (image, labels), targets = self.pairs[index], self.targets[index]
            raw = engine.zoomed(torch.from_numpy(image)[None]).cpu()
            totals = {name: float(value) for name, value in criterion.totals(raw, targets).items()}
            maps = to_maps(raw, criterion.classes)
            return totals, maps, self._match(maps, labels, thresholds)

        parallel = parallel or Serial()
        totals, maps, matchings = zip(*parallel.map(one, range(len(self.pairs))), strict=True)
        weights = sum_terms(criterion.weights(targets) for targets in self.targets)
        return ValidationResult(weighted_mean(sum_terms(totals), weights), pool(matchings), maps)

    def scores(self, maps: Sequence[Maps], thresholds: Thresholds) -> Scores:
        return pool(self._match(one, labels, thresholds) for one, (_, labels) in zip(maps, self.pairs, strict=True))

    def _match(self, maps: Maps, labels: Labels, thresholds: Thresholds) -> Matching:
        return match(labels, instances_from_maps(maps, thresholds).labels)


GRID: dict[str, tuple[float, ...]] = {
    "foreground": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65),
    "peak_threshold": (0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
    "nms_radius": (0.4, 0.5, 0.6, 0.7, 0.8, 0.95, 1.1, 1.3),
    "assign_radius": (0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5),
    "min_area": (6, 12, 20, 30, 40),
    "seed_foreground": (0.0, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95),
}
"""The values among which thresholds are chosen, one threshold after the other."""


def tune_thresholds(validation: ValidationSet, maps: Sequence[Maps], start: Thresholds) -> tuple[Thresholds, Scores]:
    """The thresholds with the best score: coordinate search from `start`, twice around; ties keep the earlier."""
    best, scores = start, validation.scores(maps, start)
    for _ in range(2):
        before = best
        for name, values in GRID.items():
            for value in values:
                candidate = replace(best, **{name: type(getattr(best, name))(value)})
                if candidate == best:
                    continue
                found = validation.scores(maps, candidate)
                if mean_ap(found) > mean_ap(scores) + 1e-9:
                    best, scores = candidate, found
        if best == before:
            break
    return best, scores


class SegmentationTask:
    """Learn to find nuclei: what `Trainer` needs to know of labelled images.

    Args:
        training: Images and labels to learn from.
        validation: What the network is evaluated on after each epoch.
        config: Seed, loss and variation of the samples.
        classes: Classes of pixels, background among them.
    """

    def __init__(
        self, training: Sequence[Pair], validation: ValidationSet, config: TrainingConfig, classes: int = 2
    ) -> None:
        # Were the kernels to come into use in the middle of a run, a resumed one would differ in the last bits.
        losses.warm_up("cross_entropy")
        sources = [TrainingImage.of(image, labels) for image, labels in training]
        variation = config.variation or AugmentationConfig.suited(len(sources))
        self.sampler = Sampler(sources, config.seed, variation)
        self.validation = validation
        self.criterion = SegmentationCriterion(classes, config.loss)
        self.identity: dict[str, Any] = {
            "variation": asdict(variation),
            "images": [list(source.shape) for source in sources],
        }

    def batch(self, samples: range) -> Batch:
        """The samples of these numbers."""
        return self.sampler.batch(samples)

    def evaluate(self, network: UNet, *, bfloat16: bool, parallel: Parallel) -> ValidationResult:
        """The network on the validation images, with thresholds that are not tuned yet."""
        engine = TorchBackend(network, bfloat16=bfloat16)
        return self.validation.evaluate(engine, self.criterion, Thresholds(), parallel)
