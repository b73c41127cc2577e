"""Tensors as the kernels see them: how classes lie in memory, and memory for gradients that is used again."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.kernels.dispatch import plain_cpu_tensor

IGNORED = 255  # of labels in bytes
_MOST_CLASSES = 512
_CACHE = 1 << 16  # numbers in all tiles of a block, 256 KiB: they stay in the second cache
_FEWEST = 1 << 15  # numbers, below which the call costs more than the loop
_PIECE = 1 << 14  # numbers that are worth a call of a kernel, or a thread
_LARGE = 1 << 21  # bytes; below, malloc as a rule hands out memory that it has at hand
_MOST = 1 << 28  # bytes of a buffer that is kept
_KEPT = 2  # buffers: a divergence has two gradients
_LINE = 64  # bytes that are read and written together
_spare: dict[int, NDArray[np.uint8]] = {}


@dataclass(frozen=True, slots=True)
class Layout:
    """`rows`: the classes of a pixel lie together; else in planes of `plane` pixels. `blocks` of `block` pixels."""

    rows: bool
    plane: int
    block: int
    blocks: int
    classes: int
    pixels: int

    @property
    def least(self) -> int:
        """How many blocks are worth a call of a kernel."""
        return -(-_PIECE // (self.block * self.classes))


def is_small(x: Tensor) -> bool:
    """Whether `x` lies in main memory and has less than what a kernel is worth, but something."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and 0 < x.numel() < _FEWEST


