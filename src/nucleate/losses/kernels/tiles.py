"""Blocks of pixels between memory and the cache, as one row of float32 for each class, whatever the layout.

"Planes" is (N, C, H, W): a class is already contiguous. "Rows" is channels-last, (N, H, W, C), and has to be turned:
squares of 8 or 4 pixels by as many classes in registers, the last square of a row over the one before where the classes
are no multiple. Of 2 or 3 classes there is no square, but copies with a constant stride of 2 or 3 become vector code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels.compiled import step
from nucleate.losses.kernels.scalars import bfloat16_of_float, float_of_bfloat16
from nucleate.losses.kernels.squares import turn_4, turn_8
from nucleate.losses.kernels.stream import stream
from nucleate.losses.kernels.views import part

_LARGE = 1 << 22  # words of two bytes, more than the cache of a core holds


@step
def _copy(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = source[j]


@step
def _widen(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = float_of_bfloat16(source[j])


@step
def _narrow(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = bfloat16_of_float(source[j])


@step
def read(words: Any, bfloat16: bool, first: int, out: Any) -> None:
    """Numbers from `first` on, of float32 or bfloat16, out of memory seen as words of two bytes.

    One type for both keeps the kernels from being compiled twice.
    """
    if bfloat16:
        _widen(part(words, first, out.size), out)
    else:
        _copy(part(words, 2 * first, 2 * out.size).view(np.float32), out)


@step
def write(words: Any, bfloat16: bool, first: int, source: Any) -> None:
    """The way back of `read`; a kernel that writes ends with `stream.settle`."""
    if bfloat16:
        _narrow(source, part(words, first, source.size))
        return
    out = part(words, 2 * first, 2 * source.size).view(np.float32)
    if words.size < _LARGE:
        _copy(source, out)
    else:
        stream(source, out)


@step
def _take_apart(source: Any, n: int, out: Any) -> None:
    """Rows of n pixels become one row for each of 2 or 3 classes."""
    if out.size == 2 * n:
        a, b = part(out, 0, n), part(out, n, n)
        for i in range(n):
            a[i] = source[2 * i]
            b[i] = source[2 * i + 1]
    else:
        a, b, c = part(out, 0, n), part(out, n, n), part(out, 2 * n, n)
        for i in range(n):
            a[i] = source[3 * i]
            b[i] = source[3 * i + 1]
            c[i] = source[3 * i + 2]


@step
def _put_together(source: Any, n: int, out: Any) -> None:
    """The way back of `_take_apart`."""
    if out.size == 2 * n:
        a, b = part(source, 0, n), part(source, n, n)
        for i in range(n):
            out[2 * i] = a[i]
            out[2 * i + 1] = b[i]
    else:
        a, b, c = part(source, 0, n), part(source, n, n), part(source, 2 * n, n)
        for i in range(n):
            out[3 * i] = a[i]
            out[3 * i + 1] = b[i]
            out[3 * i + 2] = c[i]


@step
def _turn(source: Any, lines: int, out: Any) -> None:
    """out[k, j] = source[j, k] for each of `lines` j, both flat."""
    width = out.size // lines
    if lines >= 8 and width >= 8:
        for j in range(0, lines, 8):
            for k in range(0, width, 8):
                at, c = min(j, lines - 8), min(k, width - 8)
                turn_8(source, at * width + c, width, out, c * lines + at, lines)
    elif lines >= 4 and width >= 4:
        for j in range(0, lines, 4):
            for k in range(0, width, 4):
                at, c = min(j, lines - 4), min(k, width - 4)
                turn_4(source, at * width + c, width, out, c * lines + at, lines)
    else:
        for j in range(lines):
            for k in range(width):
                out[k * lines + j] = source[j * width + k]


@step
def load(words: Any, bfloat16: bool, rows: bool, first: int, plane: int, tile: Any, spare: Any, n: int) -> None:
    """n pixels of every class into `tile`, class c from c * n on; `spare` has the same size.

    Planes: class c of the first pixel lies at first + c * plane. Rows: the pixels lie at first, all classes of each.
    """
    if not rows:
        for c in range(tile.size // n):
            read(words, bfloat16, first + c * plane, part(tile, c * n, n))
        return
    if bfloat16:
        read(words, True, first, spare)
    source = spare if bfloat16 else part(words, 2 * first, 2 * tile.size).view(np.float32)
    if tile.size <= 3 * n:
        _take_apart(source, n, tile)
    else:
        _turn(source, n, tile)


@step
def store(words: Any, bfloat16: bool, rows: bool, first: int, plane: int, tile: Any, spare: Any, n: int) -> None:
    """The way back of `load`; `spare` is used up."""
    if not rows:
        for c in range(tile.size // n):
            write(words, bfloat16, first + c * plane, part(tile, c * n, n))
        return
    if tile.size <= 3 * n:
        _put_together(tile, n, spare)
    else:
        _turn(tile, tile.size // n, spare)
    write(words, bfloat16, first, spare)
