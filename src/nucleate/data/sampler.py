"""The samples of a training run by their numbers: a function of the seed and the number, and of nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from nucleate.data.augment import (
    AugmentationConfig,
    Batch,
    CropParameters,
    TrainingImage,
    draw_parameters,
    make_batch,
)


class Sampler:
    """The augmented crops of a run, numbered from 0 without an end.

    Args:
        sources: the training images.
        seed: of the run; the same seed and number give the same sample, on any machine.
        variation: how far samples are augmented.
        others: further images, as those with pseudo-labels: every second sample is one of them.
    """

    def __init__(
        self,
        sources: Sequence[TrainingImage],
        seed: int,
        variation: AugmentationConfig,
        others: Sequence[TrainingImage] = (),
    ) -> None:
        self.sources, self.seed, self.variation = [*sources, *others], seed, variation
        edges = [0, len(sources), len(self.sources)] if others else [0, len(sources)]
        self._groups = [range(*edge) for edge in itertools.pairwise(edges)]
        self._shapes = [source.shape for source in self.sources]
        self._zooms = [source.zoom for source in self.sources]
        self._counts = [len(source.centres.radius) - 1 for source in self.sources]

    def batch(self, samples: range) -> Batch:
        """The samples of these numbers, in their order."""
        return make_batch(self.sources, [self._draw(sample) for sample in samples], self.variation.crop)

    def _draw(self, sample: int) -> CropParameters:
        group = self._groups[sample % len(self._groups)]
        part = slice(group.start, group.stop)
        drawn = draw_parameters(
            self.seed,
            sample,
            self._shapes[part],
            channels=self.sources[0].image.shape[0],
            zooms=self._zooms[part],
            counts=self._counts[part],
            variation=self.variation,
        )
        return replace(drawn, index=group[drawn.index])


def split(samples: range, parts: int) -> list[range]:
    """`samples` in order, in `parts` whose lengths differ by one at most.

    >>> split(range(8, 13), 2)
    [range(8, 10), range(10, 13)]
    """
    edges = [len(samples) * part // parts for part in range(parts + 1)]
    return [samples[begin:end] for begin, end in itertools.pairwise(edges)]
