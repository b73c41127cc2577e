"""Eight-bit integers in place of floating-point numbers, after training.

A number x becomes scale * q, where q = round(x / scale) is clipped to 8 bits; products of such q are summed in 32 bits,
so that a convolution is exact in them, and several times as fast. Weights have a scale for each output channel, from
the largest of them. Its input has one for each convolution, from what it sees on some images (`calibrate`); q is
unsigned where no value is negative, so after a rectifier (Jacob et al., "Quantization and training of neural networks
for efficient integer-arithmetic-only inference", 2018). Zero is always exactly 0.

The first convolution keeps floating point, for what is faint in an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nucleate.inference.backends import TorchBackend
from nucleate.networks.unet import UNet

FLOATING = "encoder.stem"
"""The convolution that keeps floating point."""

CLIPPED = 1e-4
"""The part of the values, at either end, that may be clipped: a few large ones would make all others coarse."""

MOST = 16
"""Images from which the ranges are found, at most."""

_TINY = 1e-6  # a scale, where all is zero


def calibrate(network: UNet, images: Sequence[NDArray[np.float32]]) -> dict[str, tuple[float, float]]:
    """The ranges of a network's convolutions on normalised images (channels, H, W), as an engine shows them to it:
    the widest over the images of the quantiles `CLIPPED` and 1 - `CLIPPED`. Raises ValueError without an image.

    >>> from nucleate.networks.unet import Architecture
    >>> found = calibrate(UNet(Architecture(widths=(8, 8))), [np.ones((1, 16, 16), np.float32)])
    >>> list(found), found["heads.maps"][0]  # doctest: +NORMALIZE_WHITESPACE
    (['encoder.down.0', 'encoder.blocks.0.first', 'encoder.blocks.0.second', 'decoder.up.0', 'decoder.blocks.0.first',
    'decoder.blocks.0.second', 'heads.maps'], 0.0)
    """
    if not images:
        raise ValueError("calibration needs at least one image")
    engine = TorchBackend(network, bfloat16=False)
    found: dict[str, tuple[float, float]] = {}

    def watch(name: str, convolution: nn.Conv2d) -> None:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            low, high = _quantiles(inputs[0].cpu().numpy())
            before = found.get(name, (low, high))
            found[name] = min(low, before[0]), max(high, before[1])

        convolution.register_forward_pre_hook(look)

    for name, module in engine.network.named_modules():
        if isinstance(module, nn.Conv2d) and name != FLOATING:
            watch(name, module)
    for image in images[:: -(-len(images) // MOST)]:
        engine.zoomed(torch.from_numpy(image)[None])
    return found


def _quantiles(values: NDArray[np.float32]) -> tuple[float, float]:
    rank = int(CLIPPED * values.size)
    parted = np.partition(values, (rank, values.size - 1 - rank), axis=None)
    return float(parted[rank]), float(parted[-1 - rank])


def input_scale(low: float, high: float) -> tuple[np.float32, np.dtype[np.uint8] | np.dtype[np.int8]]:
    """The scale of a convolution's input with this range, low <= high, and the type of its integers: unsigned where
    low >= 0.

    >>> input_scale(0.0, 5.1)
    (np.float32(0.02), dtype('uint8'))
    >>> input_scale(-2.54, 1.0)
    (np.float32(0.02), dtype('int8'))
    """
    if low >= 0:
        return np.float32(max(high / 255, _TINY)), np.dtype(np.uint8)
    return np.float32(max(-low / 127, high / 127, _TINY)), np.dtype(np.int8)


def quantised(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A weight (outputs, inputs, height, width) as integers of that shape, from -127 to 127, and the scale (outputs) by
    which those of each output are multiplied.

    >>> integers, scale = quantised(np.float32([[[[1.0, -0.5]]], [[[0.0, 0.127]]]]))
    >>> integers[:, 0, 0].tolist(), [f"{one:.4f}" for one in scale]
    ([[127, -64], [0, 127]], ['0.0079', '0.0010'])
    """
    scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3)) / 127, _TINY * _TINY).astype(np.float32)
    return np.rint(weight / scale[:, None, None, None]).astype(np.int8), scale
