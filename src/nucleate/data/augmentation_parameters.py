"""The plan of a run: which crop of which image, varied in which way, as a function of the seed and the sample index.

Nothing here depends on the batch size, on the number of processes, or on what was drawn before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MANY_IMAGES = 100
"""Labelled images, from which on each is varied less; see `Variation.suited`."""


@dataclass(frozen=True, slots=True)
class Variation:
    """How far samples are varied. `scale` and `stretch` are factors, `turn` radians, the rest are in units of the
    normalised intensity; each is the bound or the standard deviation named in `draw`."""

    crop: int = 256
    scale: float = 1.3
    unzoomed: float = 0.2
    stretch: float = 1.06
    turn: float = math.pi
    turned: float = 0.5
    gamma: float = 0.2
    gain: float = 0.25
    shift: float = 0.08
    noise: float = 0.05
    blur: float = 1.5
    blurred: float = 0.2
    stain: float = 0.15

    @classmethod
    def suited(cls, images: int) -> Variation:
        """What suits a run on so many images: few show less of what there is, so each of them is varied further.

        >>> Variation.suited(5).scale, Variation.suited(300).scale
        (1.5, 1.3)
        """
        if images >= MANY_IMAGES:
            return cls()
        return cls(scale=1.5, stretch=1.12, gamma=0.3, gain=0.35, noise=0.07, blurred=0.3)


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample: image `index`; `matrix` (2, 3) takes crop coordinates (y, x, 1), in pixels from the crop's centre,
    to image coordinates; then the changes of intensity, in the order in which they are applied."""

    index: int
    matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    blur: float
    gamma: float
    gain: tuple[float, ...]
    shift: tuple[float, ...]
    noise: float
    noise_seed: int


def draw(
    seed: int,
    sample: int,
    shapes: Sequence[tuple[int, int]],
    *,
    channels: int,
    zooms: Sequence[float] | None = None,
    counts: Sequence[int] | None = None,
    variation: Variation | None = None,
) -> Draw:
    """Sample number `sample` (0, 1, ...) of the run with this seed, over images of these (height, width).

    An image is chosen with a probability in proportion to sqrt(1 + n), n the number of its nuclei in `counts` (0 by
    default, all images alike): a crowd shows more than one nucleus alone, but not in proportion. It is resized by its
    factor in `zooms` (1 by default), but for a share `unzoomed` of the crops, since the size of nuclei is judged on
    such ones.

    >>> first, again = (draw(0, 5, [(64, 64), (99, 20)], channels=1) for _ in range(2))
    >>> bool((first.matrix == again.matrix).all()), first.noise_seed == again.noise_seed
    (True, True)
    """
    v = variation or Variation()
    rng = np.random.default_rng([seed, sample])
    resized = np.ones(len(shapes)) if zooms is None else np.asarray(zooms)
    weights = np.ones(len(shapes)) if counts is None else np.sqrt(1.0 + np.asarray(counts))
    index = int(np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(), side="right"))
    index = min(index, len(shapes) - 1)
    scale = math.exp(rng.uniform(-1, 1) * math.log(v.scale))
    if rng.random() >= v.unzoomed:
        scale *= resized[index]
    stretch = math.exp(rng.uniform(-1, 1) * math.log(v.stretch))
    angle = rng.uniform(-v.turn, v.turn) if rng.random() < v.turned else (math.pi / 2) * int(rng.integers(4))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = rotation @ np.diag([flip / (scale * stretch), stretch / scale])
    reach = np.abs(linear).sum(axis=1) * (v.crop / 2)
    size = np.array(shapes[index], dtype=float)
    slack = np.abs(size / 2 - reach)
    centre = (size - 1) / 2 + rng.uniform(-1, 1, 2) * slack
    tints = rng.normal(0, v.stain if channels > 1 else 0.0, channels)
    gain = math.exp(rng.normal(0, v.gain))
    shift = rng.normal(0, v.shift) + (rng.normal(0, v.stain / 3, channels) if channels > 1 else np.zeros(channels))
    return Draw(
        index=index,
        matrix=np.concatenate([linear, centre[:, None]], axis=1),
        blur=float(rng.uniform(0.3, v.blur)) if rng.random() < v.blurred else 0.0,
        gamma=math.exp(rng.normal(0, v.gamma)),
        gain=tuple(gain * np.exp(tints)),
        shift=tuple(shift),
        noise=float(rng.uniform(0, v.noise)) if rng.random() < 0.5 else 0.0,
        noise_seed=int(rng.integers(2**62)),
    )
