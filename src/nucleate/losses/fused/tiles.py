"""Blocks of pixels between memory and the cache, as one row of float32 for each class, whatever the layout.

"Planes" is (N, C, H, W): a class is already contiguous. "Rows" is channels-last, (N, H, W, C): a tile is taken apart
by small factors (12 classes by 3, 2 and 2), since copies with a constant stride of 2 or 3 become vector code and
with any other stride do not. Classes come out in digit-reversed order; `order` says which row is which class.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.fused.compiled import step
from nucleate.losses.fused.scalars import bfloat16_of_float, float_of_bfloat16
from nucleate.losses.fused.views import part


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
    """The way back of `read`."""
    if bfloat16:
        _narrow(source, part(words, first, source.size))
    else:
        _copy(source, part(words, 2 * first, 2 * source.size).view(np.float32))


@step
def take_apart(source: Any, out: Any, factor: int) -> None:
    """out[r, i] = source[i * factor + r], both flat."""
    n = source.size // factor
    if factor == 2:
        a, b = part(out, 0, n), part(out, n, n)
        for i in range(n):
            a[i] = source[2 * i]
            b[i] = source[2 * i + 1]
    elif factor == 3:
        a, b, c = part(out, 0, n), part(out, n, n), part(out, 2 * n, n)
        for i in range(n):
            a[i] = source[3 * i]
            b[i] = source[3 * i + 1]
            c[i] = source[3 * i + 2]
    else:
        for i in range(n):
            for r in range(factor):
                out[r * n + i] = source[i * factor + r]


@step
def put_together(source: Any, out: Any, factor: int) -> None:
    """out[i * factor + r] = source[r, i], both flat."""
    n = out.size // factor
    if factor == 2:
        a, b = part(source, 0, n), part(source, n, n)
        for i in range(n):
            out[2 * i] = a[i]
            out[2 * i + 1] = b[i]
    elif factor == 3:
        a, b, c = part(source, 0, n), part(source, n, n), part(source, 2 * n, n)
        for i in range(n):
            out[3 * i] = a[i]
            out[3 * i + 1] = b[i]
            out[3 * i + 2] = c[i]
    else:
        for i in range(n):
            for r in range(factor):
                out[i * factor + r] = source[r * n + i]


@step
def load(
    words: Any, bfloat16: bool, rows: bool, parts: Any, first: int, plane: int, tile: Any, spare: Any, n: int
) -> None:
    """n pixels of every class into `tile`, row k from k * n on; `spare` has the same size.

    Planes: class k of the first pixel lies at first + k * plane. Rows: the pixels lie at first, all classes of each.
    """
    if not rows:
        for c in range(tile.size // n):
            read(words, bfloat16, first + c * plane, part(tile, c * n, n))
        return
    # The stages go back and forth between the two, and the last one must end in `tile`.
    here, there = (tile, spare) if parts.size % 2 == 0 else (spare, tile)
    read(words, bfloat16, first, here)
    chunks = 1
    for s in range(parts.size):
        size = tile.size // chunks
        for q in range(chunks):
            take_apart(part(here, q * size, size), part(there, q * size, size), parts[s])
        here, there = there, here
        chunks *= parts[s]


@step
def store(
    words: Any, bfloat16: bool, rows: bool, parts: Any, first: int, plane: int, tile: Any, spare: Any, n: int
) -> None:
    """The way back of `load`; both tiles are used up."""
    classes = tile.size // n
    if not rows:
        for c in range(classes):
            write(words, bfloat16, first + c * plane, part(tile, c * n, n))
        return
    here, there = tile, spare
    chunks = classes
    for s in range(parts.size - 1, -1, -1):
        chunks //= parts[s]
        size = tile.size // chunks
        for q in range(chunks):
            put_together(part(here, q * size, size), part(there, q * size, size), parts[s])
        here, there = there, here
    write(words, bfloat16, first, here)
