"""What a network gives at each pixel, as probabilities and pixels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.measures import entropy
from nucleate.networks.unet import split
from nucleate.types import Maps

LARGEST_RADIUS = 256.0
"""Pixels; a predicted radius is clipped here, so that no map holds an infinity."""


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


@torch.inference_mode()
def to_entropy(raw: Tensor, classes: int) -> NDArray[np.float32]:
    """Network output (1, classes + 4, H, W) to the entropy of the predicted classes at each pixel, (H, W), in bits."""
    bits = entropy(split(raw, classes).logits, base=2, reduction="none", check=False)
    return np.asarray(bits[0].cpu().numpy(), dtype=np.float32)
