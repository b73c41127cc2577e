"""The task of segmentation: samples of labelled images to learn from, and how a network is evaluated on the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from pydantic import TypeAdapter

from nucleate import losses
from nucleate.data.augment import AugmentationConfig, Batch, TrainingImage
from nucleate.data.sampler import Sampler
from nucleate.inference.backends import Backend, TorchBackend
from nucleate.io.digest import digest_of_arrays
from nucleate.networks.decode import to_maps
from nucleate.networks.unet import UNet
from nucleate.parallel import Communicator, SingleProcess
from nucleate.postprocess.instances_from_maps import instances_from_maps
from nucleate.postprocess.matching import Matching, match
from nucleate.postprocess.scores import Scores, mean_ap, pool
from nucleate.postprocess.targets import Targets, whole
from nucleate.training.config import TrainingConfig
from nucleate.training.criterion import SegmentationCriterion, sum_terms, weighted_mean
from nucleate.training.gradient import Backpropagation
from nucleate.training.hold_out import Pair
from nucleate.training.parallel import Parallel, Serial
from nucleate.training.pixel_loss import parse
from nucleate.training.pseudo_labels import PseudoLabelled
from nucleate.training.trainer import Backward
from nucleate.types import Labels, Maps, Thresholds

_MATCHING = TypeAdapter(Matching)


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
        ranks: Communicator | None = None,
    ) -> ValidationResult:
        """The loss of the engine's maps and the scores of the nuclei in them, several images at once by `parallel`.

        The images are dealt out to `ranks`, all of which get the same result, with the maps of their own images.
        """

        def one(index: int) -> tuple[dict[str, float], Maps, Matching]:
            (image, labels), targets = self.pairs[index], self.targets[index]
            raw = engine.zoomed(torch.from_numpy(image)[None]).cpu()
            totals = {name: float(value) for name, value in criterion.totals(raw, targets).items()}
            maps = to_maps(raw, criterion.classes)
            return totals, maps, self._match(maps, labels, thresholds)

        parallel, ranks = parallel or Serial(), ranks or SingleProcess()
        found = parallel.map(one, range(ranks.rank, len(self.pairs), ranks.size))
        rows = ranks.all([(totals, asdict(matching)) for totals, _, matching in found])
        # In the order of the images, so that sums do not depend on the ranks.
        every = [rows[index % ranks.size][index // ranks.size] for index in range(len(self.pairs))]
        weights = sum_terms(criterion.weights(targets) for targets in self.targets)
        loss = weighted_mean(sum_terms(totals for totals, _ in every), weights, criterion.terms)
        return ValidationResult(
            loss, pool(_MATCHING.validate_python(row) for _, row in every), tuple(m for _, m, _ in found)
        )

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


FEW = ("min_area",)
"""The threshold that is chosen where few images are labelled. What the others win on strips of images that were learnt
from is lost on further ones; but how small nuclei are such strips show."""


def tune_thresholds(
    validation: ValidationSet, maps: Sequence[Maps], start: Thresholds, names: Collection[str] = tuple(GRID)
) -> tuple[Thresholds, Scores]:
    """The thresholds with the best score: coordinate search from `start` over those of these names, twice around; ties
    keep the earlier."""
    best, scores = start, validation.scores(maps, start)
    for _ in range(2):
        before = best
        for name in names:
            for value in GRID[name]:
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
        others: Images with pseudo-labels, or of a former training, which are half of each batch.
    """

    def __init__(
        self,
        training: Sequence[Pair],
        validation: ValidationSet,
        config: TrainingConfig,
        classes: int = 2,
        others: Sequence[PseudoLabelled] = (),
    ) -> None:
        # A run that began without the kernels, and is resumed with them, would differ in the last bits.
        losses.warm_up(*parse(config.loss), "binary_cross_entropy")
        sources = [TrainingImage.of(image, labels) for image, labels in training]
        variation = config.variation or AugmentationConfig.suited(len(sources))
        further = [TrainingImage.of(one.image, one.labels, one.unknown) for one in others]
        self.sampler = Sampler(sources, config.seed, variation, further)
        self.validation = validation
        self.criterion = SegmentationCriterion(classes, config.loss)
        self.identity: dict[str, Any] = {
            "variation": asdict(variation),
            "images": digest_of_arrays(
                [one for pair in training for one in pair]
                + [array for one in others for array in (one.image, one.labels, one.unknown)]
            ),
        }

    def batch(self, samples: range) -> Batch:
        """The samples of these numbers."""
        return self.sampler.batch(samples)

    def backward(self, network: UNet) -> Backward[Batch]:
        """The gradient of the criterion."""
        return partial(Backpropagation(network).backward, self.criterion)

    def evaluate(
        self, network: UNet, *, bfloat16: bool, parallel: Parallel, ranks: Communicator | None = None
    ) -> ValidationResult:
        """The network on the validation images, with thresholds that are not tuned yet."""
        engine = TorchBackend(network, bfloat16=bfloat16)
        return self.validation.evaluate(engine, self.criterion, Thresholds(), parallel, ranks)