def layout_of(x: Tensor, dim: int, tiles: int = 2, by_image: bool = False, fewest: int = 2) -> Layout | None:
    """The layout of float32 or bfloat16 `x` with classes along `dim`, or None where the kernels cannot take it.

    There are `fewest` classes or more; a block has `tiles` numbers for each logit at hand. `by_image` ends a block
    where an image ends, the first axis being images and the second classes.
    """
    classes = x.shape[dim]
    if x.dtype not in (torch.float32, torch.bfloat16) or not fewest <= classes <= _MOST_CLASSES or x.numel() < _FEWEST:
        return None
    pixels = x.numel() // classes
    plane = math.prod(x.shape[dim + 1 :])
    rows = classes > 1 and x.movedim(dim, -1).is_contiguous()
    if rows:
        plane = plane if by_image else pixels
    elif not x.is_contiguous() or plane < 64:
        return None
    # Rows of a tile that are a large power of 2 apart would share a few places of the cache, hence the odd multiple.
    block = max(64, (min(1024, _CACHE // (tiles * classes)) // 128 - 1) // 2 * 256 + 128)
    blocks = pixels // plane * -(-plane // block)
    return Layout(rows, plane, block, blocks, classes, pixels)


def common_layout(
    inputs: Sequence[Tensor], dim: int, constants: Iterable[Tensor | None], tiles: int = 2, by_image: bool = False,
    fewest: int = 2,
) -> Layout | None:  # fmt: skip
    """The one layout of all `inputs`, or None where the kernels cannot take these inputs or constants.

    Constants are targets, masks and weights, of which no gradient is wanted.
    """
    if not plain_cpu_tensor(inputs[0]):
        return None
    first, *others = (layout_of(x, dim, tiles, by_image, fewest) for x in inputs)
    if first is None or not all(x is not None and x.rows == first.rows for x in others):
        return None
    given = [x for x in constants if x is not None]
    fits = not any(x.requires_grad for x in given) and all(plain_cpu_tensor(x) for x in (*inputs[1:], *given))
    return first if fits else None


def common_order(x: Tensor, constants: Iterable[Tensor | None]) -> tuple[int, ...] | None:
    """The axes of `x` from the outermost in memory to the innermost, for losses of single numbers.

    None where the kernels cannot take `x` or a constant, or where the memory of `x` has gaps.
    """
    if not plain_cpu_tensor(x):  # before strides are looked at, which a transformation would hold on to
        return None
    given = [c for c in constants if c is not None]
    if x.dtype not in (torch.float32, torch.bfloat16) or any(c.requires_grad for c in given):
        return None
    order = tuple(range(x.ndim) if x.is_contiguous() else sorted(range(x.ndim), key=x.stride, reverse=True))
    fits = x.permute(order).is_contiguous() and all(map(plain_cpu_tensor, given))
    return order if fits else None


def in_order(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """The numbers of `x` in the order that `common_order` found."""
    held = x.detach()
    return held if held.is_contiguous() and order == tuple(range(x.ndim)) else held.permute(order)


def words_in_order(x: Tensor, order: tuple[int, ...]) -> NDArray[np.int16]:
    """The memory of `x`, whose order this is, as words of two bytes."""
    return _words(in_order(x, order))


def words(x: Tensor, rows: bool, dim: int) -> NDArray[np.int16]:
    """The memory of `x` as words of two bytes, in the order that the layout describes."""
    held = x.detach()
    return _words(held.movedim(dim, -1) if rows and dim != x.ndim - 1 else held)


def _words(x: Tensor) -> NDArray[np.int16]:
    """The numbers of dense `x` in its order; numpy takes a tenth of what PyTorch takes to look at memory anew."""
    held = x.view(torch.int16) if x.dtype == torch.bfloat16 else x
    return held.numpy().reshape(-1).view(np.int16)


def bytes_of(labels: Tensor) -> tuple[NDArray[np.uint8], int]:
    """The memory of integers as bytes, and the bytes of each: 1 (unsigned) or 8."""
    held = labels if labels.dtype in (torch.bool, torch.uint8) else labels.long()
    return held.contiguous().view(-1).view(torch.uint8).numpy(), held.itemsize


def flat_mask(mask: Tensor | None) -> NDArray[np.bool_]:
    """The selected pixels one after the other; empty for all."""
    return np.empty(0, np.bool_) if mask is None else mask.contiguous().view(-1).numpy()


def flat_weights(weights: Tensor | None) -> NDArray[np.float32]:
    """The pixels' weights one after the other; empty for 1 each."""
    return np.empty(0, np.float32) if weights is None else weights.float().contiguous().view(-1).numpy()


def class_shares(weight: Tensor | None, classes: int) -> NDArray[np.float32]:
    """The classes' weights side by side; 1 each where there are none."""
    return np.ones(classes, np.float32) if weight is None else weight.float().contiguous().numpy()


def reciprocal(amount: float) -> float:
    """1 / amount as the division's own backward pass computes it: equal numbers need no second pass; 1 for 0."""
    return float(np.float32(1) / np.float32(amount)) if amount > 0 else 1.0


def empty_like(like: Tensor) -> Tensor:
    """An empty tensor in the layout of `like` (which may be on "meta"), in memory that was used before.

    A large tensor from malloc is new memory at each call, and touching it page by page costs several times what
    writing it does. Here the memory of a gradient that is no longer used serves the next one of its size.
    """
    if like.nbytes < _LARGE:
        return torch.empty_like(like, device="cpu")
    buffer = _buffer(like.nbytes + _LINE)
    offset = -buffer.ctypes.data % _LINE
    owner = buffer[offset : offset + like.nbytes]
    if like.nbytes <= _MOST:
        weakref.finalize(owner, _give_back, buffer).atexit = False
    flat = torch.from_numpy(owner).view(like.dtype)
    shape = torch.empty_like(like, device="meta")
    return flat.as_strided(shape.shape, shape.stride())


def release_memory() -> None:
    """Give the memory that is kept for the next gradients back to the system."""
    _spare.clear()


def _buffer(size: int) -> NDArray[np.uint8]:
    for key, kept in tuple(_spare.items()):
        # Another thread may take it first.
        if len(kept) == size and _spare.pop(key, None) is not None:
            return kept
    return np.empty(size, np.uint8)


def _give_back(buffer: NDArray[np.uint8]) -> None:
    _spare[id(buffer)] = buffer
    for key in tuple(_spare)[:-_KEPT]:
        _spare.pop(key, None)
