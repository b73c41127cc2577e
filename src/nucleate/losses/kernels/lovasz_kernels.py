"""The Lovász extension of a row of errors: a radix sort of errors packed with their position and label, then one pass.

An error e > 0 sorts by its code, the bits of the largest error less those of e: the bits of a positive float grow with
it. The upper bits of the code say which of the bins it falls into. Bins are sorted by the lower bits and summed up one
by one, which are small enough for the cache, and of which the steps of the Jaccard loss only need to know how many
pixels and positives come before. Errors of 0 and below add nothing and are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels.compiled import kernel, step
from nucleate.losses.kernels.scalars import bits_of_float, choose, f32, float_of_bits, i32

u32, u64 = np.uint32, np.uint64
BINS = 1 << 11
_FEW = 48  # keys, below which counting digits takes longer than to insert them one by one
_NONE = i32(0x7FFFFFFF)


@step
def _survey(errors: Any, hot: Any) -> Any:
    """Bits of the smallest and of the largest error above 0, whether one is NaN, and the positives."""
    low, high, nans, positives = _NONE, i32(0), i32(0), i32(0)
    for i in range(errors.size):
        e = errors[i]
        bits = bits_of_float(e)
        low = min(low, choose(e > 0, bits, _NONE))
        high = max(high, choose(e > 0, bits, i32(0)))
        nans += choose(e == e, i32(0), i32(1))
        positives += i32(hot[i])
    return low, high, nans, positives


@step
def _shift(low: int, high: int) -> int:
    """How many bits of a code are below those that choose its bin."""
    shift = 0
    while (high - low) >> shift >= BINS:
        shift += 1
    return shift


@step
def _count(errors: Any, hot: Any, high: int, shift: int, counts: Any, positives: Any) -> None:
    for i in range(errors.size):
        if errors[i] > 0:
            v = (i32(high) - bits_of_float(errors[i])) >> i32(shift)
            counts[v] += 1
            positives[v] += hot[i]


@step
def _place(errors: Any, hot: Any, first: int, high: int, shift: int, offsets: Any, keys: Any) -> None:
    """Code, position and label of each error to the next place of its bin."""
    for i in range(errors.size):
        if errors[i] > 0:
            code = i32(high) - bits_of_float(errors[i])
            v = code >> i32(shift)
            keys[offsets[v]] = (u64(code) << u64(32)) | u64(2 * (first + i)) | u64(hot[i])
            offsets[v] += 1


@step
def _insert(keys: Any) -> None:
    for i in range(1, keys.size):
        key, j = keys[i], i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key


@step
def _sort(keys: Any, spare: Any, counts: Any, shift: int) -> None:
    """Keys of a bin by the lowest `shift` bits of their codes, a digit at a time."""
    if keys.size <= _FEW:
        _insert(keys)
        return
    digits = (shift + 10) // 11
    here, there = keys, spare
    for d in range(digits):
        # Digits of about the same width: 17 bits are 9 and 8.
        begin, end = d * shift // digits, (d + 1) * shift // digits
        size = 1 << (end - begin)
        at, mask = u64(32 + begin), u64(size - 1)
        for v in range(size):
            counts[v] = 0
        for i in range(keys.size):
            counts[(here[i] >> at) & mask] += 1
        before = 0
        for v in range(size):
            held = counts[v]
            counts[v] = before
            before += held
        for i in range(keys.size):
            w = (here[i] >> at) & mask
            there[counts[w]] = here[i]
            counts[w] += 1
        here, there = there, here
    if digits % 2:
        for i in range(keys.size):
            keys[i] = spare[i]


@step
def _add_up(keys: Any, high: int, found: Any, union: Any, total: int, slope: Any) -> float:
    """The sum over sorted keys, before which `found` positives came and the union grew to `union`."""
    value = 0.0
    for i in range(keys.size):
        key = keys[i]
        positive = np.int64(key & u64(1))
        union += 1 - positive
        # A positive takes one from the intersection; a negative adds one to the union. No difference of two numbers
        # near 1 is taken, which would lose every digit of a step in an image of a million pixels.
        above = choose(positive == 1, 1.0, float(total - found))
        below = choose(positive == 1, float(union), float(union) * float(union - 1))
        jump = choose(below == 0, 1.0, above / below)
        found += positive
        slope[(key & u64(0xFFFFFFFF)) >> u64(1)] = f32(jump)
        value += jump * float_of_bits(i32(high) - i32(key >> u64(32)))
    return value


@step
def _finish(
    keys: Any, begins: Any, founds: Any, total: int, high: int, shift: int, first: int, last: int, slope: Any
) -> float:
    """Bins `first` to `last`; bin v holds keys begins[v] to begins[v + 1], with founds[v] positives before."""
    most = 0
    for v in range(first, last):
        most = max(most, begins[v + 1] - begins[v])
    spare, counts = np.empty(most, u64), np.empty(BINS, np.int64)
    value = 0.0
    for v in range(first, last):
        own = keys[begins[v] : begins[v + 1]]
        if own.size:
            _sort(own, spare, counts, shift)
            value += _add_up(own, high, founds[v], total + begins[v] - founds[v], total, slope)
    return value


@kernel("void(float32[::1], boolean[::1], int64[::1])", fastmath=False)
def survey(errors: Any, hot: Any, out: Any) -> None:
    out[0], out[1], out[2], out[3] = _survey(errors, hot)


@kernel("void(float32[::1], boolean[::1], int64, int64, int64[::1], int64[::1])", fastmath=False)
def count(errors: Any, hot: Any, low: int, high: int, counts: Any, positives: Any) -> None:
    _count(errors, hot, high, _shift(low, high), counts, positives)


@kernel("void(float32[::1], boolean[::1], int64, int64, int64, int64[::1], uint64[::1])", fastmath=False)
def place(errors: Any, hot: Any, first: int, low: int, high: int, offsets: Any, keys: Any) -> None:
    _place(errors, hot, first, high, _shift(low, high), offsets, keys)


@kernel("float64(uint64[::1], int64[::1], int64[::1], int64, int64, int64, int64, int64, float32[::1])", fastmath=False)
def finish(
    keys: Any, begins: Any, founds: Any, total: int, low: int, high: int, first: int, last: int, slope: Any
) -> float:
    return _finish(keys, begins, founds, total, high, _shift(low, high), first, last, slope)


@kernel("float64(float32[::1], boolean[::1], float32[::1])", fastmath=False)
def row(errors: Any, hot: Any, slope: Any) -> float:
    """The extension of one row; `slope`, given as zeros, receives the step of the Jaccard loss at each pixel."""
    low, high, nans, total = _survey(errors, hot)
    if nans:
        return np.nan
    if not high:
        return 0.0
    shift = _shift(low, high)
    begins, founds = np.zeros(BINS + 1, np.int64), np.zeros(BINS + 1, np.int64)
    _count(errors, hot, high, shift, begins[1:], founds[1:])
    for v in range(BINS):
        begins[v + 1] += begins[v]
        founds[v + 1] += founds[v]
    keys = np.empty(begins[BINS], u64)
    _place(errors, hot, 0, high, shift, begins[:BINS].copy(), keys)
    return _finish(keys, begins, founds, total, high, shift, 0, BINS, slope)
