"""Memory for gradients, which a kernel writes once from end to end, and which the next pass takes again."""

from __future__ import annotations

import contextlib
import mmap
import sys
import weakref

import numpy as np
import torch
from torch import Tensor

_FEWEST = 1 << 21  # bytes; below, malloc as a rule hands out memory that it has at hand
_MOST = 1 << 28  # bytes of a block that is kept
_KEPT = 2  # blocks: a divergence has two gradients
_ALIGNED = 1 << 21  # a huge page
_spare: list[tuple[int, mmap.mmap]] = []


def unwritten(like: Tensor) -> Tensor:
    """An empty tensor in the layout of `like` (which may be on "meta"), on huge pages where the system has them.

    A large tensor from malloc is new memory at each call, and touching it page by page costs several times what
    writing it does. Here the memory of a gradient that is no longer used serves the next one of its size.
    """
    if like.nbytes < _FEWEST or sys.platform != "linux":
        return torch.empty_like(like, device="cpu")
    held = _block(like.nbytes)
    offset = -np.frombuffer(held, np.uint8, 1).ctypes.data % _ALIGNED
    owner = np.frombuffer(held, np.uint8, like.nbytes, offset)
    if like.nbytes <= _MOST:
        weakref.finalize(owner, _give_back, like.nbytes, held).atexit = False
    flat = torch.from_numpy(owner).view(like.dtype)
    shape = torch.empty_like(like, device="meta")
    return flat.as_strided(shape.shape, shape.stride())


def forget() -> None:
    """Give the memory that is kept for the next gradients back to the system."""
    _spare.clear()


def _block(size: int) -> mmap.mmap:
    for kept in tuple(_spare):
        if kept[0] == size:
            try:
                _spare.remove(kept)
            except ValueError:  # another thread was faster
                continue
            return kept[1]
    made = mmap.mmap(-1, size + _ALIGNED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        made.madvise(mmap.MADV_HUGEPAGE)
    return made


def _give_back(size: int, block: mmap.mmap) -> None:
    _spare.append((size, block))
    del _spare[:-_KEPT]
