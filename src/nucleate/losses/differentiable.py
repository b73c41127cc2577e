"""Functions with a derivative of their own, as functions that have a type."""

from __future__ import annotations

import torch
from torch import Tensor


def applied(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """`function.apply(*arguments)`, of a function that gives one tensor."""
    result: Tensor = function.apply(*arguments)
    return result
