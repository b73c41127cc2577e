"""Crops that a model is reminded of while it learns on-line, kept in a bounded file and a bounded reservoir.

`train` saves crops of its images with the model: `old` ones of the images that it learnt from, and `sentinel` ones of
those held out, at most `LARGEST` bytes together. Later crops come from corrections; of them a reservoir keeps each that
ever was with the same probability (algorithm R; Vitter, Random sampling with a reservoir, ACM TOMS 11 (1985) 37). The
old crops are never replaced, so that what a model learnt off-line stays half of what it is reminded of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nucleate.data.normalization import normalise
from nucleate.data.synthetic import STYLES
from nucleate.errors import ModelError
from nucleate.training.hold_out import Pair
from nucleate.training.polarity import mean_contrast, mean_level
from nucleate.types import Labels

LARGEST = 8_000_000
"""Bytes of all crops that are saved with a model."""

SIDE = 160
"""Pixels of a crop."""

OLD, SENTINEL = 64, 10
"""Crops of each kind, as far as the bytes suffice."""

CAPACITY = 32
"""Crops of corrections in the reservoir."""


@dataclass(frozen=True)
class Memory:
    """The crops that are saved with a model: pairs of a normalised image and its labels, -1 where unknown."""

    old: tuple[Pair, ...]
    sentinel: tuple[Pair, ...]

    @cached_property
    def level(self) -> float:
        """The mean level of the old crops; see `polarity`."""
        return mean_level(self.old)

    @cached_property
    def contrast(self) -> float:
        """Their mean contrast."""
        return mean_contrast(self.old)

    @classmethod
    def of(cls, training: Sequence[Pair], held_out: Sequence[Pair], seed: int = 0) -> Memory:
        """Crops of labelled images, as many as may be saved; where none is held out, the sentinel ones are of the
        images that were learnt from."""
        channels = training[0][0].shape[0]
        fits = LARGEST // (SIDE * SIDE * (2 * channels + 2))
        sentinel = min(SENTINEL, max(1, fits // 8))
        return cls(
            tuple(crops(training, max(1, min(OLD, fits - sentinel)), [seed, 0])),
            tuple(crops(held_out or training, sentinel, [seed, 1])),
        )

    @classmethod
    def drawn(cls, channels: int) -> Memory:
        """The same of drawn images, for a model that was saved without crops: nuclei in fluorescence for one channel,
        stained tissue for three."""
        style = STYLES["tissue" if channels == 3 else "fluorescence"]
        both: list[list[Pair]] = []
        for kind, count in ((0, OLD), (1, SENTINEL)):
            rng = np.random.default_rng([kind, 4])
            both.append([])
            for index in range(count):
                # Of many sizes and densities, as nobody knows which ones the model learnt from.
                how = {"diameter": float(rng.uniform(12, 36)), "cover": float(rng.uniform(0.05, 0.35))}
                how["blur"] = how["diameter"] * float(rng.uniform(0.03, 0.1))
                image, labels = style((kind, index), SIDE, SIDE, **how)
                both[-1].append((normalise(image, channels), labels))
        return cls(tuple(both[0]), tuple(both[1]))

    def encoded(self) -> bytes:
        """As a safetensors file: of each crop the image in float16 and the labels in int16."""
        content: bytes = save({**to_tensors(self.old, "old"), **to_tensors(self.sentinel, "sentinel")})
        return content

    @classmethod
    def decoded(cls, content: bytes, path: Path, channels: int) -> Memory:
        """Raises ModelError, which names the file, where the bytes are others."""
        try:
            tensors = load(content)
            found = cls(from_tensors(tensors, "old"), from_tensors(tensors, "sentinel"))
            if any(image.shape[0] != channels for image, _ in (*found.old, *found.sentinel)):
                raise ValueError("other channels")
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path} is damaged ({error}): copy the model again.") from error
        return found


def crops(pairs: Sequence[Pair], count: int, seed: Sequence[int]) -> list[Pair]:
    """So many crops, of each image in turn, each about one of its nuclei where it has any; seeded.

    >>> image, labels = np.zeros((1, 300, 200), np.float32), np.zeros((300, 200), np.int32)
    >>> labels[290:, 190:] = 7
    >>> [(one.shape, int(nuclei.max())) for one, nuclei in crops([(image, labels)], 2, [0])]
    [((1, 160, 160), 1), ((1, 160, 160), 1)]
    """
    rng = np.random.default_rng([*seed])
    order = rng.permutation(len(pairs))
    found = []
    for index in range(count):
        image, labels = pairs[order[index % len(order)]]
        wanted = np.unique(labels[labels > 0])
        known = labels == wanted[rng.integers(wanted.size)] if wanted.size else labels >= 0
        y, x = np.nonzero(known) if known.any() else np.nonzero(np.ones_like(labels))
        at = rng.integers(y.size)
        centre = int(y[at]), int(x[at])
        jitter = rng.integers(-SIDE // 4, SIDE // 4 + 1, 2)
        spans = [
            slice(begin, begin + min(SIDE, length))
            for begin, length in (
                (int(np.clip(c + j - SIDE // 2, 0, max(0, length - SIDE))), length)
                for c, j, length in zip(centre, jitter, labels.shape, strict=True)
            )
        ]
        found.append((np.ascontiguousarray(image[:, spans[0], spans[1]]), renumbered(labels[spans[0], spans[1]])))
    return found


def renumbered(labels: Labels) -> Labels:
    """The nuclei as 1..N in the order of their numbers; unknown pixels as -1."""
    nucleus = labels > 0
    found = np.where(labels < 0, -1, 0).astype(np.int32)
    found[nucleus] = 1 + np.unique(labels[nucleus], return_inverse=True)[1]
    return found


@dataclass(frozen=True, slots=True)
class Reservoir:
    """Of the `seen` crops of corrections those that are kept."""

    kept: tuple[Pair, ...] = field(default=())
    seen: int = 0

    def with_crops(self, new: Sequence[Pair], seed: int) -> Reservoir:
        """The reservoir after these crops; which of those before give way follows from the seed.

        >>> one = (np.zeros((1, 2, 2), np.float32), np.zeros((2, 2), np.int32))
        >>> full = Reservoir().with_crops([one] * (CAPACITY + 5), seed=0)
        >>> len(full.kept) == CAPACITY, full.seen == CAPACITY + 5
        (True, True)
        """
        rng, kept, seen = np.random.default_rng([seed, 2]), list(self.kept), self.seen
        for one in new:
            place = len(kept) if seen < CAPACITY else int(rng.integers(seen + 1))
            if place < CAPACITY:
                kept[place : place + 1] = [one]
            seen += 1
        return replace(self, kept=tuple(kept), seen=seen)


def to_tensors(pairs: Sequence[Pair], name: str) -> dict[str, Tensor]:
    """Crops as small tensors, by names that begin with `name`."""
    found = {}
    for index, (image, labels) in enumerate(pairs):
        found[f"{name}/{index}/image"] = torch.from_numpy(image.astype(np.float16))
        found[f"{name}/{index}/labels"] = torch.from_numpy(labels.astype(np.int16))
    return found


def from_tensors(tensors: dict[str, Tensor], name: str) -> tuple[Pair, ...]:
    """What `to_tensors` was given, its images rounded to half precision."""
    count = sum(one.startswith(f"{name}/") for one in tensors) // 2
    return tuple((_image(tensors[f"{name}/{i}/image"]), _labels(tensors[f"{name}/{i}/labels"])) for i in range(count))


def _image(tensor: Tensor) -> NDArray[np.float32]:
    if tensor.ndim != 3 or tensor.dtype != torch.float16:
        raise ValueError("an image of another kind")
    return np.asarray(tensor.numpy(), dtype=np.float32)


def _labels(tensor: Tensor) -> Labels:
    if tensor.ndim != 2 or tensor.dtype != torch.int16:
        raise ValueError("labels of another kind")
    found: np.ndarray[Any, np.dtype[np.int32]] = tensor.numpy().astype(np.int32)
    return found
