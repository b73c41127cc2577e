"""Which piece of work comes when, and in which threads."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch

from nucleate.io.formats.progress import Observe
from nucleate.networks.runtime import return_memory
from nucleate.parallel.deal import Queue

WORKERS = 2
"""Blocks that are in work at once: while one is with the network, the other may be read, grouped or written."""

SUBMITTED = 16
"""Pieces of work, several for each thread of the pool; after as many, freed memory is given back."""

Result = TypeVar("Result")


@contextmanager
def thread_pool(count: int, each: int) -> Iterator[Executor]:
    """So many threads, in which PyTorch uses `each`; an error, or Ctrl-C, waits only for what has begun."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(each,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


class Schedule:
    """Which tiles may be segmented when a block is done, and which blocks are needed no longer when a tile is.

    May be used from several threads at once.

    >>> schedule = Schedule({"a": [0, 1], "b": [1, 2]}, missing=[0, 1])
    >>> schedule.ready(), schedule.block_done(1), schedule.tile_done("b"), schedule.block_done(0)
    ([], ['b'], [2], ['a'])
    """

    def __init__(self, needs: Mapping[str, Sequence[int]], missing: Iterable[int]) -> None:
        self._needs = needs
        self._waiting: dict[int, list[str]] = {block: [] for block in missing}
        self._left = {tile: sum(block in self._waiting for block in blocks) for tile, blocks in needs.items()}
        for tile, blocks in needs.items():
            for block in blocks:
                if block in self._waiting:
                    self._waiting[block].append(tile)
        self._users = Counter(block for blocks in needs.values() for block in blocks)
        self._lock = threading.Lock()

    def ready(self) -> list[str]:
        """The tiles that wait for no block."""
        return [tile for tile, count in self._left.items() if not count]

    def block_done(self, block: int) -> list[str]:
        """The tiles that waited for this block alone."""
        with self._lock:
            for tile in self._waiting[block]:
                self._left[tile] -= 1
            return [tile for tile in self._waiting[block] if not self._left[tile]]

    def tile_done(self, tile: str) -> list[int]:
        """The blocks that no tile needs any more."""
        with self._lock:
            self._users.subtract(self._needs[tile])
            return [block for block in self._needs[tile] if not self._users[block]]


class ScheduleQueue(Queue):
    """The tiles and blocks of a schedule as rank 0 deals them out: ["tile", name, extent] of tiles whose blocks are
    done, before ["block", number].

    Args:
        schedule: of which tiles wait for which blocks.
        missing: the blocks to compute, in order.
        tiles: how many tiles there are.
        extent_of: gives what a tile's work is told of its blocks.
        told: hears what came of each item, before tiles that waited for it are dealt out.
        observe: is told the share that is done.
    """

    def __init__(
        self,
        schedule: Schedule,
        missing: Sequence[int],
        tiles: int,
        extent_of: Callable[[str], Any],
        told: Callable[[list[Any], Any], None],
        observe: Observe | None,
    ) -> None:
        self.schedule, self._extent_of, self._told, self._observe = schedule, extent_of, told, observe
        self._ready, self._blocks = deque(schedule.ready()), deque(missing)
        self._all = self._left = len(missing) + tiles

    def take(self) -> list[Any] | None:
        if self._ready:
            tile = self._ready.popleft()
            return ["tile", tile, self._extent_of(tile)]
        return ["block", self._blocks.popleft()] if self._blocks else None

    def done(self, item: list[Any], result: Any) -> None:
        self._told(item, result)
        if item[0] == "block":
            self._ready += self.schedule.block_done(item[1])
        self._left -= 1
        if self._observe is not None:
            self._observe(1 - self._left / self._all)

    @property
    def left(self) -> bool:
        return self._left > 0


def do_all(work: Sequence[Callable[[], None]], pool: Executor | None, observe: Observe | None) -> None:
    """Do all of it, in order, by the threads of a pool or by this one; `observe` is told the share that is done."""
    finished = as_completed(pool, work, SUBMITTED) if pool is not None else (one() for one in work)
    for done, _ in enumerate(finished, start=1):
        if done % SUBMITTED == 0:
            return_memory()
        if observe is not None:
            observe(done / len(work))


def as_completed(pool: Executor, work: Iterable[Callable[[], Result]], most: int) -> Iterator[Result]:
    """The results of all work as each is done; after an error, what has not begun is cancelled.

    At most `most` pieces are submitted at a time: what waits takes memory, and a slide has tens of thousands of blocks.
    """
    left, running = iter(work), set[Future[Result]]()
    try:
        while True:
            running.update(pool.submit(one) for one in islice(left, most - len(running)))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BaseException:
        for future in running:
            future.cancel()
        raise
