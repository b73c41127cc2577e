"""Targets of any type, read a block at a time as float32: no copy of them is made in another type."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.kernels.compiler import step
from nucleate.losses.kernels.intrinsics import choose, part
from nucleate.losses.kernels.memory import Layout
from nucleate.losses.kernels.scalars import f32, float_of_bfloat16, i32
from nucleate.losses.kernels.tiles import copy, transpose

FLOAT, BFLOAT, BYTE, INT, LONG = range(5)
_KINDS = {
    torch.float32: FLOAT, torch.bfloat16: BFLOAT, torch.bool: BYTE, torch.uint8: BYTE, torch.int32: INT,
    torch.int64: LONG,
}  # fmt: skip
_WIDER = {torch.int8: torch.int32, torch.int16: torch.int32, torch.float16: torch.float32, torch.float64: torch.float32}


def numbers_of(x: Tensor) -> tuple[NDArray[np.uint8], int]:
    """The memory of `x` as bytes, and the kind of number that they hold; types that are rare are copied."""
    held = (x.to(_WIDER[x.dtype]) if x.dtype in _WIDER else x).contiguous()
    plain = held.view(torch.int16) if held.dtype == torch.bfloat16 else held
    return plain.numpy().reshape(-1).view(np.uint8), _KINDS[held.dtype]


def laid_out(x: Tensor, dim: int, at: Layout) -> tuple[NDArray[np.uint8], int, bool]:
    """`numbers_of` a target with classes along `dim`, and whether those of a pixel lie together.

    It may lie in another order than the logits where a block ends with its image.
    """
    rows = at.classes > 1 and x.movedim(dim, -1).is_contiguous()
    if not rows and not (x.is_contiguous() and at.plane == math.prod(x.shape[dim + 1 :])):
        rows = at.rows
    return *numbers_of((x.movedim(dim, -1) if rows else x).detach()), rows


@step
def _widen(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = float_of_bfloat16(source[j])


@step
def _bytes(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = f32(i32(source[j]))


@step
def _ints(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = f32(source[j])


@step
def _longs(source: Any, out: Any) -> None:
    """Of each 8 bytes the lower half; NaN where the upper one does not only continue its sign."""
    for j in range(out.size):
        y = source[2 * j]
        out[j] = choose(source[2 * j + 1] == y >> i32(31), f32(y), f32(np.nan))


@step
def numbers(source: Any, kind: int, first: int, out: Any) -> None:
    """The numbers of `source` from `first` on."""
    n = out.size
    if kind == FLOAT:
        copy(part(source, 4 * first, 4 * n).view(f32), out)
    elif kind == BFLOAT:
        _widen(part(source, 2 * first, 2 * n).view(np.int16), out)
    elif kind == BYTE:
        _bytes(part(source, first, n), out)
    elif kind == INT:
        _ints(part(source, 4 * first, 4 * n).view(i32), out)
    else:
        _longs(part(source, 8 * first, 8 * n).view(i32), out)


@step
def load_numbers(source: Any, kind: int, rows: bool, first: int, plane: int, tile: Any, spare: Any, n: int) -> None:
    """n pixels of every class into `tile`, as `tiles.load` does."""
    if rows:
        numbers(source, kind, first, spare)
        transpose(spare, n, tile)
    else:
        for c in range(tile.size // n):
            numbers(source, kind, first + c * plane, part(tile, c * n, n))
