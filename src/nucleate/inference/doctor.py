"""What this machine has, and what `--engine auto` takes on it: the rows that `nucleate doctor` shows."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from nucleate import __version__
from nucleate.inference.select import PACKAGES, choose, installed
from nucleate.networks.manifest import EngineName
from nucleate.networks.runtime import device, prefers_bfloat16, processor
from nucleate.networks.store import EMBEDDED, locate, read

LIBRARIES = ("torch", "numpy", "numba", "openvino", "onnx", "onnxruntime")
"""Packages whose versions results may depend on."""


def examine(folder: Path | None = None) -> Iterator[tuple[str, str]]:
    """Name and value of each fact. Nothing is measured: the same machine gives the same answer.

    Args:
        folder: where free disk space is counted, by default the working folder.
    """
    kind, where = processor(), device()
    yield "nucleate", f"{__version__}, Python {platform.python_version()}"
    yield "libraries", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    yield "processor", f"{kind.name}: {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    yield "GPU", torch.cuda.get_device_name(where) if where.type == "cuda" else "none"
    yield "number format", "bfloat16" if prefers_bfloat16(where) else "float32"
    here = installed()
    yield "engines", ", ".join(here)
    missing = [name for name in PACKAGES if name not in here]
    if missing:
        yield "not usable here", ", ".join(f"{name} ({_why_not(name)})" for name in missing)
    for name in EMBEDDED:
        engine = choose(read(locate(name)))
        yield f"auto takes for {name}", f"{engine.name}, {engine.number_format}"
    free = shutil.disk_usage(folder or Path.cwd()).free
    yield "free disk", f"{free / 2**30:.1f} GiB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _why_not(engine: EngineName) -> str:
    if device().type != "cpu":
        return "the GPU is used by PyTorch"
    if any(_version(package) == "not installed" for package in PACKAGES[engine]):
        return "pip install 'nucleate[engines]'"
    return "this processor cannot multiply 8-bit integers"
