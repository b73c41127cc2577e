"""Where the network runs and in which number format: found by asking the hardware, never by its name."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16(where: torch.device) -> bool:
    """Whether this device multiplies bfloat16 in hardware (AVX-512 BF16, AMX, Arm BF16, or a GPU of 2020 or later)."""
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        found = ask()
        return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(ask and ask())


def autocast(where: torch.device, *, bfloat16: bool | None = None) -> AbstractContextManager[None]:
    """Mixed precision: products in bfloat16 where the device has it (or where `bfloat16` says so), else float32."""
    enabled = has_bfloat16(where) if bfloat16 is None else bfloat16
    # PyTorch's cache of converted weights is one for all threads, and emptied by the first of them to leave.
    return torch.autocast(where.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def place(network: Network, where: torch.device) -> Network:
    """The network on this device, its weights channels-last, the order in which convolutions run fastest."""
    network.to(where)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, but not annotated
    return network


def keep_memory() -> bool:
    """Ask the C library to keep freed memory instead of giving it back and taking page faults for every large tensor.

    True where that could be set (glibc). Training is 1.2 to 1.5 times as fast with it.
    """
    return _set({_M_MMAP_THRESHOLD: 2**30, _M_TRIM_THRESHOLD: 2**30})


def return_memory() -> bool:
    """Give what was freed back to the system, also from between what is still held: in a long run the heap comes to lie
    in pieces into which the next large tensor does not fit. True where there was something (glibc)."""
    trim = _of_library("malloc_trim")
    return trim is not None and bool(trim(0))


def one_heap() -> bool:
    """Ask the C library to serve threads that are still to come from one heap, so that what one has freed is there for
    the others; else each keeps its own. True where that could be set (glibc)."""
    return _set({_M_ARENA_MAX: 1})


def _set(options: Mapping[int, int]) -> bool:
    mallopt = _of_library("mallopt")
    if mallopt is None:
        return False
    results = [bool(mallopt(option, value)) for option, value in options.items()]
    return all(results)


def _of_library(name: str) -> Any | None:
    """A function of the C library, where there is one that has it."""
    if sys.platform != "linux":
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
