"""Which engine is taken: what agrees, what this processor has, what is asked for; never what is timed."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nucleate.errors import InputError
from nucleate.inference import select
from nucleate.inference.backends import Int8Backend, OpenVinoBackend, TorchBackend
from nucleate.inference.quantize import calibrate
from nucleate.inference.select import AGREEMENT, PACKAGES, agreeing, choose, compare, installed
from nucleate.networks.manifest import EnginesPart
from nucleate.networks.runtime import PROCESSORS
from nucleate.networks.store import Model
from nucleate.networks.unet import Architecture, UNet

KINDS = {"openvino-int8": Int8Backend, "openvino": OpenVinoBackend, "torch": TorchBackend}
NETWORK = UNet(Architecture(widths=(8, 8)))
RANGES = {"decoder.blocks.0.first": (0.0, 2.0), "decoder.blocks.0.second": (0.0, 3.0)}
IMAGES = [np.full((1, 32, 32), 0.5, np.float32)]


def model(engines):
    """What `choose` asks a model for."""
    return Model(NETWORK, SimpleNamespace(engines=engines), Path("small"))


def compared(**quality):
    return model(EnginesPart(panoptic_quality={n.replace("_", "-"): q for n, q in quality.items()}, ranges=RANGES))


ALIKE = {"torch": 0.8, "openvino": 0.8, "openvino_int8": 0.8}


@pytest.fixture(autouse=True)
def kind(monkeypatch):
    """A processor that multiplies 8-bit integers, also where this one does not; returns how to take another."""
    monkeypatch.setattr(select, "device", lambda: torch.device("cpu"))

    def become(name):
        monkeypatch.setattr(select, "processor", lambda: PROCESSORS[name])

    become("VNNI")
    return become


def test_with_a_gpu_it_is_pytorch(monkeypatch):
    assert installed() == list(KINDS) == list(PACKAGES)
    monkeypatch.setattr(select, "device", lambda: torch.device("cuda"))
    assert installed() == ["torch"]
    assert type(choose(compared(**ALIKE))) is TorchBackend


@pytest.mark.parametrize("name", KINDS)
def test_the_engine_that_is_asked_for_is_taken(name):
    assert type(choose(compared(torch=0.8, openvino=0.1, openvino_int8=0.1), name)) is KINDS[name]


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_also_where_engines_were_not_compared(name):
    assert type(choose(model(None), name)) is KINDS[name]


@pytest.mark.parametrize("engines", [None, EnginesPart(panoptic_quality={"torch": 0.5})])
def test_integers_without_ranges_are_refused(engines):
    with pytest.raises(InputError, match="holds no ranges for --engine openvino-int8"):
        choose(model(engines), "openvino-int8")


def test_integers_are_not_for_a_processor_that_does_not_multiply_them(kind):
    assert type(choose(compared(**ALIKE))) is Int8Backend
    kind("x86")
    with pytest.raises(InputError, match="processor cannot multiply 8-bit integers"):
        choose(compared(**ALIKE), "openvino-int8")
    assert installed() == ["openvino", "torch"]
    assert type(choose(compared(**ALIKE))) is OpenVinoBackend
    found = compare(NETWORK, IMAGES, lambda engine: 0.5)
    assert (list(found.panoptic_quality), found.ranges) == (installed(), {})


@pytest.mark.parametrize("name", ["tensorrt", "onnx"])
def test_an_unknown_engine_is_refused_with_the_choices(name):
    with pytest.raises(InputError, match=f"no --engine {name}: choose one of auto, torch, openvino, openvino-int8"):
        choose(compared(torch=0.8), name)


def test_an_engine_that_is_not_installed_is_refused_by_name_and_left_out_by_auto(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    missing = ("onnx", "not_there_at_all")
    monkeypatch.setattr(select, "PACKAGES", select.PACKAGES | dict.fromkeys(["openvino", "openvino-int8"], missing))
    with pytest.raises(InputError, match=r"pip install 'nucleate\[engines\]'"):
        choose(compared(**ALIKE), "openvino")
    assert installed() == ["torch"]
    assert type(choose(compared(**ALIKE))) is TorchBackend


def test_without_a_comparison_it_is_pytorch():
    assert type(choose(model(None))) is TorchBackend


@given(
    quality=st.fixed_dictionaries(
        {"torch": st.floats(0, 1)}, optional={n: st.floats(0, 1) for n in KINDS if n != "torch"}
    )
)
def test_auto_is_the_fastest_that_agrees(quality):
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "make", lambda network, name, bfloat16, ranges: made.append(name))
        choose(model(EnginesPart(panoptic_quality=quality)))
    agree = [name for name in KINDS if quality.get(name, -1.0) >= quality["torch"] - AGREEMENT]
    assert made == agree[:1] and set(agreeing(quality)) == set(agree)


def test_an_engine_that_does_not_agree_takes_no_part():
    found = compared(torch=0.8, openvino=0.8 - 0.99 * AGREEMENT, openvino_int8=0.8 - 1.01 * AGREEMENT)
    assert type(choose(found)) is OpenVinoBackend


def test_nothing_is_timed(monkeypatch):
    for name in ("perf_counter", "monotonic", "time", "process_time"):
        monkeypatch.setattr(time, name, lambda: pytest.fail("asked for the time"))
    assert type(choose(compared(torch=0.8, openvino=0.1))) is TorchBackend
    compare(NETWORK, IMAGES, lambda engine: 0.5)


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_order_of_the_engines_is_that_of_every_kind_of_processor_measured(name):
    kind = PROCESSORS[name]
    number_format = "bfloat16" if kind.bfloat16 else "float32"
    speeds = [kind.speeds.get(one, kind.speeds.get(f"{one}, {number_format}")) for one in PACKAGES]
    known = [speed for speed in speeds if speed is not None]
    assert known == sorted(known, reverse=True)


def test_all_that_is_installed_is_compared():
    qualities = {TorchBackend: 0.5, OpenVinoBackend: 0.51, Int8Backend: 0.49}
    found = compare(NETWORK, IMAGES, lambda engine: qualities[type(engine)])
    assert list(found.panoptic_quality) == installed()
    assert found.ranges == calibrate(NETWORK, IMAGES)
    assert found.panoptic_quality == {name: qualities[kind] for name, kind in KINDS.items()}
    assert EnginesPart.model_validate_json(found.model_dump_json()) == found
    assert replace(model(found), folder=Path("x")).manifest.engines is found


def test_an_engine_that_breaks_is_left_out_but_not_the_reference(monkeypatch):
    monkeypatch.setattr(OpenVinoBackend, "run", lambda self, image: 1 / 0)
    image = torch.zeros(1, 1, 8, 8)
    assert list(compare(NETWORK, IMAGES, lambda engine: float(engine.raw(image).sum()) * 0).panoptic_quality) == [
        "torch"
    ]
    monkeypatch.setattr(TorchBackend, "run", lambda self, image: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare(NETWORK, IMAGES, lambda engine: float(engine.raw(image).sum()))
