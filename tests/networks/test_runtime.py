"""Where the network runs and in which number format."""

import ctypes
import sys
import time

import pytest
import torch
from torch import nn

from nucleate.networks import runtime
from nucleate.networks.runtime import PROCESSORS
from nucleate.networks.unet import Architecture, UNet

CPU = torch.device("cpu")


def product_type(context):
    with context:
        return torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype


def test_device_is_one_that_computes():
    where = runtime.device()
    assert where.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert (torch.ones(2, device=where) + 1).sum().item() == 4


@pytest.mark.parametrize(
    ("found", "vendor", "kind"),
    [
        ({}, "", "x86"),
        ({"avx2": True, "avx512_f": True, "avx512_vnni": False}, "Intel(R) Xeon(R)", "x86"),
        ({"avx512_vnni": True}, "Intel(R) Xeon(R)", "VNNI"),
        ({"avx_vnni": True}, "Intel(R) Core(TM) i7", "VNNI"),
        ({"avx512_bf16": True, "avx512_vnni": True}, "Intel(R) Xeon(R)", "AVX-512 BF16"),
        ({"avx512_bf16": True, "avx512_vnni": True}, "AMD EPYC", "AMD AVX-512 BF16"),
        ({"avx512_bf16": True, "avx512_vnni": True}, "AuthenticAMD", "AMD AVX-512 BF16"),
        ({"avx512_bf16": True, "amx_bf16": True, "amx_int8": True}, "Intel(R) Xeon(R)", "AMX"),
        ({"bf16": True}, "", "other"),
    ],
)
def test_the_kind_of_processor_follows_from_its_instructions(monkeypatch, found, vendor, kind):
    monkeypatch.setattr(runtime.platform, "machine", lambda: "aarch64" if kind == "other" else "x86_64")
    assert runtime._kind(found, vendor) is PROCESSORS[kind]


def test_the_table_is_of_one_mind():
    """bfloat16 only where it was measured to be faster, or known to be by other runs."""
    for kind in PROCESSORS.values():
        for engine in ("torch", "openvino"):
            pair = [kind.speeds.get(f"{engine}, {one}") for one in ("float32", "bfloat16")]
            assert None in pair or (pair[1] > pair[0]) is kind.bfloat16
        assert not kind.bfloat16 or kind.speeds


def test_nothing_is_timed(monkeypatch):
    """The same answer in every process, however busy the machine is."""
    runtime._capabilities.cache_clear()
    for name in ("perf_counter", "monotonic", "time", "process_time"):
        monkeypatch.setattr(time, name, lambda: pytest.fail("asked for the time"))
    assert runtime.prefers_bfloat16(CPU) is runtime.processor().bfloat16
    assert runtime.processor() in PROCESSORS.values()


@pytest.mark.parametrize("expected", [True, False])
def test_an_older_torch_can_be_asked_for_some_instructions(monkeypatch, expected):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_vnni_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: expected, raising=False)
    runtime._capabilities.cache_clear()
    try:
        assert (runtime._kind(runtime._capabilities(), "") is PROCESSORS["AMX"]) is expected
        assert runtime.has_bfloat16(CPU) is expected
        monkeypatch.delattr(torch.cpu, "_is_vnni_supported")
        runtime._capabilities.cache_clear()
        assert runtime._capabilities()["avx512_vnni"] is False
    finally:
        runtime._capabilities.cache_clear()


def test_autocast_obeys_the_caller():
    assert product_type(runtime.autocast(CPU, bfloat16=True)) == torch.bfloat16
    assert product_type(runtime.autocast(CPU, bfloat16=False)) == torch.float32


def test_place_keeps_the_weights_and_orders_them_channels_last():
    torch.manual_seed(0)
    network = UNet(Architecture(widths=(8, 8)))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    placed = runtime.place(network, CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in placed.state_dict().items())
    kernels = [m.weight for m in placed.modules() if isinstance(m, nn.Conv2d)]
    assert kernels and all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)


def test_keep_memory_says_whether_it_could(monkeypatch):
    asked = []

    class Library:
        @staticmethod
        def mallopt(option, value):
            asked.append((option, value))
            return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    assert runtime.keep_memory() is True
    assert len(asked) == 2 and len({option for option, _ in asked}) == 2
    asked.clear()
    assert runtime.one_heap() is True
    assert asked == [(-8, 1)], "M_ARENA_MAX of malloc.h"
    Library.mallopt = staticmethod(lambda option, value: 0)
    assert runtime.keep_memory() is False
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert runtime.keep_memory() is False
    monkeypatch.setattr(sys, "platform", "darwin")
    assert runtime.keep_memory() is False


def test_return_memory_says_whether_there_was_some(monkeypatch):
    class Library:
        freed = 1

        @classmethod
        def malloc_trim(cls, kept):
            assert kept == 0
            return cls.freed

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    assert runtime.return_memory() is True
    Library.freed = 0
    assert runtime.return_memory() is False
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert runtime.return_memory() is False
