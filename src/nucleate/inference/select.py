"""Which engine: the one that is asked for, or the one that is done first among those that agree with PyTorch.

Agreement is found once, on the model's validation images, and stored in the model folder (`compare`). So is speed, with
the processor that it was measured on. On another processor it is a guess, and measured again where there is enough to
do, but not stored: a model folder may be shared by machines, or not be writable.
"""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from nucleate.errors import InputError
from nucleate.inference.backends import Engine, TorchEngine
from nucleate.inference.compiled_backends import Int8Engine, OnnxEngine, OpenVinoEngine
from nucleate.inference.quantize import Ranges, calibrate
from nucleate.networks.runtime import device, multiplies_int8, prefers_bfloat16
from nucleate.networks.store import EngineName, EnginePart, EnginesPart, Model
from nucleate.networks.unet import UNet

PACKAGES: dict[EngineName, tuple[str, ...]] = {
    "torch": ("torch",),
    "openvino": ("onnx", "openvino"),
    "openvino-int8": ("onnx", "openvino"),
    "onnx": ("onnx", "onnxruntime"),
}
"""The engines, and the packages that each needs."""

AGREEMENT = 0.002
"""An engine agrees with PyTorch where its panoptic quality on the validation images is not lower by more."""

SIDE = 512
"""Pixels; speed is measured on an image of this height and width."""

MUCH = 200.0
"""Megapixels from which on it is worth the seconds to measure speed on this processor."""


def make(network: UNet, name: str, *, bfloat16: bool | None = None, ranges: Ranges | None = None) -> Engine:
    """The engine of this name. Raises `InputError` where there is none, or what it needs is not there: its packages,
    and for 8-bit integers the ranges and a processor that multiplies them."""
    if name == "torch":
        return TorchEngine(network, bfloat16=bfloat16)
    if name == "openvino":
        return OpenVinoEngine(network, bfloat16=bfloat16)
    if name == "openvino-int8":
        if not ranges:
            raise InputError("The model holds no ranges for --engine openvino-int8: choose another, or train it again.")
        if not multiplies_int8():
            raise InputError(
                "This processor cannot multiply 8-bit integers for --engine openvino-int8: choose another."
            )
        return Int8Engine(network, ranges)
    if name == "onnx":
        return OnnxEngine(network)
    raise InputError(f"There is no --engine {name}: choose one of auto, {', '.join(PACKAGES)}.")


def installed() -> list[EngineName]:
    """The engines whose packages are here, and that this processor can run; with a GPU, the one that uses it."""
    if device().type != "cpu":
        return ["torch"]
    found = [name for name, needs in PACKAGES.items() if all(map(importlib.util.find_spec, needs))]
    return [name for name in found if name != "openvino-int8" or multiplies_int8()]


def processor() -> str:
    """What speed depends on.

    >>> processor().startswith(platform.machine())
    True
    """
    bfloat16 = "bfloat16" if prefers_bfloat16(torch.device("cpu")) else "float32"
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {bfloat16} x {torch.get_num_threads()}"


def speeds(engines: Mapping[EngineName, Engine], side: int = SIDE, rounds: int = 3) -> dict[EngineName, float]:
    """Megapixels a second of each engine: the median of `rounds` images, taken in turn, after one to warm up."""
    seconds: dict[EngineName, list[float]] = {name: [] for name in engines}
    for _ in range(rounds + 1):
        for name, engine in engines.items():
            image = torch.zeros(1, engine.architecture.channels, side, side)
            begin = time.perf_counter()
            engine.raw(image)
            seconds[name].append(time.perf_counter() - begin)
    return {name: side**2 / 1e6 / median(times[1:]) for name, times in seconds.items()}


def started(
    network: UNet, names: Iterable[EngineName], *, bfloat16: bool | None = None, ranges: Ranges | None = None
) -> dict[EngineName, tuple[Engine, float]]:
    """Of these engines those that run here, and the seconds until each had done its first pixels."""
    found: dict[EngineName, tuple[Engine, float]] = {}
    architecture = network.architecture
    for name in names:
        begin = time.perf_counter()
        try:
            engine = make(network, name, bfloat16=bfloat16, ranges=ranges)
            engine.raw(torch.zeros(1, architecture.channels, architecture.stride, architecture.stride))
        except Exception:
            # An optional package that is broken must not cost a model that was just trained. Whoever asks for the
            # engine by its name is told what is wrong.
            continue
        found[name] = engine, time.perf_counter() - begin
    return found


def compare(
    network: UNet,
    images: Sequence[NDArray[np.float32]],
    panoptic_quality: Callable[[Engine], float],
    side: int = SIDE,
) -> EnginesPart:
    """All installed engines with one network; `panoptic_quality` tells how well one does on the validation `images`."""
    names = installed()
    ranges = calibrate(network, images) if "openvino-int8" in names else {}
    engines = started(network, names, ranges=ranges)
    rates = speeds({name: engine for name, (engine, _) in engines.items()}, side)
    measured = {
        name: EnginePart(
            panoptic_quality=panoptic_quality(engine),
            megapixels_per_second=round(rates[name], 4),
            # PyTorch is there already when a model has been read.
            seconds_to_start=0.0 if name == "torch" else round(seconds, 4),
        )
        for name, (engine, seconds) in engines.items()
    }
    return EnginesPart(processor=processor(), measured=measured, ranges=ranges)


def choose(model: Model, name: str = "auto", *, megapixels: float = 0.0, bfloat16: bool | None = None) -> Engine:
    """The engine of this name; with `auto`, the one that is done first with so many megapixels, its start included.

    Only engines that agree with PyTorch on the model's validation images take part. Their speeds are those in the model
    folder; on a processor other than theirs they are measured from `MUCH` megapixels on. So it is PyTorch where the
    model folder holds no comparison, and for a few small images, which are done before another engine has started.
    """
    compared = model.manifest.engines
    ranges = None if compared is None else compared.ranges
    if name != "auto" or compared is None:
        return make(model.network, "torch" if name == "auto" else name, bfloat16=bfloat16, ranges=ranges)
    names = [other for other in agreeing(compared.measured) if other in installed()]
    if megapixels < MUCH or compared.processor == processor():
        best = min(names, key=lambda other: compared.measured[other].seconds(megapixels))
        return make(model.network, best, bfloat16=bfloat16, ranges=ranges)
    found = started(model.network, names, bfloat16=bfloat16, ranges=ranges)
    engines = {other: engine for other, (engine, _) in found.items()}
    rates = speeds(engines)
    return engines[max(engines, key=rates.__getitem__)]


def agreeing(measured: Mapping[EngineName, EnginePart]) -> list[EngineName]:
    """The engines whose panoptic quality is not below PyTorch's by more than `AGREEMENT`; PyTorch comes first."""
    lowest = measured["torch"].panoptic_quality - AGREEMENT
    return [name for name, part in measured.items() if part.panoptic_quality >= lowest]
