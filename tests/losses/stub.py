"""Writes src/nucleate/losses/modules.pyi: `python tests/losses/stub.py`."""

from __future__ import annotations

import inspect
from pathlib import Path

from nucleate import losses
from nucleate.losses import modules

PATH = Path(modules.__file__).with_suffix(".pyi")


def text() -> str:
    """A class for each loss: the options as arguments and attributes, and the call."""
    classes = [_class(entry) for entry in losses.catalogue() if entry.module.__name__ in modules.__all__]
    body = "\n\n".join(classes)
    listed = "\n".join(f'    "{name}",' for name in sorted(modules.__all__))
    return f'''# ruff: noqa: F401, F403, F405, RUF022
"""The modules of losses, for type checkers and editors; written by tests/losses/stub.py."""

from collections.abc import Sequence
from typing import Annotated, Literal

from torch import Tensor

from nucleate.losses.distribution import Distribution
from nucleate.losses.options import *
from nucleate.losses.registry import Loss
from nucleate.parallel.communicator import Group

__all__ = [
{listed}
]

{body}
'''


def _class(entry: losses.Entry) -> str:
    parameters = list(inspect.signature(entry.function).parameters.values())
    given = [f"{p.name}: {p.annotation}" for p in parameters if p.default is p.empty]
    named = [f"{p.name}: {p.annotation} = ..." for p in parameters if p.default is not p.empty]
    attributes = [f"    {p.name}: {p.annotation}" for p in parameters if p.default is not p.empty]
    return "\n".join(
        [
            f"class {entry.module.__name__}(Loss):",
            *attributes,
            f"    def __init__(self, *, {', '.join(named)}) -> None: ...",
            f"    def __call__(self, {', '.join(given)}, *, {', '.join(named)}) -> Tensor: ...",
        ]
    )


if __name__ == "__main__":
    PATH.write_text(text())
