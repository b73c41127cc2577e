"""Image -> maps: the network's forward pass, and nothing else of the prediction."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nucleate.networks.precision import autocast, device, place
from nucleate.networks.unet import Architecture, UNet, split
from nucleate.objects.grouping import Maps
from nucleate.objects.scale import predicted_diameter, zoom

JUDGED = 384
"""Pixels; see `middle`."""

LARGEST_RADIUS = 256.0
"""Pixels; a predicted radius is clipped here, so that no map holds an infinity."""


class Engine(ABC):
    """Runs a network. Called with a normalised image (channels, H, W) of any size from 1 x 1, it gives its `Maps`.

    Where the nuclei are small, the image is enlarged for the network and the maps are brought back to its own size;
    see `objects.scale`. An engine may be called by several threads at once. Each call uses as many threads as PyTorch
    has in the thread that calls (`torch.set_num_threads`), and its result does not depend on the others.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture

    @abstractmethod
    def run(self, image: Tensor) -> Tensor:
        """Network output (1, classes + 4, H, W) of an image (1, channels, H, W), float32; H and W are multiples of
        the network's stride."""

    @torch.inference_mode()
    def raw(self, image: Tensor) -> Tensor:
        """Network output (1, classes + 4, H, W), float32, of an image (1, channels, H, W).

        The image is padded with zeros to a multiple of the network's stride, which is also what convolutions see
        beyond the border.
        """
        height, width = image.shape[-2:]
        stride = self.architecture.stride
        return self.run(F.pad(image, (0, -width % stride, 0, -height % stride)))[..., :height, :width]

    def __call__(self, image: NDArray[np.float32]) -> Maps:
        return to_maps(self.zoomed(torch.from_numpy(image)[None]), self.architecture.classes)

    @torch.inference_mode()
    def zoomed(self, image: Tensor) -> Tensor:
        """As `raw`, of the image enlarged by the factor that suits its nuclei; for the image's own pixels."""
        classes = self.architecture.classes
        first = self.raw(image[..., *middle(image.shape[-2:])])
        factor = zoom(predicted_diameter(to_maps(first, classes)))
        if factor == 1.0:
            return first if first.shape[-2:] == image.shape[-2:] else self.raw(image)
        size = [round(factor * length) for length in image.shape[-2:]]
        raw = self.raw(F.interpolate(image, size=size, mode="bilinear", align_corners=False))
        raw = F.interpolate(raw, size=image.shape[-2:], mode="bilinear", align_corners=False)
        raw[:, classes + 1 : classes + 3] /= factor
        raw[:, classes + 3] -= math.log(factor)
        return raw


class TorchEngine(Engine):
    """Runs a network with PyTorch: channels-last, in bfloat16 where the processor has it."""

    def __init__(self, network: UNet, *, bfloat16: bool | None = None) -> None:
        super().__init__(network.architecture)
        self.device = device()
        self.bfloat16 = bfloat16
        self.network = place(network.folded(), self.device)

    @torch.inference_mode()
    def run(self, image: Tensor) -> Tensor:
        placed = image.to(self.device).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, bfloat16=self.bfloat16):
            maps: Tensor = self.network(placed)
        return maps.float()


def middle(shape: Sequence[int]) -> tuple[slice, slice]:
    """The part of an image from which the size of its nuclei is judged: all of it, or its middle `JUDGED` pixels."""
    starts = [max(0, (length - JUDGED) // 2) for length in shape]
    return slice(starts[0], starts[0] + JUDGED), slice(starts[1], starts[1] + JUDGED)


@torch.inference_mode()
def to_maps(raw: Tensor, classes: int) -> Maps:
    """Network output (1, classes + 4, H, W) to probabilities and pixels."""
    out = split(raw, classes)
    logits = out.logits[0]
    foreground = 1 - logits.softmax(0)[0] if classes > 2 else torch.sigmoid(logits[1] - logits[0])
    return Maps(
        foreground=foreground.cpu().numpy(),
        heat=out.heat[0, 0].sigmoid().cpu().numpy(),
        offset=out.offset[0].cpu().numpy(),
        radius=out.log_radius[0, 0].exp().clamp(max=LARGEST_RADIUS).cpu().numpy(),
    )
