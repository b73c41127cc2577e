"""Blocks of work on as many threads as torch uses, in plain threads: the kernels run without the interpreter's lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

_PIECES = 64
_local = threading.Lock()
_pool: tuple[int, int, ThreadPoolExecutor] | None = None


def _executor(workers: int) -> ThreadPoolExecutor:
    """A pool of this process: one made before a fork has no threads in the child."""
    global _pool
    with _local:
        if _pool is None or _pool[:2] != (os.getpid(), workers):
            _pool = (os.getpid(), workers, ThreadPoolExecutor(workers, "nucleate-losses"))
        return _pool[2]


def over_blocks(
    blocks: int, columns: int, work: Callable[[int, int, NDArray[np.float64]], None]
) -> NDArray[np.float64]:
    """Call work(begin, end, sums) over pieces of range(blocks) and return the sums of all pieces.

    The pieces do not depend on the number of threads, so neither does the result.
    """
    edges = np.linspace(0, blocks, min(blocks, _PIECES) + 1).astype(int).tolist()
    sums = np.zeros((len(edges) - 1, columns))

    threads = max(1, min(torch.get_num_threads(), len(sums)))
    pieces = iter(range(len(sums)))  # each thread takes the next one when it is free

    def run() -> None:
        for piece in pieces:
            work(edges[piece], edges[piece + 1], sums[piece])

    others = [_executor(threads - 1).submit(run) for _ in range(1, threads)]
    run()
    for future in others:
        future.result()
    total: NDArray[np.float64] = sums.sum(0)
    return total
