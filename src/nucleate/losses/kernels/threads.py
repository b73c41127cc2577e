"""Blocks of work on as many threads as torch uses: the kernels run without the interpreter's lock."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

_PIECES = 64
_PROCESS = os.getpid()
_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_local = threading.Lock()
_pool: tuple[int, int, ThreadPoolExecutor] | None = None


def _executor(workers: int) -> ThreadPoolExecutor:
    """A pool of this process: one made before a fork has no threads in the child."""
    global _pool
    with _local:
        if _pool is None or _pool[:2] != (os.getpid(), workers):
            _pool = (os.getpid(), workers, ThreadPoolExecutor(workers, "nucleate-losses"))
        return _pool[2]


@cache
def _openmp() -> Callable[..., None] | None:
    """The entry to the OpenMP threads that torch itself computes with, where it has such."""
    try:
        found = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    found.argtypes, found.restype = (_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    entry: Callable[..., None] = found
    return entry


def _together(run: Callable[[], None], threads: int) -> None:
    """Call `run` on each of `threads` threads and wait; one of them is this one.

    The threads of torch's OpenMP spin for milliseconds after each operation: others would have to share the cores with
    them. A thread beside the main one has OpenMP threads of its own, which would only come on top, and a fork has none.
    """
    openmp = _openmp() if threading.current_thread() is threading.main_thread() else None
    if openmp is None or os.getpid() != _PROCESS:
        others = [_executor(threads - 1).submit(run) for _ in range(1, threads)]
        run()
        for future in others:
            future.result()
        return
    errors: list[BaseException] = []

    def body(_: object) -> None:
        try:
            run()
        except BaseException as error:  # it cannot pass through a frame of C; raised again below
            errors.append(error)

    openmp(_BODY(body), None, threads, 0)
    if errors:
        raise errors[0]


def over_blocks(
    blocks: int, columns: int, work: Callable[[int, int, NDArray[np.float64]], None], least: int = 1
) -> NDArray[np.float64]:
    """Call work(begin, end, sums) over pieces of range(blocks) and return the sums of all pieces.

    The pieces do not depend on the number of threads, so neither does the result. A piece has `least` blocks or more:
    each call costs microseconds.
    """
    count = max(1, min(blocks // least, _PIECES))
    sums = np.zeros((count, columns))
    if count == 1:
        work(0, blocks, sums[0])
        first: NDArray[np.float64] = sums[0]
        return first
    edges = [blocks * k // count for k in range(count + 1)]
    threads = max(1, min(torch.get_num_threads(), count))
    pieces = iter(range(count))  # each thread takes the next one when it is free

    def run() -> None:
        for piece in pieces:
            work(edges[piece], edges[piece + 1], sums[piece])

    if threads == 1:
        run()
    else:
        _together(run, threads)
    total: NDArray[np.float64] = sums.sum(0)
    return total
