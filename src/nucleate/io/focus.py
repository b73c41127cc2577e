"""Which plane of a stack is in best focus."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from nucleate.io.base import Reader

MEASURED = 2**24
"""Pixels; no more of each plane are looked at, in parts that lie evenly over it."""


def best_plane(planes: Sequence[Reader]) -> int:
    """The place of the plane in best focus, by the normalised variance of its pixels x,

        F = sum over channels of  mean((x - mean(x))^2) / mean(x),

    which is highest where light is gathered into structures and not spread out. Of 18 measures it found the focus of
    microscope images most reliably. Values are counted from 0, or from the lowest of all planes where that is below 0.
    Of planes with one F the first is taken.

    Sources: Groen, Young and Ligthart, A comparison of different focus functions for use in autofocus algorithms, 1985;
    Sun, Duthaler and Nelson, Autofocusing in computer microscopy, 2004.

    Args:
        planes: of one shape, with the same channels.

    >>> from nucleate.io.base import MemoryReader
    >>> from nucleate.types import Image
    >>> rows = [[2, 2, 2, 2], [0, 4, 0, 4], [1, 3, 1, 3]]
    >>> stack = [Image("plane", np.array(row, np.uint8).reshape(1, 4, 1), ("grey",)) for row in rows]
    >>> best_plane([MemoryReader(image) for image in stack])
    1
    """
    moments = [_moments(plane) for plane in planes]
    lowest = np.minimum(0.0, np.min([low for low, _, _ in moments], axis=0))
    measures = [float(np.sum(variance / np.maximum(mean - lowest, _TINY))) for _, mean, variance in moments]
    return int(np.argmax(measures))


_TINY = np.finfo(np.float64).tiny


def _moments(plane: Reader) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The lowest value, the mean and the variance of each channel."""
    boxes = list(plane.pieces())
    seen = max(1, MEASURED // (boxes[0].height * boxes[0].width))
    boxes = list(islice(boxes, 0, None, -(-len(boxes) // seen)))
    count, lowest = 0, np.full(len(plane.channels), np.inf)
    total, squares = np.zeros(len(plane.channels)), np.zeros(len(plane.channels))
    for box in boxes:
        values = plane.read(box).reshape(-1, len(plane.channels)).astype(np.float64)
        count += len(values)
        lowest = np.minimum(lowest, values.min(axis=0))
        total += values.sum(axis=0)
        squares += (values**2).sum(axis=0)
    mean = total / count
    return lowest, mean, np.maximum(squares / count - mean**2, 0.0)
