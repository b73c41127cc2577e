"""What one correction makes of a model that learns on-line: predict, score, learn, and look whether too much was lost.

A function of the state before and of the correction; nothing is read or written here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nucleate.data.normalization import inverted
from nucleate.errors import TrainingError
from nucleate.inference.backends import Backend, TorchBackend
from nucleate.networks.unet import UNet
from nucleate.postprocess.instances_from_maps import instances_from_maps
from nucleate.training.drift import adwin
from nucleate.training.hold_out import Pair
from nucleate.training.learner_state import LearnerState
from nucleate.training.parallel import Parallel
from nucleate.training.polarity import level, seen
from nucleate.training.replay import SIDE, Memory, crops
from nucleate.training.sentinel import is_too_low, sentinel_score, tile_score
from nucleate.training.update import OnlineConfig, ReplaySampler, improve, in_part, network_of
from nucleate.types import Box, Thresholds

CROPS = 2
"""That each correction offers to the reservoir."""

SHARES = (1.0, 0.5, 0.25)
"""Of an update that are tried in turn where too much is lost by it, before it is taken back."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """What all lessons of a model have in common: the crops that are kept of its training, its thresholds, and how an
    update goes and is computed."""

    memory: Memory
    thresholds: Thresholds
    config: OnlineConfig
    bfloat16: bool
    parallel: Parallel

    def serving(self, average: UNet) -> Backend:
        """What predicts with these weights."""
        return TorchBackend(average, bfloat16=self.bfloat16)

    def sentinel(self, engine: Backend) -> float:
        """The score of the sentinel set."""
        return sentinel_score(engine, self.thresholds, self.memory.sentinel, self.parallel)

    def score(self, engine: Backend, tile: Pair) -> float | None:
        """That of a tile; None where there is nothing to score."""
        return tile_score(tile[1], instances_from_maps(engine(tile[0]), self.thresholds).labels)

    def lesson(
        self, state: LearnerState, serving: Backend, tile: Pair, number: int, nuclei: int, *, turned: bool = False
    ) -> tuple[LearnerState, UNet | None]:
        """The state after correction `number` and the average that serves from now on; None where it stays as it is.

        Args:
            state: before.
            serving: predicts with the averaged weights of that state.
            tile: normalised, with its labels, -1 where unknown; as the network is to see it.
            number: of the correction, from which its crops are drawn.
            nuclei: that were corrected.
            turned: whether bright and dark were exchanged in the tile; see `polarity`.
        """
        numbers = state.numbers
        at_start = self.sentinel(serving) if numbers.sentinel is None else numbers.sentinel
        base = at_start if numbers.sentinel_base is None else numbers.sentinel_base
        numbers = replace(
            numbers, through=number, sentinel_base=base, sentinel=at_start, sentinel_before=at_start,
            before=None, after=None, last_taken_back=False, drift=False,
        )  # fmt: skip
        if not (tile[1] >= 0).any():
            return replace(state, numbers=numbers), None
        plain = inverted(tile[0]) if turned else tile[0]
        before = self.score(serving, (seen(plain, numbers.levels), tile[1]))
        errors, drift = (numbers.errors, False) if before is None else adwin(numbers.errors, 1 - before)
        numbers = replace(numbers, before=before, errors=errors, drift=drift, own_level=self.memory.level)
        if turned:
            count, mean = numbers.inverted + 1, numbers.inverted_level
            mean += (level(plain) - mean) / count
            numbers = replace(numbers, inverted=count, inverted_level=mean)
        part = focus(tile)
        sampler = ReplaySampler(part, self.memory.old, state.reservoir.kept, number, self.config.variation)
        architecture = serving.architecture
        try:
            tensors, average = improve(
                state.tensors, architecture, numbers.steps, sampler, self.config,
                bfloat16=self.bfloat16, parallel=self.parallel,
            )  # fmt: skip
        except TrainingError:
            return replace(
                state, numbers=replace(numbers, taken_back=numbers.taken_back + 1, last_taken_back=True)
            ), None
        whole = tensors
        for share in SHARES:
            if share < 1:
                tensors = in_part(state.tensors, whole, share)
                average = network_of(tensors, "average", architecture)
            engine = self.serving(average)
            sentinel, after = self.sentinel(engine), self.score(engine, tile)
            if not is_too_low(sentinel, at_start, base, self.config.tolerance):
                break
        else:
            back = replace(
                numbers, after=after, sentinel=at_start, taken_back=numbers.taken_back + 1, last_taken_back=True
            )
            return replace(state, numbers=back), None
        numbers = replace(
            numbers, after=after, sentinel=sentinel, learnt=numbers.learnt + 1, nuclei=numbers.nuclei + nuclei,
            steps=numbers.steps + self.config.steps,
        )  # fmt: skip
        return LearnerState(
            tensors, state.reservoir.with_crops(crops([part], CROPS, [number, 3]), number), numbers
        ), average


def focus(tile: Pair) -> Pair:
    """The part of a tile where something is known, with surroundings: crops of it show what was corrected.

    >>> labels = np.full((900, 900), -1, np.int32)
    >>> labels[400:420, 30:50] = 0
    >>> focus((np.zeros((1, 900, 900), np.float32), labels))[1].shape
    (180, 130)
    """
    image, labels = tile
    y, x = np.nonzero(labels >= 0)
    whole = labels.shape[0], labels.shape[1]
    known = Box(int(y.min()), int(x.min()), int(np.ptp(y)) + 1, int(np.ptp(x)) + 1)
    rows, columns = known.grown(SIDE // 2, within=whole).within(Box(0, 0, *whole))
    return np.ascontiguousarray(image[:, rows, columns]), np.ascontiguousarray(labels[rows, columns])
