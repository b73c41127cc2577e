"""Softmax over the products of two sets of rows, 32 x 256 at a time: they are made twice and never held.

s_ij is the product of row i and column j, in units of log 2. Rows come as bfloat16 parts row by row, columns in the
two orders of `products._packed`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels import matrix_unit
from nucleate.losses.kernels.compiler import kernel, step
from nucleate.losses.kernels.intrinsics import bits_of_float, borrowed, float_of_bits, keep_alive, larger, part
from nucleate.losses.kernels.scalars import exp2, f32, i32
from nucleate.losses.kernels.tiles import fill

AT_HAND = matrix_unit.at_hand()
TILE, CHUNK = 32, 256
TALL = 2 * TILE  # rows whose shares in the slopes of columns are added up at once
STRIPES = 8  # parts of the columns that threads take, each with slopes of rows of its own
_HIGH, _LOW = i32(-65536), i32(65535)  # the upper half of the bits of a float32, those of a bfloat16, and the lower


@step
def _products(
    high: Any, low: Any, depth: int, at_row: int, c_high: Any, c_low: Any, at_column: int, columns: int, s: Any
) -> None:
    """s = rows from at_row times columns from at_column, 32 x CHUNK."""
    for j in range(0, columns, TILE):
        matrix_unit.multiply(
            high[at_row * depth :], low[at_row * depth :], 2 * depth, c_high[(at_column + j) * depth :],
            c_low[(at_column + j) * depth :], 64, 32 * depth, s[j:], 4 * CHUNK, depth // 32, False,
        )  # fmt: skip


@step
def _largest(s: Any) -> Any:
    top = f32(-np.inf)
    for j in range(s.size):
        top = larger(top, s[j])
    return top


@step
def _sum(s: Any, top: Any) -> Any:
    total = f32(0.0)
    for j in range(s.size):
        total += exp2(s[j] - top)
    return total


@step
def _one_way(s: Any, top: Any, share: Any) -> None:
    for j in range(s.size):
        s[j] = share * exp2(s[j] - top)


@step
def _other_way(s: Any, tops: Any, shares: Any) -> None:
    for j in range(s.size):
        s[j] = shares[j] * exp2(s[j] - tops[j])


@step
def _both_ways(s: Any, top: Any, share: Any, tops: Any, shares: Any) -> None:
    for j in range(s.size):
        s[j] = share * exp2(s[j] - top) + shares[j] * exp2(s[j] - tops[j])


@step
def _parts(p: Any, high: Any, low: Any) -> None:
    """p as the sum of two bfloat16."""
    for j in range(p.size):
        bits = bits_of_float(p[j])
        rest = bits_of_float(p[j] - float_of_bits(bits & _HIGH))
        high[j] = np.int16(bits >> i32(16))
        low[j] = np.int16((rest + i32(0x8000)) >> i32(16))


@step
def _interleaved(p: Any, below: Any, high: Any, low: Any) -> None:
    """Two rows as the sum of two bfloat16, side by side in words, as the unit wants its right factor."""
    for j in range(p.size):
        bits, bits_below = bits_of_float(p[j]), bits_of_float(below[j])
        rest = bits_of_float(p[j] - float_of_bits(bits & _HIGH)) + i32(0x8000)
        rest_below = bits_of_float(below[j] - float_of_bits(bits_below & _HIGH)) + i32(0x8000)
        high[j] = ((bits >> i32(16)) & _LOW) | (bits_below & _HIGH)
        low[j] = ((rest >> i32(16)) & _LOW) | (rest_below & _HIGH)


def row_sums(
    high: Any, low: Any, depth: int, c_high: Any, c_low: Any, first: int, columns: int, own: Any, top: Any,
    total: Any, at_own: Any, begin: int, end: int,
) -> None:  # fmt: skip
    """Row tiles `begin` to `end` against columns `first` to first + columns: sum_j 2^(s_ij - top_i), top_i the largest.

    top and total hold what columns before gave. s at the column own_i goes to at_own_i.
    """
    high, low, c_high, c_low = borrowed(high), borrowed(low), borrowed(c_high), borrowed(c_low)
    floats = np.empty(TILE * CHUNK, f32)
    s_of = borrowed(floats)
    matrix_unit.begin()
    for at in range(0, columns, CHUNK):
        n = min(CHUNK, columns - at)
        for tile in range(begin, end):
            _products(high, low, depth, tile * TILE, c_high, c_low, at, n, s_of)
            for r in range(TILE):
                i = tile * TILE + r
                s = part(s_of, r * CHUNK, n)
                new = larger(top[i], _largest(s))
                total[i] = total[i] * exp2(top[i] - new) + _sum(s, new)
                top[i] = new
                j = own[i] - first - at
                if 0 <= j < n:
                    at_own[i] = s[j]
    matrix_unit.end()
    keep_alive(floats)


def row_slopes(
    high: Any, low: Any, depth: int, c_high: Any, c_low: Any, v_high: Any, v_low: Any, first: int, columns: int,
    top: Any, share: Any, tops: Any, shares: Any, own: Any, less: Any, turned: bool, out: Any, begin: int, end: int,
) -> None:  # fmt: skip
    """out_i += sum_j p_ij column_j with p_ij = share_i 2^(s_ij - top_i) + shares_j 2^(s_ij - tops_j) - less at a pair.

    An empty share or shares is left out. A pair is row i with column own_i, or where `turned` column j with row own_j;
    less_i or less_j is what it is reduced by, before the parts are rounded: what is left of it may be small.
    """
    high, low, c_high, c_low = borrowed(high), borrowed(low), borrowed(c_high), borrowed(c_low)
    v_high, v_low, tops, shares, out = (
        borrowed(v_high),
        borrowed(v_low),
        borrowed(tops),
        borrowed(shares),
        borrowed(out),
    )
    size = TILE * CHUNK
    floats, words = np.empty(size, f32), np.empty(2 * size, np.int16)
    s_of, p_high, p_low = borrowed(floats), part(words, 0, size), part(words, size, size)
    matrix_unit.begin()
    for at in range(0, columns, CHUNK):
        n = min(CHUNK, columns - at)
        steps = (n + 31) // 32
        for tile in range(begin, end):
            _products(high, low, depth, tile * TILE, c_high, c_low, at, n, s_of)
            for r in range(TILE):
                i = tile * TILE + r
                s = part(s_of, r * CHUNK, n)
                if share.size and shares.size:
                    _both_ways(s, top[i], share[i], part(tops, at, n), part(shares, at, n))
                elif share.size:
                    _one_way(s, top[i], share[i])
                else:
                    _other_way(s, part(tops, at, n), part(shares, at, n))
                fill(part(s_of, r * CHUNK + n, 32 * steps - n), f32(0.0))
                if not turned:
                    j = own[i] - first - at
                    if 0 <= j < n:
                        s[j] -= less[i]
            if turned:
                for j in range(n):
                    r = own[at + j] - tile * TILE
                    if 0 <= r < TILE:
                        s_of[r * CHUNK + j] -= less[at + j]
            _parts(s_of, p_high, p_low)
            for d in range(0, depth, TILE):
                matrix_unit.multiply(
                    p_high, p_low, 2 * CHUNK, v_high[at * depth + 2 * d :], v_low[at * depth + 2 * d :], 4 * depth, 64,
                    out[tile * TILE * depth + d :], 4 * depth, steps, True,
                )  # fmt: skip
    matrix_unit.end()
    keep_alive(floats)
    keep_alive(words)


def both_slopes(
    high: Any, low: Any, depth: int, t_high: Any, t_low: Any, c_high: Any, c_low: Any, v_high: Any, v_low: Any,
    first: int, columns: int, top: Any, share: Any, own: Any, less: Any, by_rows: Any, by_columns: Any, begin: int,
    end: int,
) -> None:  # fmt: skip
    """The slopes of rows and of columns from one look at p_ij = share_i 2^(s_ij - top_i) - less_i where own_i = j.

    Stripes `begin` to `end` of the columns, CHUNK at a time. Those of rows are added to by_rows[stripe], (rows, depth);
    those of columns to by_columns[chunk], (depth, CHUNK). The rows come once more in t_high and t_low: TALL of them
    at a time, (depth, TALL), the last filled up with 0.
    """
    high, low, t_high, t_low, c_high, c_low = (
        borrowed(high),
        borrowed(low),
        borrowed(t_high),
        borrowed(t_low),
        borrowed(c_high),
        borrowed(c_low),
    )
    v_high, v_low, by_rows, by_columns = borrowed(v_high), borrowed(v_low), borrowed(by_rows), borrowed(by_columns)
    size = TILE * CHUNK
    floats, words, pairs = np.empty(size, f32), np.empty(2 * size, np.int16), np.empty(2 * size, np.int32)
    s_of, p_high, p_low = borrowed(floats), part(words, 0, size), part(words, size, size)
    w_high, w_low = part(pairs, 0, size), part(pairs, size, size)
    tiles, chunks = top.size // TILE, (columns + CHUNK - 1) // CHUNK
    matrix_unit.begin()
    for stripe in range(begin, end):
        out = part(by_rows, stripe * top.size * depth, top.size * depth)
        for chunk in range(chunks * stripe // STRIPES, chunks * (stripe + 1) // STRIPES):
            at = chunk * CHUNK
            n = min(CHUNK, columns - at)
            steps = (n + 31) // 32
            for tall in range(0, tiles, 2):
                count = min(2, tiles - tall)
                for tile in range(tall, tall + count):
                    _products(high, low, depth, tile * TILE, c_high, c_low, at, n, s_of)
                    for r in range(TILE):
                        i = tile * TILE + r
                        s = part(s_of, r * CHUNK, n)
                        _one_way(s, top[i], share[i])
                        fill(part(s_of, r * CHUNK + n, 32 * steps - n), f32(0.0))
                        j = own[i] - first - at
                        if 0 <= j < n:
                            s[j] -= less[i]
                    _parts(s_of, p_high, p_low)
                    for r in range(0, TILE, 2):
                        w = ((tile - tall) * TILE + r) // 2 * CHUNK
                        _interleaved(
                            part(s_of, r * CHUNK, 32 * steps), part(s_of, (r + 1) * CHUNK, 32 * steps),
                            part(w_high, w, 32 * steps), part(w_low, w, 32 * steps),
                        )  # fmt: skip
                    for d in range(0, depth, TILE):
                        matrix_unit.multiply(
                            p_high, p_low, 2 * CHUNK, v_high[at * depth + 2 * d :], v_low[at * depth + 2 * d :],
                            4 * depth, 64, out[tile * TILE * depth + d :], 4 * depth, steps, True,
                        )  # fmt: skip
                for d in range(0, depth, TILE):
                    t = (tall // 2 * depth + d) * TALL
                    for j in range(0, 32 * steps, TILE):
                        matrix_unit.multiply(
                            t_high[t:], t_low[t:], 2 * TALL, w_high[j:], w_low[j:], 4 * CHUNK, 64,
                            by_columns[(chunk * depth + d) * CHUNK + j :], 4 * CHUNK, count, True,
                        )  # fmt: skip
    matrix_unit.end()
    keep_alive(floats)
    keep_alive(words)
    keep_alive(pairs)


if AT_HAND:
    _PARTS = "int16[::1], int16[::1]"
    row_sums = kernel(
        f"void({_PARTS}, int64, {_PARTS}, int64, int64, int64[::1], float32[::1], float32[::1], float32[::1], int64, "
        "int64)"
    )(row_sums)
    row_slopes = kernel(
        f"void({_PARTS}, int64, {_PARTS}, {_PARTS}, int64, int64, float32[::1], float32[::1], float32[::1], "
        "float32[::1], int64[::1], float32[::1], boolean, float32[::1], int64, int64)"
    )(row_slopes)
    both_slopes = kernel(
        f"void({_PARTS}, int64, {_PARTS}, {_PARTS}, {_PARTS}, int64, int64, float32[::1], float32[::1], int64[::1], "
        "float32[::1], float32[::1], float32[::1], int64, int64)"
    )(both_slopes)
