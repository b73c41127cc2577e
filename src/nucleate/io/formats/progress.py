"""How far a writer is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Observe = Callable[[float], None]
"""Is told the share that is done, rising to 1."""

Item = TypeVar("Item")


def observed(items: Iterable[Item], total: int, observe: Observe | None) -> Iterator[Item]:
    """The items; with every thousandth part of `total`, `observe` is told the share that is done once this one is.

    >>> shares = []
    >>> list(observed("ab", 2, shares.append)), shares
    (['a', 'b'], [0.5, 1.0])
    """
    step = max(1, total // 1000)
    for number, item in enumerate(items, start=1):
        if observe is not None and (number % step == 0 or number == total):
            observe(number / total)
        yield item
