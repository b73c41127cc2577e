"""The state of an unfinished run in one file: tensors and, in the same file's header, the numbers.

One file, written aside and renamed, so that a crash leaves either the state before or the state after. Its header
also holds a checksum of all that it says, since a run that goes on from altered weights would not show it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nucleate.errors import ModelError
from nucleate.io.atomic import atomic

FILE = "training.safetensors"


def write(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write the checkpoint of the run in `folder`."""
    # The file holds rows after rows; which tensors were channels-last is noted beside, since an optimiser that walks
    # weights and moments in the order of memory needs both in the same.
    last = [name for name, t in tensors.items() if not t.is_contiguous() and _is_channels_last(t)]
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps({"state": state, "channels_last": last})
    content = save(tensors, {"run": text, "sha256": _checksum(tensors, text)})
    with atomic(folder / FILE) as file:
        file.write(content)


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, their order in memory included, and numbers as they were written.

    Raises `ModelError` where there is no checkpoint, or one that was cut or altered.
    """
    path = folder / FILE
    if not path.exists():
        raise ModelError(f"{folder} holds no unfinished run ({FILE} is missing): train without --resume.")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            header = file.metadata()
        if header["sha256"] != _checksum(tensors, header["run"]):
            raise ValueError("altered")
        run = json.loads(header["run"])
        for name in run["channels_last"]:
            tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)
        return tensors, run["state"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}): delete it and train without --resume.") from error


def expect(folder: Path, saved: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raises `ModelError` where the run whose numbers are `saved` was begun with another `identity`."""
    before = saved.get("identity", {})
    differs = [name for name in identity if before.get(name) != identity[name]]
    if differs:
        raise ModelError(
            f"The run in {folder} was begun with another choice of {', '.join(differs)}: give the same images and "
            f"options to continue it, or delete {folder / FILE}."
        )


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
