"""Nuclei that are dark where those of a model's training were bright, or bright where they were dark.

A network that learnt bright nuclei finds no dark ones, and a few corrections do not turn it round without its
forgetting the bright ones. With bright and dark exchanged it finds many at once. So a correction whose nuclei differ
from their surroundings in the other direction than those of the training is learnt from inverted; and from then on an
image is inverted before the network sees it where its median is nearer to those of such corrections
(`data.normalization.is_inverted`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nucleate.data.normalization import inverted, is_inverted
from nucleate.training.hold_out import Pair


def contrast(tile: Pair) -> float | None:
    """The mean of the nuclei less that of the known background; None where one of them is missing.

    >>> image = np.array([[[0.9, 0.7, 0.2, 0.0]]], np.float32)
    >>> round(contrast((image, np.array([[1, 2, 0, -1]], np.int32))), 3), contrast((image, np.zeros((1, 4), np.int32)))
    (0.6, None)
    """
    image, labels = tile
    nuclei, background = image[:, labels > 0], image[:, labels == 0]
    return float(nuclei.mean() - background.mean()) if nuclei.size and background.size else None


def mean_contrast(pairs: Sequence[Pair]) -> float:
    """That of several, 0 where none has one."""
    known = [value for value in map(contrast, pairs) if value is not None]
    return float(np.mean(known)) if known else 0.0


def is_opposite(tile: Pair, usual: float) -> bool:
    """Whether the nuclei of a tile are dark where those of `usual` contrast are bright, or the reverse.

    >>> tile = np.array([[[0.9, 0.1]]], np.float32), np.array([[1, 0]], np.int32)
    >>> is_opposite(tile, -0.3), is_opposite(tile, 0.3), is_opposite(tile, 0.0)
    (True, False, False)
    """
    own = contrast(tile)
    return own is not None and own * usual < 0


def seen(
    image: NDArray[np.float32], levels: tuple[float, float] | None, median: float | None = None
) -> NDArray[np.float32]:
    """A normalised image as a model of these levels sees it; `median` is that of the whole image, where it is a tile.

    >>> seen(np.full((1, 2, 2), 0.75, np.float32), (0.1, 0.8)).max().item()
    0.25
    """
    turned = levels is not None and is_inverted(level(image) if median is None else median, levels)
    return inverted(image) if turned else image


def level(image: NDArray[np.float32]) -> float:
    """The median of a normalised image."""
    return float(np.median(image))


def mean_level(pairs: Sequence[Pair]) -> float:
    """That of several, 0 of none."""
    return float(np.mean([level(image) for image, _ in pairs])) if pairs else 0.0
