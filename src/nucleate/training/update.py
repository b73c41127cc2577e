"""One update of a model that learns on-line: a bounded number of steps about one corrected tile.

Of each batch one half are crops of the tile. The other half is replayed, by turns a crop of the off-line training and
one of an earlier correction; there the update is also held near what the model before said (`remember`). Which crops,
and how they vary, follows from the number of the correction. The parts of a batch are the same however many cores there
are, so the result is, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nucleate import losses
from nucleate.data.augment import AugmentationConfig, Batch, CropParameters, TrainingImage, draw_parameters, make_batch
from nucleate.inference.backends import TorchBackend
from nucleate.networks.runtime import device, place
from nucleate.networks.unet import Architecture, GroupConvolution, UNet
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.ema import ExponentialMovingAverage
from nucleate.training.gradient import Backpropagation
from nucleate.training.hold_out import Pair
from nucleate.training.optimiser import Optimiser
from nucleate.training.parallel import Parallel
from nucleate.training.remember import RememberedTargets, RememberingCriterion
from nucleate.training.replay import SIDE
from nucleate.training.schedule import learning_rate
from nucleate.training.trainer import MAX_GRADIENT_NORM


@dataclass(frozen=True, slots=True)
class OnlineConfig:
    """How an update goes.

    Args:
        steps: of an update, however long they take.
        batch: samples a step, a multiple of 4.
        learning_rate: of the kernels, at its highest; see `Optimiser`.
        remember: share of the divergence from the model before.
        decay: of the averaged weights, which serve: they follow within some four updates.
        tolerance: average precision that the sentinel set may fall below that of the model before any correction.
        variation: how the crops vary.
    """

    steps: int = 12
    batch: int = 4
    learning_rate: float = 0.002
    remember: float = 3.0
    decay: float = 0.98
    tolerance: float = 0.03
    variation: AugmentationConfig = field(default_factory=lambda: AugmentationConfig(crop=SIDE))


WARM_UP = 2
"""Steps of an update over which the learning rate rises; then it falls to zero."""

WEIGHT_DECAY = 0.02

PARTS = 2
"""A batch is computed in so many parts, on as many cores where there are."""


def tensors_of(network: UNet, average: UNet, optimiser: Optimiser | None) -> dict[str, Tensor]:
    """A copy of everything that learns, by name."""
    parts: dict[str, Mapping[str, Tensor]] = {"network": network.state_dict(), "average": average.state_dict()}
    parts |= {} if optimiser is None else optimiser.tensors()
    return {f"{part}/{name}": tensor.clone() for part, values in parts.items() for name, tensor in values.items()}


def network_of(tensors: Mapping[str, Tensor], part: str, architecture: Architecture) -> UNet:
    """The network `part` of these tensors; raises RuntimeError where they are of another one."""
    with torch.random.fork_rng(devices=()):
        network = place(UNet(architecture), device())
    prefix = f"{part}/"
    network.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
    return network


def in_part(before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The tensors `after` an update whose weights have gone but this share of the way from those `before`; the
    optimiser's stay as they are.

    >>> before, after = ({"network/a": torch.tensor(v), "average/a": torch.tensor(v)} for v in (1.0, 2.0))
    >>> in_part(before, after, 0.5)["average/a"].item()
    1.5
    """
    weights = ("network/", "average/")
    return {name: before[name].lerp(t, share) if name.startswith(weights) else t for name, t in after.items()}


@torch.no_grad()
def renormalise(network: UNet) -> None:
    """Give each kernel that is standardised the length that it began with; the network computes the same.

    Standardised kernels grow as steps add up, and the longer they are the less a step turns them.
    """
    for module in network.modules():
        if isinstance(module, GroupConvolution):
            rows = module.weight.flatten(1)
            centred = rows - rows.mean(1, keepdim=True)
            length = centred.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
            module.weight.copy_((centred / length).view_as(module.weight))


class ReplaySampler:
    """The samples of an update, by number: even ones of the tile, of the odd ones every second of an earlier
    correction, where there are any, and all others of the off-line training."""

    def __init__(
        self, tile: Pair, old: Sequence[Pair], earlier: Sequence[Pair], seed: int, variation: AugmentationConfig
    ) -> None:
        groups = [[tile], old or earlier or [tile], earlier or old or [tile]]
        self._images = [TrainingImage.of(image, labels) for group in groups for image, labels in group]
        edges = [0, *itertools.accumulate(len(group) for group in groups)]
        self._groups = [range(*edge) for edge in itertools.pairwise(edges)]
        self._seed, self._variation = seed, variation

    def batch(self, samples: range) -> Batch:
        """The samples of these numbers."""
        return make_batch(self._images, [self._draw(sample) for sample in samples], self._variation.crop)

    def _draw(self, sample: int) -> CropParameters:
        group = self._groups[(0, 1, 0, 2)[sample % 4]]
        images = self._images[group.start : group.stop]
        drawn = draw_parameters(
            self._seed,
            sample,
            [one.shape for one in images],
            channels=images[0].image.shape[0],
            zooms=[one.zoom for one in images],
            counts=[len(one.centres.radius) - 1 for one in images],
            variation=self._variation,
        )
        return replace(drawn, index=group[drawn.index])


def improve(
    tensors: Mapping[str, Tensor],
    architecture: Architecture,
    steps_before: int,
    sampler: ReplaySampler,
    config: OnlineConfig,
    *,
    bfloat16: bool,
    parallel: Parallel,
) -> tuple[dict[str, Tensor], UNet]:
    """The tensors after the steps of one update, and the average that serves; `tensors` stay as they are.

    Raises:
        TrainingError: the loss is not finite.
    """
    losses.warm_up("cross_entropy", "binary_cross_entropy", "kl_divergence")
    network = network_of(tensors, "network", architecture)
    average = ExponentialMovingAverage(network_of(tensors, "average", architecture), config.decay)
    before = TorchBackend(average.network, bfloat16=bfloat16)
    optimiser = Optimiser(network, WEIGHT_DECAY)
    if steps_before:
        optimiser.restore(_parts(tensors))
    renormalise(network)
    renormalise(average.network)
    criterion = RememberingCriterion(SegmentationCriterion(architecture.classes), architecture.classes, config.remember)
    backpropagation = Backpropagation(network)

    def remembered(samples: range) -> Batch:
        batch, replayed = sampler.batch(samples), torch.tensor([sample % 2 == 1 for sample in samples])
        maps = torch.zeros(len(samples), architecture.outputs, *batch.image.shape[-2:])
        if replayed.any():
            maps[replayed] = before.run(batch.image[replayed]).cpu()
        return Batch(batch.image, RememberedTargets.of(batch.targets, maps, replayed))

    for step in range(config.steps):
        first = step * config.batch
        share = config.batch // PARTS
        parts = [range(begin, begin + share) for begin in range(first, first + config.batch, share)]
        batches = parallel.map(remembered, parts)
        backpropagation.backward(criterion, batches, bfloat16=bfloat16, parallel=parallel)
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        rate = learning_rate(step, config.learning_rate, warm_up=WARM_UP, cool_down=(WARM_UP, config.steps))
        optimiser.step(rate)
        average.update(network)
    return tensors_of(network, average.network, optimiser), average.network


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Copies, which an optimiser may change."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = tensor.clone()
    return parts
