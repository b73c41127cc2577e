"""Where the network runs and in which number format."""

import ctypes
import sys

import pytest
import torch
from torch import nn

from nucleate.networks import runtime
from nucleate.networks.unet import Architecture, UNet

CPU = torch.device("cpu")


def product_type(context):
    with context:
        return torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype


def test_device_is_one_that_computes():
    where = runtime.device()
    assert where.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert (torch.ones(2, device=where) + 1).sum().item() == 4


@pytest.fixture
def trial(monkeypatch):
    """The trial's outcome and how often it was held; nothing is remembered before or after."""
    held = []

    def outcome(bfloat16, float32=1.0):
        def found():
            held.append(bfloat16)
            return {torch.bfloat16: bfloat16, torch.float32: float32}

        monkeypatch.setattr(runtime, "_trial", found)
        runtime._wins_the_trial.cache_clear()
        return held

    yield outcome
    runtime._wins_the_trial.cache_clear()


@pytest.mark.parametrize("wins", [True, False])
@pytest.mark.parametrize(
    ("found", "has"),
    [
        ({}, False),
        ({"avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"bf16": True}, True),
    ],
)
def test_bfloat16_where_the_processor_has_it_and_is_faster_with_it(monkeypatch, trial, found, has, wins):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    held = trial(0.5 if wins else 0.9)
    assert runtime.has_bfloat16(CPU) is has
    assert runtime.prefers_bfloat16(CPU) is (has and wins)
    assert len(held) == has, "one trial a process, and none where there is nothing to try"


@pytest.mark.parametrize("expected", [True, False])
def test_bfloat16_with_an_older_torch(monkeypatch, trial, expected):
    trial(0.5)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: expected, raising=False)
    assert runtime.prefers_bfloat16(CPU) is expected
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert runtime.prefers_bfloat16(CPU) is False


@pytest.mark.parametrize(
    ("found", "has"),
    [
        ({}, False),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True, "avx512_vnni": False}, False),
        ({"avx512_vnni": True}, True),
        ({"avx_vnni": True}, True),
        ({"amx_int8": True}, True),
    ],
)
def test_integers_where_the_processor_multiplies_them(monkeypatch, found, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert runtime.multiplies_int8() is has
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: has, raising=False)
    assert runtime.multiplies_int8() is has, "with an older torch"
    monkeypatch.delattr(torch.cpu, "_is_vnni_supported")
    assert runtime.multiplies_int8() is False


def test_the_trial_times_a_convolution_in_both_formats(monkeypatch):
    """With a clock that only products move: twice the work takes twice the time, whichever comes first."""
    clock, product = [0.0], torch.conv2d

    def slow(image, kernel, **options):
        clock[0] += {torch.bfloat16: 3.0, torch.float32: 2.0}[image.dtype]
        return product(image, kernel, **options)

    monkeypatch.setattr(runtime.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch, "conv2d", slow)
    assert runtime._trial() == {torch.bfloat16: 3.0, torch.float32: 2.0}


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
