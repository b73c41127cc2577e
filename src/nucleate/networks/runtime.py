"""Where the network runs and in which number format.

Both follow from the hardware alone, by a table of kinds of processor, and never from a measurement in the process: what
a busy machine measures differs from run to run, and so would the results.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, slots=True)
class Processor:
    """A kind of processor: what its instructions can do, and which number format is the faster one.

    `bfloat16`: products in bfloat16 are faster than in float32. `int8`: products of 8-bit integers are summed in 32
    bits (VNNI, AMX); other processors sum pairs of them in 16 bits, which overflow. `speeds` are megapixels a second of
    the network on two cores, where they were measured (see `PROCESSORS`).
    """

    name: str
    bfloat16: bool
    int8: bool
    speeds: Mapping[str, float] = field(default_factory=dict)


_ZEN_4 = {
    "torch, float32": 2.84,
    "torch, bfloat16": 3.05,
    "openvino, float32": 3.05,
    "openvino, bfloat16": 5.52,
    "openvino-int8": 7.98,
}
_AMX = {"torch, float32": 2.31, "torch, bfloat16": 3.60, "openvino, float32": 4.24, "openvino, bfloat16": 13.97}

PROCESSORS = {
    "AMX": Processor("x86-64 with a matrix unit (AMX)", bfloat16=True, int8=True, speeds=_AMX),
    "AMD AVX-512 BF16": Processor("AMD, AVX-512 with bfloat16", bfloat16=True, int8=True, speeds=_ZEN_4),
    # 325 GFLOP/s in float32 and 173 in bfloat16; training sees 18 images a second in float32, 13 in bfloat16.
    "AVX-512 BF16": Processor("x86-64, AVX-512 with bfloat16, no matrix unit", bfloat16=False, int8=True),
    "VNNI": Processor("x86-64 with VNNI", bfloat16=False, int8=True),
    "x86": Processor("x86-64", bfloat16=False, int8=False),
    "other": Processor("another architecture", bfloat16=False, int8=False),
}
"""The kinds of processor. `benchmarks/engines.py` measures the speeds; docs/log holds the runs they are taken from.
Where nothing was measured, products are in float32."""


def processor() -> Processor:
    """The kind of processor that this process runs on, from its instructions: nothing is measured."""
    return _kind(_capabilities(), _vendor())


def _kind(found: Mapping[str, Any], vendor: str) -> Processor:
    if found.get("amx_bf16") or found.get("amx_int8"):
        return PROCESSORS["AMX"]
    if found.get("avx512_bf16"):
        return PROCESSORS["AMD AVX-512 BF16" if "AMD" in vendor else "AVX-512 BF16"]
    if found.get("avx512_vnni") or found.get("avx_vnni"):
        return PROCESSORS["VNNI"]
    return PROCESSORS["x86" if platform.machine().lower() in ("x86_64", "amd64") else "other"]


@cache
def _capabilities() -> Mapping[str, Any]:
    """The processor's instructions as PyTorch names them."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        return dict(ask())
    # Releases that do not list them can be asked for some.
    older = {
        "amx_bf16": "_is_amx_tile_supported",
        "avx512_bf16": "_is_avx512_bf16_supported",
        "avx512_vnni": "_is_vnni_supported",
    }
    return {name: bool(getattr(torch.cpu, call, bool)()) for name, call in older.items()}


@cache
def _vendor() -> str:
    """The name of the processor, which begins with its maker's."""
    name = str(_capabilities().get("cpu_name", ""))
    if name or not Path("/proc/cpuinfo").exists():
        return name or platform.processor()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


def prefers_bfloat16(where: torch.device) -> bool:
    """Whether products in bfloat16 are the faster ones on this device: on GPUs of 2020 or later, and on the kinds of
    processor that the table `PROCESSORS` says so of. That a processor has instructions for it says too little."""
    return has_bfloat16(where) if where.type == "cuda" else processor().bfloat16


def has_bfloat16(where: torch.device) -> bool:
    """Whether this device has instructions for products in bfloat16; elsewhere they are imitated, which is slow."""
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(bool(_capabilities().get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


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
