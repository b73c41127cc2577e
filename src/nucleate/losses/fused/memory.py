"""Memory for gradients, which a kernel writes once from end to end."""

from __future__ import annotations

import ctypes
import mmap

import torch
from torch import Tensor

_FEWEST = 1 << 23  # bytes; below, malloc as a rule hands out memory that it has at hand
_PAGE = mmap.PAGESIZE
_HUGE = getattr(mmap, "MADV_HUGEPAGE", None)


def unwritten(like: Tensor) -> Tensor:
    """An empty tensor in the layout of `like`, on huge pages where the system has them.

    Large tensors are new memory at each call, and touching it page by page costs several times what writing it does.
    """
    made = torch.empty_like(like)
    if _HUGE is not None and made.nbytes >= _FEWEST:
        begin = -(-made.data_ptr() // _PAGE) * _PAGE
        end = (made.data_ptr() + made.nbytes) // _PAGE * _PAGE
        # Advice: where it is not taken, nothing changes.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _HUGE)
    return made
