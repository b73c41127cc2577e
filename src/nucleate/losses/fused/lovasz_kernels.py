"""The Lovász extension of one row: a radix sort of errors packed with their position and label, then one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.fused.compiled import kernel, step
from nucleate.losses.fused.scalars import bits_of_float, f32, float_of_bits

u32, u64 = np.uint32, np.uint64
_DIGIT = 11  # bits: three rounds for the 32 of a float, and a table that fits the first cache
_BINS = 1 << _DIGIT


@step
def _pack(errors: Any, hot: Any, keys: Any, counts: Any) -> int:
    """Keys of the errors above 0 and the counts of their three digits; -1 where an error is NaN.

    The bits of a positive float grow with it: complemented, they sort from large to small. Below them stand the
    position and the label, so that nothing is looked up through a permutation. Errors of 0 add nothing.
    """
    n = 0
    for i in range(errors.size):
        e = errors[i]
        if e != e:
            return -1
        if e > 0:
            high = u64(u32(~bits_of_float(e)))
            keys[n] = (high << u64(32)) | u64(2 * i) | u64(hot[i])
            for d in range(3):
                counts[d, (high >> u64(d * _DIGIT)) & u64(_BINS - 1)] += 1
            n += 1
    return n


@step
def _sorted(keys: Any, spare: Any, counts: Any, n: int) -> Any:
    """The first n keys by their upper half; one of the two arrays."""
    for d in range(3):
        begin = 0
        for v in range(_BINS):
            count = counts[d, v]
            counts[d, v] = begin
            begin += count
        shift = u64(32 + d * _DIGIT)
        for i in range(n):
            v = (keys[i] >> shift) & u64(_BINS - 1)
            spare[counts[d, v]] = keys[i]
            counts[d, v] += 1
        keys, spare = spare, keys
    return keys


@kernel("float64(float32[::1], boolean[::1], float32[::1])", fastmath=False)
def row(errors: Any, hot: Any, slope: Any) -> float:
    """The extension of one row; `slope`, given as zeros, receives the step of the Jaccard loss at each pixel."""
    keys, spare = np.empty(errors.size, u64), np.empty(errors.size, u64)
    counts = np.zeros((3, _BINS), np.int64)
    n = _pack(errors, hot, keys, counts)
    if n < 0:
        return np.nan
    keys = _sorted(keys, spare, counts, n)
    total = np.int64(0)
    for i in range(hot.size):
        total += hot[i]
    found, union, value, step = 0, total, 0.0, 0.0
    for i in range(n):
        key = keys[i]
        if key & u64(1):
            # A positive takes one from the intersection; a negative adds one to the union. No difference of two
            # numbers near 1 is taken, which would lose every digit of a step in an image of a million pixels.
            step = 1.0 / float(union)
            found += 1
        else:
            union += 1
            step = float(total - found) / (float(union) * float(union - 1)) if union > 1 else 1.0
        slope[(key & u64(0xFFFFFFFF)) >> u64(1)] = f32(step)
        value += step * float_of_bits(np.int32(~np.int32(key >> u64(32))))
    return value
