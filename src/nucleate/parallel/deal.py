"""Work dealt out to ranks as they become free.

Rank 0 holds the queue, and works itself. Only the thread that calls talks to the other ranks; those of a pool compute.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any, final

from nucleate.errors import NucleateError
from nucleate.parallel.communicator import Communicator, as_error, described

SHORTEST, LONGEST = 2e-4, 5e-3
"""Seconds between two looks for messages: short while there are some."""

Item = Any
"""A piece of work, and what comes of it: small values that JSON can hold."""


class Queue(ABC):
    """The items, in the order in which they may begin."""

    @abstractmethod
    def take(self) -> Item | None:
        """The next item; None where there is none before another one is done."""

    @abstractmethod
    def done(self, item: Item, result: Item) -> None:
        """Is told what came of an item."""

    @property
    @abstractmethod
    def left(self) -> bool:
        """Whether there are items that were not taken."""


@final
class InOrder(Queue):
    """Items that depend on nothing; `told` hears what comes of each.

    >>> queue = InOrder(["a", "b"])
    >>> queue.take(), queue.take(), queue.take(), queue.left
    ('a', 'b', None, False)
    """

    def __init__(self, items: list[Item], told: Callable[[Item, Item], None] | None = None) -> None:
        self._items, self._told = items[::-1], told

    def take(self) -> Item | None:
        return self._items.pop() if self._items else None

    def done(self, item: Item, result: Item) -> None:
        if self._told is not None:
            self._told(item, result)

    @property
    def left(self) -> bool:
        return bool(self._items)


def deal(ranks: Communicator, queue: Queue, work: Callable[[Item], Item], pool: Executor, threads: int) -> None:
    """Do all work of rank 0's queue, on every rank as it has room. Collective.

    Each rank has one item more than threads, so that none waits for the next. After an error no item begins; those
    under way are finished.

    Args:
        ranks: the processes that work.
        queue: of which that of rank 0 is asked.
        work: what is done with an item, by the threads of the pool.
        pool: this rank's threads.
        threads: how many.

    Raises:
        NucleateError: what the work of one item raised, on every rank.
        RanksLost: a rank ended; what it was given may not be done.
    """
    own = _Own(work, pool)
    try:
        error = _give(ranks, queue, own, threads + 1) if ranks.rank == 0 else _take(ranks, own, threads + 1)
    except BaseException:
        own.cancel()
        raise
    if error is not None:
        raise as_error(error)


class _Own:
    """The items that this rank's pool has."""

    def __init__(self, work: Callable[[Item], Item], pool: Executor) -> None:
        self._work, self._pool = work, pool
        self._running: dict[Future[Item], Item] = {}

    def begin(self, item: Item) -> None:
        self._running[self._pool.submit(self._work, item)] = item

    def finished(self, seconds: float) -> list[tuple[Item, Item, Any]]:
        """Item, result and error of each that is done, waiting so long for one."""
        if not self._running:
            time.sleep(seconds)
            return []
        found = []
        for future in wait(self._running, timeout=seconds, return_when=FIRST_COMPLETED).done:
            item, error = self._running.pop(future), future.exception()
            if error is not None and not isinstance(error, NucleateError):
                raise error
            found.append((item, None, described(error)) if error else (item, future.result(), None))
        return found

    def cancel(self) -> None:
        for future in self._running:
            future.cancel()


def _give(ranks: Communicator, queue: Queue, own: _Own, room: int) -> Any:
    """Rank 0: deal out, and give the first error."""
    free, out, error, pause = {0: room}, 0, None, SHORTEST
    # Until every rank was heard, so that no message of this work comes in the next.
    while (queue.left and error is None) or out or len(free) < ranks.size:
        before = out
        while error is None and max(free.values()) and (item := queue.take()) is not None:
            to = max(free, key=lambda rank: free[rank])
            free[to] -= 1
            out += 1
            if to == 0:
                own.begin(item)
            else:
                ranks.send(to, item)
        came = [(0, *one) for one in own.finished(0.0 if out > before else pause)]
        while (message := ranks.receive()) is not None:
            rank, said = message
            if rank not in free:
                free[rank] = said
            else:
                came.append((rank, *said))
        for rank, item, result, failed in came:
            free[rank] += 1
            out -= 1
            error = error or failed
            if failed is None:
                queue.done(item, result)
        pause = SHORTEST if came or out > before else min(LONGEST, 1.5 * pause)
    for rank in range(1, ranks.size):
        ranks.send(rank, {"end": error})
    return error


def _take(ranks: Communicator, own: _Own, room: int) -> Any:
    """Another rank: say how much room there is, work until the end, and give the error that there was."""
    ranks.send(0, room)
    pause = SHORTEST
    while True:
        message = ranks.receive()
        if message is not None:
            item = message[1]
            if isinstance(item, dict):
                return item["end"]
            own.begin(item)
        finished = own.finished(0.0 if message is not None else pause)
        for one in finished:
            ranks.send(0, one)
        pause = SHORTEST if message is not None or finished else min(LONGEST, 1.5 * pause)
