"""How the classes of a tensor lie in memory, as the kernels want to know it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = 255  # of labels in bytes
_MOST_CLASSES = 512
_CACHE = 1 << 16  # numbers in all tiles of a block, 256 KiB: they stay in the second cache
_FEWEST = 1 << 15  # below, the call costs more than the loop


@dataclass(frozen=True, slots=True)
class Layout:
    """`rows`: the classes of a pixel lie together; else in planes of `plane` pixels. `blocks` of `block` pixels."""

    rows: bool
    plane: int
    block: int
    blocks: int
    classes: int
    pixels: int


def layout_of(x: Tensor, dim: int, tiles: int = 2, by_image: bool = False) -> Layout | None:
    """The layout of float32 or bfloat16 `x` with classes along `dim`, or None where the kernels cannot take it.

    A block has `tiles` numbers for each logit at hand. `by_image` ends a block where an image ends, the first axis
    being images and the second classes.
    """
    classes = x.shape[dim]
    if x.dtype not in (torch.float32, torch.bfloat16) or not 2 <= classes <= _MOST_CLASSES or x.numel() < _FEWEST:
        return None
    pixels = x.numel() // classes
    plane = math.prod(x.shape[dim + 1 :])
    rows = x.movedim(dim, -1).is_contiguous()
    if rows:
        plane = plane if by_image else pixels
    elif not x.is_contiguous() or plane < 64:
        return None
    # Rows of a tile that are a large power of 2 apart would share a few places of the cache, hence the odd multiple.
    block = max(64, (min(1024, _CACHE // (tiles * classes)) // 128 - 1) // 2 * 256 + 128)
    blocks = pixels // plane * -(-plane // block)
    return Layout(rows, plane, block, blocks, classes, pixels)


def words(x: Tensor, rows: bool, dim: int) -> NDArray[np.int16]:
    """The memory of `x` as words of two bytes, in the order that the layout describes."""
    flat = (x.detach().movedim(dim, -1) if rows else x.detach()).reshape(-1)
    array: NDArray[np.int16] = flat.view(torch.int16).numpy()
    return array


def bytes_of(labels: Tensor) -> tuple[NDArray[np.uint8], int]:
    """The memory of integers as bytes, and the bytes of each: 1 (unsigned) or 8."""
    held = labels if labels.dtype in (torch.bool, torch.uint8) else labels.long()
    return held.contiguous().view(-1).view(torch.uint8).numpy(), held.itemsize
