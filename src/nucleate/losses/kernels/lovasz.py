"""The Lovász extension of a row of errors: a radix sort of errors packed with their position and label, then one pass.

An error e > 0 sorts by its code, the bits of the largest error less those of e: the bits of a positive float grow with
it. The upper bits of the code say which of the bins it falls into. Bins are sorted by the lower bits and summed up one
by one, which are small enough for the cache, and of which the steps of the Jaccard loss only need to know how many
pixels and positives come before. Errors of 0 and below add nothing and are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.autograd import applied
from nucleate.losses.kernels.compiler import kernel, step
from nucleate.losses.kernels.intrinsics import bits_of_float, choose, float_of_bits
from nucleate.losses.kernels.memory import empty_like
from nucleate.losses.kernels.scalars import f32, i32
from nucleate.losses.kernels.threads import over_blocks

u64 = np.uint64
_BINS = 1 << 11
_CHUNK = 1 << 16  # pixels that one thread takes at a time
_MANY = 8  # rows, from which on a thread takes whole ones
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
    while (high - low) >> shift >= _BINS:
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
    spare, counts = np.empty(most, u64), np.empty(_BINS, np.int64)
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
def finish_bins(
    keys: Any, begins: Any, founds: Any, total: int, low: int, high: int, first: int, last: int, slope: Any
) -> float:
    return _finish(keys, begins, founds, total, high, _shift(low, high), first, last, slope)


@kernel("float64(float32[::1], boolean[::1], float32[::1])", fastmath=False)
def row_extension(errors: Any, hot: Any, slope: Any) -> float:
    """The extension of one row; `slope`, given as zeros, receives the step of the Jaccard loss at each pixel."""
    low, high, nans, total = _survey(errors, hot)
    if nans:
        return np.nan
    if not high:
        return 0.0
    shift = _shift(low, high)
    begins, founds = np.zeros(_BINS + 1, np.int64), np.zeros(_BINS + 1, np.int64)
    _count(errors, hot, high, shift, begins[1:], founds[1:])
    for v in range(_BINS):
        begins[v + 1] += begins[v]
        founds[v + 1] += founds[v]
    keys = np.empty(begins[_BINS], u64)
    _place(errors, hot, 0, high, shift, begins[:_BINS].copy(), keys)
    return _finish(keys, begins, founds, total, high, shift, 0, _BINS, slope)


def extension(errors: Tensor, positive: Tensor) -> Tensor:
    """The extension along the last axis as the plain version gives it."""
    return applied(_Extension, errors, positive)


def _together(errors: NDArray[np.float32], hot: NDArray[np.bool_], slope: NDArray[np.float32]) -> float:
    """What `row_extension` computes, by all threads: chunks of pixels go to their bins, then bins are finished."""
    edges = [*range(0, len(errors), _CHUNK), len(errors)]
    chunks = [slice(a, b) for a, b in pairwise(edges)]
    found = np.empty((len(chunks), 4), np.int64)

    def each_chunk(work: Callable[[int, slice], None]) -> None:
        def run(begin: int, end: int, sums: NDArray[np.float64]) -> None:
            for k in range(begin, end):
                work(k, chunks[k])

        over_blocks(len(chunks), 1, run)

    each_chunk(lambda k, at: survey(errors[at], hot[at], found[k]))
    low, high, total = int(found[:, 0].min()), int(found[:, 1].max()), int(found[:, 3].sum())
    if found[:, 2].any():
        return np.nan
    if not high:
        return 0.0
    counts, positives = (np.zeros((len(chunks), _BINS), np.int64) for _ in range(2))
    each_chunk(lambda k, at: count(errors[at], hot[at], low, high, counts[k], positives[k]))
    # Bin by bin, and in each of them chunk by chunk.
    ends = counts.T.cumsum().reshape(-1, len(chunks)).T
    offsets = np.ascontiguousarray(ends - counts)
    begins = np.append(offsets[0], ends[-1, -1])
    founds = np.append(0, positives.sum(0).cumsum())
    keys = empty_like(torch.empty(len(errors), dtype=torch.int64, device="meta")).numpy().view(np.uint64)
    each_chunk(lambda k, at: place(errors[at], hot[at], at.start, low, high, offsets[k], keys))

    def finish(begin: int, end: int, sums: NDArray[np.float64]) -> None:
        sums[0] += finish_bins(keys, begins, founds, total, low, high, begin, end, slope)

    return float(over_blocks(_BINS, 1, finish)[0])


@final
class _Extension(torch.autograd.Function):
    """Linear in the errors as long as their order stays, so its slope is all that a second derivative needs too."""

    @staticmethod
    def forward(ctx: Any, errors: Tensor, positive: Tensor) -> Tensor:
        length = errors.shape[-1]
        source = errors.detach().reshape(-1, length).contiguous().numpy()
        hot = (positive.detach() > 0).reshape(-1, length).contiguous().numpy()
        slope = np.zeros_like(source)
        value = np.empty(len(source), np.float32)
        if len(source) < _MANY and length >= 2 * _CHUNK:
            for k in range(len(source)):
                value[k] = _together(source[k], hot[k], slope[k])
        else:

            def work(begin: int, end: int, sums: NDArray[np.float64]) -> None:
                for k in range(begin, end):
                    value[k] = row_extension(source[k], hot[k], slope[k])

            over_blocks(len(source), 1, work)
        ctx.save_for_backward(torch.from_numpy(slope).view(errors.shape))
        return torch.from_numpy(value).view(errors.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0].unsqueeze(-1) * slope, None
