"""Where the network runs and in which number format: found by asking the hardware, never by its name."""

from __future__ import annotations

import ctypes
import math
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

MARGIN = 0.8
"""bfloat16 is used where it takes less than this share of float32's time: it rounds more, so a tie is no reason."""

_TRIAL = threading.Lock()

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prefers_bfloat16(where: torch.device) -> bool:
    """Whether products in bfloat16 are the faster ones on this device: GPUs of 2020 or later, and processors that win
    the trial, held once a process. That a processor has instructions for it says too little: with a matrix unit (AMX)
    training is several times as fast as in float32, with AVX-512 BF16 alone it was slower."""
    if where.type == "cuda":
        return has_bfloat16(where)
    with _TRIAL:
        return has_bfloat16(where) and _wins_the_trial()


def has_bfloat16(where: torch.device) -> bool:
    """Whether this device has instructions for products in bfloat16."""
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return _has("avx512_bf16", "amx_bf16", "bf16", before="_is_avx512_bf16_supported")


def multiplies_int8() -> bool:
    """Whether this processor sums products of 8-bit integers in 32 bits (VNNI, AMX). Others sum pairs of them in 16
    bits, which overflow."""
    return _has("avx512_vnni", "avx_vnni", "amx_int8", before="_is_vnni_supported")


def _has(*capabilities: str, before: str) -> bool:
    """Whether the processor has one of these; `before` is what PyTorch releases that do not list them can be asked."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        found = ask()
        return any(bool(found.get(name)) for name in capabilities)
    ask = getattr(torch.cpu, before, None)
    return bool(ask and ask())


@cache
def _wins_the_trial() -> bool:
    seconds = _trial()
    return seconds[torch.bfloat16] < MARGIN * seconds[torch.float32]


@torch.inference_mode()
def _trial(rounds: int = 8) -> dict[torch.dtype, float]:
    """The least seconds that a convolution of the network's kind takes in each format, of so many taken in turn."""
    image = torch.zeros(1, 64, 96, 96).contiguous(memory_format=torch.channels_last)
    kernel = torch.zeros(64, 64, 3, 3).contiguous(memory_format=torch.channels_last)
    seconds = {torch.bfloat16: math.inf, torch.float32: math.inf}
    for _ in range(rounds):
        for dtype, least in seconds.items():
            placed, weight = image.to(dtype), kernel.to(dtype)
            begin = time.perf_counter()
            torch.conv2d(placed, weight, padding=1)
            seconds[dtype] = min(least, time.perf_counter() - begin)
    return seconds


def autocast(where: torch.device, *, bfloat16: bool) -> AbstractContextManager[None]:
    """Mixed precision: products in bfloat16, or all in float32."""
    # PyTorch's cache of converted weights is one for all threads, and emptied by the first of them to leave.
    return torch.autocast(where.type, torch.bfloat16, enabled=bfloat16, cache_enabled=False)


def place(network: Network, where: torch.device) -> Network:
    """The network on this device, its weights channels-last, the order in which convolutions run fastest."""
    network.to(where)
    # PyTorch documents this call of Module.to, but no overload that it annotates takes a memory format alone.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
