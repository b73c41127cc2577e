"""Blocks of pixels against plain indexing, and streaming stores wherever they begin."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from nucleate.losses.kernels.intrinsics import fence
from nucleate.losses.kernels.tiles import load as load_step
from nucleate.losses.kernels.tiles import store as store_step
from nucleate.losses.kernels.tiles import stream as stream_step


@njit
def load(words, bfloat16, rows, first, plane, tile, spare, n):
    load_step(words, bfloat16, rows, first, plane, tile, spare, n)


@njit
def store(words, bfloat16, rows, first, plane, tile, spare, n):
    store_step(words, bfloat16, rows, first, plane, tile, spare, n)


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6, 7, 12, 18, 32, 35])
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("n", [1, 6, 24, 29])
def test_a_tile_comes_out_class_by_class_and_goes_back(classes: int, bfloat16: bool, rows: bool, n: int) -> None:
    pixels, first = 40, 8
    rng = np.random.default_rng(classes)
    values = rng.integers(-99, 99, (pixels, classes)).astype(np.float32)  # exact in bfloat16 too
    memory = values if rows else np.ascontiguousarray(values.T)
    bits = memory.view(np.uint32)
    words = (bits >> 16).astype(np.uint16).view(np.int16) if bfloat16 else memory.reshape(-1).view(np.int16)
    words = np.ascontiguousarray(words).reshape(-1)
    tile, spare = np.empty(classes * n, np.float32), np.empty(classes * n, np.float32)
    at = first * classes if rows else first
    load(words, bfloat16, rows, at, pixels, tile, spare, n)
    for c in range(classes):
        np.testing.assert_array_equal(tile[c * n : (c + 1) * n], values[first : first + n, c])
    back = np.zeros_like(words)
    store(back, bfloat16, rows, at, pixels, tile, spare, n)
    shape = (pixels, -1) if rows else (classes, pixels, 1 if bfloat16 else 2)
    part = np.s_[first : first + n] if rows else np.s_[:, first : first + n]
    kept, found = words.reshape(shape), back.reshape(shape)
    np.testing.assert_array_equal(found[part], kept[part])
    assert np.count_nonzero(back) == np.count_nonzero(kept[part])


@njit
def stream(source, out):
    stream_step(source, out)
    fence()


@pytest.mark.parametrize("first", range(18))
def test_a_stream_fills_what_it_is_given_wherever_it_begins(first: int) -> None:
    for n in (0, 1, 15, 16, 17, 40, 100):
        memory, source = np.zeros(128, np.float32), np.arange(1, n + 1, dtype=np.float32)
        stream(source, memory[first : first + n])
        np.testing.assert_array_equal(memory[first : first + n], source)
        assert np.count_nonzero(memory) == n
