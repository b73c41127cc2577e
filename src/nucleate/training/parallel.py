"""Work side by side, behind one face: in turn, or on all cores with one core each.

Most operations of a small network are too short to be worth sharing out: two threads inside each of them made a step
1.1 times as fast on two cores, two halves of the batch on one core each 1.9 times.
"""

from __future__ import annotations

import operator
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from types import TracebackType
from typing import Self, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Made = TypeVar("Made")
Summand = TypeVar("Summand", float, Tensor)


class Parallel(ABC):
    """`count` workers. What they make depends on their number, and never on the order in which they end."""

    count: int = 1

    @abstractmethod
    def map(self, work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        """work(item) of each item, in their order."""

    def sum(self, parts: Iterable[Summand]) -> Summand:
        """The sum of one part or more, added in their order: floating-point sums depend on it."""
        return reduce(operator.add, parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - not abstract: in turn there is nothing to end
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """End the workers."""


class Serial(Parallel):
    """One item after the other, on the calling thread.

    >>> Serial().map(abs, [-1, -2, 3]), Serial().sum([0.5, 0.25])
    ([1, 2, 3], 0.75)
    """

    def map(self, work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        return [work(item) for item in items]


class Threads(Parallel):
    """As many threads as torch uses, inside each of which torch computes on a single one.

    >>> with Threads() as threads:
    ...     threads.map(abs, [-1, -2, 3])
    [1, 2, 3]
    """

    def __init__(self) -> None:
        self.count = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self.count, "nucleate-core")
        # The number of threads belongs to the thread that sets it, but a thread's first parallel operation takes the
        # last number set by anybody: so each sets it, computes something, and then the number is set back.
        meet = threading.Barrier(self.count)
        list(self._pool.map(lambda _: self._begin(meet), range(self.count)))
        torch.set_num_threads(self.count)

    @staticmethod
    def _begin(meet: threading.Barrier) -> None:
        torch.set_num_threads(1)
        torch.ones(1 << 17).exp_()
        meet.wait()  # so that every thread of the pool comes here once

    def map(self, work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        return list(self._pool.map(work, items))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
