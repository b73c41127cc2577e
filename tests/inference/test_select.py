"""Which engine is taken: what agrees, what is done first, what is asked for."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.errors import InputError
from nucleate.inference import select
from nucleate.inference.backends import TorchEngine
from nucleate.inference.compiled_backends import Int8Engine, OnnxEngine, OpenVinoEngine
from nucleate.inference.quantize import calibrate
from nucleate.inference.select import AGREEMENT, MUCH, agreeing, choose, compare, installed, processor, speeds, started
from nucleate.networks.store import EnginePart, EnginesPart, Model
from nucleate.networks.unet import Architecture, UNet

KINDS = {"torch": TorchEngine, "openvino": OpenVinoEngine, "openvino-int8": Int8Engine, "onnx": OnnxEngine}
ALL = list(KINDS)
NETWORK = UNet(Architecture(widths=(8, 8)))
RANGES = {"decode.0.first": (0.0, 2.0), "decode.0.second": (0.0, 3.0)}
IMAGES = [np.full((1, 32, 32), 0.5, np.float32)]


def part(quality=0.8, rate=1.0, start=0.0):
    return EnginePart(panoptic_quality=quality, megapixels_per_second=rate, seconds_to_start=start)


def model(engines):
    """What `choose` asks a model for."""
    return Model(NETWORK, SimpleNamespace(engines=engines), Path("small"))


def here(**measured):
    measured = {name.replace("_", "-"): one for name, one in measured.items()}
    return model(EnginesPart(processor=processor(), measured=measured, ranges=RANGES))


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch):
    """One that multiplies 8-bit integers, also where this one does not, and where there is a GPU."""
    monkeypatch.setattr(select, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(select, "multiplies_int8", lambda: True)


def test_with_a_gpu_it_is_pytorch(monkeypatch):
    assert installed() == ALL
    monkeypatch.setattr(select, "device", lambda: torch.device("cuda"))
    assert installed() == ["torch"]
    assert type(choose(here(torch=part(), onnx=part(rate=100.0)), megapixels=1e6)) is TorchEngine


@pytest.mark.parametrize("name", KINDS)
def test_the_engine_that_is_asked_for_is_taken(name):
    engine = choose(here(torch=part(), openvino=part(0.1), openvino_int8=part(0.1), onnx=part(0.1)), name)
    assert type(engine) is KINDS[name]


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"openvino-int8"}))
def test_also_where_engines_were_not_compared(name):
    assert type(choose(model(None), name)) is KINDS[name]


@pytest.mark.parametrize("compared", [None, EnginesPart(processor=processor(), measured={"torch": part()})])
def test_integers_without_ranges_are_refused(compared):
    with pytest.raises(InputError, match="holds no ranges for --engine openvino-int8"):
        choose(model(compared), "openvino-int8")


def test_integers_are_not_for_a_processor_that_does_not_multiply_them(monkeypatch):
    compared = here(torch=part(), openvino_int8=part(rate=100.0), onnx=part(rate=2.0))
    assert type(choose(compared, megapixels=1000)) is Int8Engine
    monkeypatch.setattr(select, "multiplies_int8", lambda: False)
    with pytest.raises(InputError, match="processor cannot multiply 8-bit integers"):
        choose(compared, "openvino-int8")
    assert installed() == ["torch", "openvino", "onnx"]
    assert type(choose(compared, megapixels=1000)) is OnnxEngine
    found = compare(NETWORK, IMAGES, lambda engine: 0.5, side=16)
    assert (list(found.measured), found.ranges) == (installed(), {})


def test_an_unknown_engine_is_refused_with_the_choices():
    choices = "choose one of auto, torch, openvino, openvino-int8, onnx"
    with pytest.raises(InputError, match=f"There is no --engine tensorrt: {choices}"):
        choose(here(torch=part()), "tensorrt")


def test_an_engine_that_is_not_installed_is_refused_by_name_and_left_out_by_auto(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    missing = ("onnx", "not_there_at_all")
    monkeypatch.setattr(select, "PACKAGES", select.PACKAGES | dict.fromkeys(["openvino", "openvino-int8"], missing))
    compared = here(torch=part(), openvino=part(rate=100.0))
    with pytest.raises(InputError, match=r"pip install 'nucleate\[engines\]'"):
        choose(compared, "openvino")
    assert installed() == ["torch", "onnx"]
    assert type(choose(compared, megapixels=1000)) is TorchEngine


@settings(deadline=None, max_examples=50)
@given(
    megapixels=st.floats(0, 1e6),
    rates=st.tuples(*[st.floats(0.1, 100)] * 4),
    starts=st.tuples(*[st.floats(0.1, 10)] * 3),
)
def test_auto_is_never_later_than_pytorch(megapixels, rates, starts):
    measured = {
        "torch": part(rate=rates[0]),
        "openvino": part(rate=rates[1], start=starts[0]),
        "onnx": part(rate=rates[2], start=starts[1]),
        "openvino-int8": part(rate=rates[3], start=starts[2]),
    }
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "make", lambda network, name, bfloat16, ranges: made.append(name))
        choose(here(**measured), megapixels=megapixels)
    seconds = {name: one.seconds(megapixels) for name, one in measured.items()}
    assert seconds[made[0]] == min(seconds.values())


def test_a_few_small_images_are_left_to_pytorch_and_many_are_not():
    compared = here(torch=part(rate=2.0), openvino=part(rate=4.0, start=1.0))
    # 1 s + x / 4 = x / 2 at x = 4 megapixels.
    assert type(choose(compared)) is TorchEngine
    assert type(choose(compared, megapixels=3.9)) is TorchEngine
    assert type(choose(compared, megapixels=4.1)) is OpenVinoEngine


def test_without_a_comparison_it_is_pytorch():
    assert type(choose(model(None), megapixels=1e6)) is TorchEngine


def test_an_engine_that_does_not_agree_takes_no_part():
    measured = {
        "torch": part(0.8),
        "openvino": part(0.8 - 1.01 * AGREEMENT, rate=100),
        "onnx": part(0.8 - 0.99 * AGREEMENT, rate=2),
        "openvino-int8": part(0.8 + 1.01 * AGREEMENT),
    }
    assert agreeing(measured) == ["torch", "onnx", "openvino-int8"]
    assert type(choose(here(**measured), megapixels=1e6)) is OnnxEngine


def test_on_another_processor_speed_is_guessed_and_measured_where_there_is_much_to_do(monkeypatch):
    measured = {"torch": part(), "openvino": part(rate=100), "onnx": part()}
    elsewhere = model(EnginesPart(processor="another", measured=measured))
    rates = {"torch": 1.0, "openvino": 2.0, "onnx": 3.0}
    monkeypatch.setattr(select, "speeds", lambda engines: {name: rates[name] for name in engines})
    assert type(choose(elsewhere, megapixels=0.99 * MUCH)) is OpenVinoEngine
    assert type(choose(elsewhere)) is TorchEngine  # which is there at once
    assert type(choose(elsewhere, megapixels=MUCH)) is OnnxEngine
    disagreeing = {**measured, "onnx": part(0.5)}
    elsewhere = replace(elsewhere, manifest=SimpleNamespace(engines=EnginesPart(processor="x", measured=disagreeing)))
    assert type(choose(elsewhere, megapixels=MUCH)) is OpenVinoEngine


def test_all_that_is_installed_is_compared():
    qualities = {TorchEngine: 0.5, OpenVinoEngine: 0.51, Int8Engine: 0.49, OnnxEngine: 0.5}
    found = compare(NETWORK, IMAGES, lambda engine: qualities[type(engine)], side=32)
    assert found.processor == processor()
    assert list(found.measured) == installed() == ALL
    assert found.ranges == calibrate(NETWORK, IMAGES)
    assert {name: one.panoptic_quality for name, one in found.measured.items()} == {
        name: qualities[kind] for name, kind in KINDS.items()
    }
    assert all(one.megapixels_per_second > 0 for one in found.measured.values())
    assert [one.seconds_to_start > 0 for one in found.measured.values()] == [False, True, True, True]
    assert EnginesPart.model_validate_json(found.model_dump_json()) == found


def test_an_engine_that_breaks_is_left_out(monkeypatch):
    monkeypatch.setattr(OnnxEngine, "run", lambda self, image: 1 / 0)
    assert list(started(NETWORK, installed())) == ["torch", "openvino"]
    assert list(started(NETWORK, installed(), ranges=RANGES)) == ["torch", "openvino", "openvino-int8"]
    assert list(compare(NETWORK, IMAGES, lambda engine: 0.5, side=16).measured) == ALL[:-1]


def test_speed_is_pixels_by_seconds(monkeypatch):
    now = [0.0]

    class Slow(TorchEngine):
        def raw(self, image):
            assert image.shape == (1, 1, 200, 200)
            now[0] += 0.1 if now[0] else 7.0  # the first is to warm up
            return image

    monkeypatch.setattr(select.time, "perf_counter", lambda: now[0])
    assert speeds({"torch": Slow(NETWORK)}, side=200, rounds=1)["torch"] == pytest.approx(0.4)


def test_the_processor_is_told_with_its_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    one = processor()
    torch.set_num_threads(2)
    two = processor()
    torch.set_num_threads(before)
    assert one.endswith("x 1") and two.endswith("x 2") and one[:-1] == two[:-1]
