"""The samples of a training run by their numbers: a function of the seed and the number, and of nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from nucleate.data.augment import AugmentationConfig, Batch, TrainingImage, draw_parameters, make_batch


class Sampler:
    """The augmented crops of a run, numbered from 0 without an end.

    Args:
        sources: the training images.
        seed: of the run; the same seed and number give the same sample, on any machine.
        variation: how far samples are augmented.
    """

    def __init__(self, sources: Sequence[TrainingImage], seed: int, variation: AugmentationConfig) -> None:
        self.sources, self.seed, self.variation = sources, seed, variation
        self._shapes = [source.shape for source in sources]
        self._zooms = [source.zoom for source in sources]
        self._counts = [len(source.centres.radius) - 1 for source in sources]

    def batch(self, samples: range) -> Batch:
        """The samples of these numbers, in their order."""
        channels = self.sources[0].image.shape[0]
        chosen = [
            draw_parameters(
                self.seed,
                sample,
                self._shapes,
                channels=channels,
                zooms=self._zooms,
                counts=self._counts,
                variation=self.variation,
            )
            for sample in samples
        ]
        return make_batch(self.sources, chosen, self.variation.crop)


def split(samples: range, parts: int) -> list[range]:
    """`samples` in order, in `parts` whose lengths differ by one at most.

    >>> split(range(8, 13), 2)
    [range(8, 10), range(10, 13)]
    """
    edges = [len(samples) * part // parts for part in range(parts + 1)]
    return [samples[begin:end] for begin, end in itertools.pairwise(edges)]
