"""Which engine runs the network: the one that is asked for, or the fastest whose results agree with PyTorch's.

The choice follows from the kind of processor, the model and the installed packages alone, and never from the images
or from a measurement in the process: one model on one machine gives one result. That an engine agrees with PyTorch is
found once, on the validation images of the model, and stored in the model folder (`compare`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import InputError
from nucleate.inference.backends import Backend, Int8Backend, OpenVinoBackend, Ranges, TorchBackend
from nucleate.inference.quantize import calibrate
from nucleate.networks.manifest import EngineName, EnginesPart
from nucleate.networks.runtime import device, processor
from nucleate.networks.store import Model
from nucleate.networks.unet import UNet

PACKAGES: dict[EngineName, tuple[str, ...]] = {
    "openvino-int8": ("onnx", "openvino"),
    "openvino": ("onnx", "openvino"),
    "torch": ("torch",),
}
"""The engines, the fastest first, and the packages that each needs. The order is that of every kind of processor on
which they were measured: see `networks.runtime.PROCESSORS`."""

AGREEMENT = 0.002
"""An engine agrees with PyTorch where its panoptic quality on the validation images is not lower by more."""


def make(network: UNet, name: str, *, bfloat16: bool | None = None, ranges: Ranges | None = None) -> Backend:
    """The engine of this name.

    Args:
        network: what it runs.
        name: torch, openvino or openvino-int8.
        bfloat16: whether products are in bfloat16; by default where that is faster on this processor.
        ranges: those of 8-bit integers, from the model folder.

    Raises:
        InputError: there is none of this name, or what it needs is missing: its packages, and for 8-bit integers the
            ranges and a processor that multiplies them.
    """
    if name == "torch":
        return TorchBackend(network, bfloat16=bfloat16)
    if name == "openvino":
        return OpenVinoBackend(network, bfloat16=bfloat16)
    if name == "openvino-int8":
        if not ranges:
            raise InputError("The model holds no ranges for --engine openvino-int8: choose another, or train it again.")
        if not processor().int8:
            raise InputError(
                "This processor cannot multiply 8-bit integers for --engine openvino-int8: choose another."
            )
        return Int8Backend(network, ranges)
    raise InputError(f"There is no --engine {name}: choose one of auto, {', '.join(reversed(PACKAGES))}.")


def installed() -> list[EngineName]:
    """The engines whose packages are here and that this processor can run, the fastest first; with a GPU, PyTorch."""
    if device().type != "cpu":
        return ["torch"]
    found = [name for name, needs in PACKAGES.items() if all(map(importlib.util.find_spec, needs))]
    return [name for name in found if name != "openvino-int8" or processor().int8]


def compare(
    network: UNet, images: Sequence[NDArray[np.float32]], panoptic_quality: Callable[[Backend], float]
) -> EnginesPart:
    """All installed engines with one network; `panoptic_quality` tells how well one does on the validation `images`."""
    names = installed()
    ranges = calibrate(network, images) if "openvino-int8" in names else {}
    measured: dict[EngineName, float] = {}
    for name in names:
        try:
            measured[name] = panoptic_quality(make(network, name, ranges=ranges))
        except Exception:
            # An optional package that is broken must not cost a model that was just trained. Whoever asks for the
            # engine by its name is told what is wrong.
            if name == "torch":
                raise
    return EnginesPart(panoptic_quality=measured, ranges=ranges)


def choose(model: Model, name: str = "auto", *, bfloat16: bool | None = None) -> Backend:
    """The engine of this name; with `auto`, the fastest that agrees with PyTorch on the model's validation images.

    It is PyTorch where the model folder holds no comparison.
    """
    compared = model.manifest.engines
    ranges = None if compared is None else compared.ranges
    if name == "auto":
        agree = ["torch"] if compared is None else agreeing(compared.panoptic_quality)
        name = next(one for one in [*installed(), "torch"] if one in agree)
    return make(model.network, name, bfloat16=bfloat16, ranges=ranges)


def agreeing(panoptic_quality: Mapping[EngineName, float]) -> list[EngineName]:
    """The engines whose panoptic quality is not below PyTorch's by more than `AGREEMENT`."""
    lowest = panoptic_quality["torch"] - AGREEMENT
    return [name for name, found in panoptic_quality.items() if found >= lowest]
