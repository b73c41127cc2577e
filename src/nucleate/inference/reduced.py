"""Images of nuclei too large for the network to see whole: reduced by a whole factor, and their labels enlarged."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from nucleate.data.normalization import Statistics
from nucleate.inference.sliding_window import ForwardPass, judge
from nucleate.io.base import Level, Reader
from nucleate.networks.manifest import Manifest
from nucleate.postprocess.rescale import LARGEST, distinct_diameter, predicted_diameter, reduction
from nucleate.types import Box, Labels, Pixels

CONTRAST = 0.35
"""Of the range of an image; where a reduced one has less, what was seen at full size was noise."""


class ReducedReader(Reader):
    """An image reduced by a whole `factor`: each pixel is the mean, in float32, of the factor x factor that it covers,
    of fewer at the lower and right border."""

    def __init__(self, reader: Reader, factor: int) -> None:
        self.reader, self.factor = reader, factor
        self.name, self.path, self.channels, self.dtype = reader.name, reader.path, reader.channels, np.dtype("float32")
        height, width = (-(-side // factor) for side in reader.shape)
        self.levels, self.level = (Level((height, width), float(factor)),), 0
        self.pixel_size = None if reader.pixel_size is None else reader.pixel_size * factor
        self.piece = min(height, -(-reader.piece[0] // factor)), min(width, -(-reader.piece[1] // factor))

    def read(self, box: Box) -> Pixels:
        self.check_inside(box)
        pixels = self.reader.read(fine(box, self.factor, self.reader.shape)).astype(np.float32)
        rows, columns = (np.arange(0, side, self.factor) for side in pixels.shape[:2])
        sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0), columns, axis=1)
        high, wide = (
            np.diff(np.append(starts, side)) for starts, side in zip((rows, columns), pixels.shape, strict=False)
        )
        return np.asarray(sums / (high[:, None] * wide)[..., None], dtype=np.float32)


def is_reduced(manifest: Manifest) -> bool:
    """Whether images of very large nuclei are reduced for this model.

    A model that learnt from very large nuclei knows them as they are. One that learnt on-line, perhaps of images of
    another kind, may see at a quarter of the size what is not there; it was corrected at full size.
    """
    return manifest.data.median_diameter <= LARGEST and manifest.corrections is None


def suitable_factor(network: ForwardPass, reader: Reader, statistics: Statistics) -> int:
    """By which whole factor an image is reduced so that the network sees its nuclei; 1 for nuclei of ordinary size."""

    def diameter(factor: int) -> float:
        reduced, contrast = ReducedReader(reader, factor), [0.0]

        def read(box: Box) -> torch.Tensor:
            pixels = statistics.normalise(reduced.read(box), reduced.channels)
            contrast.append(float(np.subtract(*np.percentile(pixels, (99, 1)))))
            return torch.from_numpy(pixels)[None]

        # At half size very large nuclei are still seen in pieces.
        measure = distinct_diameter if factor > 2 else predicted_diameter
        found = judge(network, reduced.shape, read, measure)[2]
        return found if max(contrast) > CONTRAST else 0.0

    return reduction(diameter) if max(reader.shape) > LARGEST else 1


def fine(box: Box, factor: int, shape: tuple[int, int]) -> Box:
    """The pixels that a box of the reduced image covers in the image of this (height, width).

    >>> fine(Box(1, 0, 2, 3), 4, (10, 12))
    Box(y=4, x=0, height=6, width=12)
    """
    y, x = box.y * factor, box.x * factor
    return Box(y, x, min(box.bottom * factor, shape[0]) - y, min(box.right * factor, shape[1]) - x)


def coarse(box: Box, factor: int) -> Box:
    """The pixels of the reduced image that cover a box.

    >>> coarse(Box(4, 1, 6, 3), 4)
    Box(y=1, x=0, height=2, width=1)
    """
    y, x = box.y // factor, box.x // factor
    return Box(y, x, -(-box.bottom // factor) - y, -(-box.right // factor) - x)


def enlarge(labels: Labels, factor: int) -> Labels:
    """Labels that are `factor` times as large, of those with one pixel more around them.

    Of the four nearest labels a pixel takes the one that has most weight in bilinear interpolation. So edges are
    smooth, and each pixel depends on its surrounding alone.

    >>> enlarge(np.pad(np.array([[1, 2]], np.int32), 1, mode="edge"), 2)
    array([[1, 1, 2, 2],
           [1, 1, 2, 2]], dtype=int32)
    """
    height, width = (side - 2 for side in labels.shape)
    out = np.empty((height * factor, width * factor), dtype=np.int32)
    (below, share), (low, part) = _taps(1, factor), _taps(width, factor)
    for row in range(height):
        near = [labels[row + below + i][:, low + j] for i in (0, 1) for j in (0, 1)]
        weights = [np.abs(1 - i - share)[:, None] * np.abs(1 - j - part) for i in (0, 1) for j in (0, 1)]
        votes = np.stack([sum(w * (one == other) for w, other in zip(weights, near, strict=True)) for one in near])
        chosen = np.argmax(votes, axis=0)[None]
        out[row * factor : (row + 1) * factor] = np.take_along_axis(np.stack(near), chosen, axis=0)[0]
    return out


def _taps(length: int, factor: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of pixels enlarged by `factor`, the pixel below each, counted with one more in front, and the way to the next."""
    place = 2 * np.arange(length * factor) + 1 + factor  # in halves of an enlarged pixel
    low, rest = np.divmod(place, 2 * factor)
    return low, rest / (2 * factor)
