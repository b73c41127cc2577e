"""Blocks of pixels between memory and the cache, as one row of float32 for each class, whatever the layout.

"Planes" is (N, C, H, W): a class is already contiguous. "Rows" is channels-last, (N, H, W, C), and has to be
transposed: squares of 8 or 4 pixels by as many classes in registers, the last square of a row over the one before
where the classes are no multiple. Of 2 or 3 classes there is no square, but copies with a constant stride of 2 or 3
become vector code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels.compiler import step
from nucleate.losses.kernels.intrinsics import LINE, before_line, larger, part, store_line, transpose_4, transpose_8
from nucleate.losses.kernels.scalars import LOG2_E, bfloat16_of_float, exp2, f32, float_of_bfloat16, log

_LARGE = 1 << 22  # words of two bytes, more than the cache of a core holds


@step
def fill(out: Any, value: Any) -> None:
    for j in range(out.size):
        out[j] = value


@step
def copy(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = source[j]


@step
def row(array: Any, k: int, size: int, n: int) -> Any:
    """The first n numbers of row k, each row of `size`; borrowed."""
    return part(array, k * size, n)


@step
def scale_by(scale: Any, x: Any) -> None:
    for j in range(x.size):
        x[j] *= scale


@step
def block_at(b: int, plane: int, block: int, classes: int, rows: bool) -> tuple[int, int, int, int]:
    """Of block b: the image, how many pixels, the first of them, and where its first logit lies."""
    blocks = (plane + block - 1) // block
    image, inside = b // blocks, (b % blocks) * block
    pixel = image * plane + inside
    return image, min(block, plane - inside), pixel, pixel * classes if rows else image * plane * classes + inside


@step
def stream(source: Any, out: Any) -> None:
    head = min(before_line(out), out.size)
    tail = head + (out.size - head) // LINE * LINE
    for j in range(head):
        out[j] = source[j]
    for j in range(head, tail, LINE):
        store_line(source, out, j)
    for j in range(tail, out.size):
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
        copy(part(words, 2 * first, 2 * out.size).view(np.float32), out)


@step
def write(words: Any, bfloat16: bool, first: int, source: Any) -> None:
    """The way back of `read`; a kernel that writes ends with `fence`."""
    if bfloat16:
        _narrow(source, part(words, first, source.size))
        return
    out = part(words, 2 * first, 2 * source.size).view(np.float32)
    if words.size < _LARGE:
        copy(source, out)
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
def _transpose(source: Any, lines: int, out: Any) -> None:
    """out[k, j] = source[j, k] for each of `lines` j, both flat."""
    width = out.size // lines
    if lines >= 8 and width >= 8:
        for j in range(0, lines, 8):
            for k in range(0, width, 8):
                at, c = min(j, lines - 8), min(k, width - 8)
                transpose_8(source, at * width + c, width, out, c * lines + at, lines)
    elif lines >= 4 and width >= 4:
        for j in range(0, lines, 4):
            for k in range(0, width, 4):
                at, c = min(j, lines - 4), min(k, width - 4)
                transpose_4(source, at * width + c, width, out, c * lines + at, lines)
    else:
        for j in range(lines):
            for k in range(width):
                out[k * lines + j] = source[j * width + k]


@step
def transpose(source: Any, n: int, out: Any) -> None:
    """Rows of n pixels become one row for each class."""
    if out.size <= 3 * n:
        _take_apart(source, n, out)
    else:
        _transpose(source, n, out)


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
    transpose(source, n, tile)


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
        _transpose(tile, tile.size // n, spare)
    write(words, bfloat16, first, spare)


@step
def maximum(x: Any, top: Any) -> None:
    for j in range(top.size):
        top[j] = larger(top[j], x[j])


@step
def exponential(x: Any, top: Any, total: Any, out: Any) -> None:
    """exp(x - top) into `out`, which may not be x, and added to `total`."""
    for j in range(out.size):
        e = exp2((x[j] - top[j]) * LOG2_E)
        out[j] = e
        total[j] += e


@step
def exponentials(x: Any, begin: int, apart: int, classes: int, top: Any, total: Any, out: Any) -> None:
    """The largest logit of each pixel, then exp(x - top) of every class into `out`, and the sum over classes.

    Class c lies at begin + c * apart.
    """
    n = top.size
    fill(top, f32(-np.inf))
    for c in range(classes):
        maximum(part(x, begin + c * apart, n), top)
    fill(total, f32(0.0))
    for c in range(classes):
        exponential(part(x, begin + c * apart, n), top, total, row(out, c, n, n))


@step
def logarithm(x: Any, out: Any) -> None:
    for j in range(x.size):
        out[j] = log(x[j])


@step
def dot(a: Any, b: Any) -> float:
    total = f32(0.0)
    for j in range(a.size):
        total += a[j] * b[j]
    return float(total)


@step
def add_up(a: Any) -> float:
    total = f32(0.0)
    for j in range(a.size):
        total += a[j]
    return float(total)
