"""Test-time augmentation: the mean output over an image where it is and moved by parts of the network's stride.

Where the resolution is halved, pixels are paired by where the image begins, and the network's output depends a little
on it. Moved images have other errors, and their mean has smaller ones. Mirrored and turned images would give nothing:
the network has the same output for them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import InputError
from nucleate.inference.sliding_window import ForwardPass

SHIFTS = {2: ((0, 0), (1, 1)), 4: ((0, 0), (1, 0), (0, 1), (1, 1))}
"""For each number of images how far each is moved, (y, x), in halves of the stride."""


class TestTimeAugmentation:
    """A forward pass whose output is the mean of that of `network` over `count` moved images: slower, and a little more
    accurate.

    Args:
        network: what runs the network on each of them.
        count: 2 or 4; one is the network itself.

    Raises:
        InputError: for another number.
    """

    def __init__(self, network: ForwardPass, count: int) -> None:
        if count not in SHIFTS:
            raise InputError(f"--tta is {count}: choose from {', '.join(map(str, (1, *SHIFTS)))}.")
        self.network, self.architecture = network, network.architecture
        self.half = network.architecture.stride // 2
        self.shifts = [(self.half * y, self.half * x) for y, x in SHIFTS[count]]

    @property
    def reach(self) -> int:
        return self.network.reach

    def expect(self, height: int, width: int) -> None:
        """As `Backend.expect`. Half a stride more is made up to a whole one."""
        self.network.expect(height + 2 * self.half, width + 2 * self.half)

    def raw(self, image: Tensor) -> Tensor:
        """The mean output (1, classes + 4, H, W), float32, of an image (1, channels, H, W).

        Each moved image has half a stride of zeros more in height and width, so that all have one shape.
        """
        height, width = image.shape[-2:]
        total = torch.zeros(1, self.architecture.outputs, height, width)
        for y, x in self.shifts:
            raw = self.network.raw(F.pad(image, (x, self.half - x, y, self.half - y)))
            total += raw[..., y : y + height, x : x + width].cpu()
        return total / len(self.shifts)
