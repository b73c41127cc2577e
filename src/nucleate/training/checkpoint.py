"""The state of an unfinished run in one file: tensors and, in the same file's header, the numbers.

One file, written aside and renamed, so that a crash leaves either the state before or the state after.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nucleate.errors import ModelError
from nucleate.images.writer import atomic

FILE = "training.safetensors"


def write(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write the checkpoint of the run in `folder`."""
    content = save({name: t.detach().contiguous() for name, t in tensors.items()}, {"state": json.dumps(state)})
    with atomic(folder / FILE) as file:
        file.write(content)


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and numbers as they were written; `ModelError` where there is no checkpoint, or a cut one."""
    path = folder / FILE
    if not path.exists():
        raise ModelError(f"{folder} holds no unfinished run ({FILE} is missing): train without --resume.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["state"])  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}): delete it and train without --resume.") from error
