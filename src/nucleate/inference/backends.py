"""Image -> maps: the network's forward pass, and nothing else of the prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nucleate.inference.sliding_window import SlidingWindow
from nucleate.networks.decode import to_maps
from nucleate.networks.graph import reach
from nucleate.networks.runtime import autocast, device, place, prefers_bfloat16
from nucleate.networks.unet import Architecture, UNet
from nucleate.types import Box, Maps


class Engine(ABC):
    """Runs a network. Called with a normalised image (channels, H, W) of any size from 1 x 1, it gives its `Maps`.

    Where the nuclei are small, the image is enlarged for the network, where they are large it is reduced, and the maps
    are brought back to its own size; see `postprocess.rescale`. An engine may be called by several threads at
    once. Each call uses as many threads as PyTorch has in the thread that calls (`torch.set_num_threads`), and its
    result does not depend on the others.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture

    @abstractmethod
    def run(self, image: Tensor) -> Tensor:
        """Network output (1, classes + 4, H, W) of an image (1, channels, H, W), float32; H and W are multiples of
        the network's stride."""

    def expect(self, height: int, width: int) -> None:  # noqa: B027 - not abstract: most engines need not get ready
        """Many images of this size, multiples of the network's stride, follow one another: an engine that is faster
        when it knows gets ready for them."""

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

    def zoomed(self, image: Tensor) -> Tensor:
        """As `raw`, of the image resized by the factor that suits its nuclei; for the image's own pixels."""
        shape = image.shape[-2], image.shape[-1]

        def read(box: Box) -> Tensor:
            return image[..., *box.within(Box(0, 0, *shape))]

        return SlidingWindow.plan(self, shape, read).whole(read)

    @cached_property
    def reach(self) -> int:
        """Pixels beyond a pixel that the output there depends on; see `networks.graph`."""
        with torch.random.fork_rng(devices=()):
            network = UNet(self.architecture)
        return reach(network, self.architecture.channels, self.architecture.stride)


class TorchEngine(Engine):
    """Runs a network with PyTorch: channels-last, in bfloat16 where that is faster (or where `bfloat16` says so)."""

    def __init__(self, network: UNet, *, bfloat16: bool | None = None) -> None:
        super().__init__(network.architecture)
        self.device = device()
        self.bfloat16 = prefers_bfloat16(self.device) if bfloat16 is None else bfloat16
        self.network = place(network.folded(), self.device)

    @torch.inference_mode()
    def run(self, image: Tensor) -> Tensor:
        placed = image.to(self.device).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, bfloat16=self.bfloat16):
            maps: Tensor = self.network(placed)
        return maps.float()
