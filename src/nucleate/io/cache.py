"""What was read or made and may be wanted again: decoded tiles, strips and chunks, tiles for the screen."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Generic, Protocol, TypeVar

LARGEST_PIECE = 2**28
"""Bytes; a single tile, strip or chunk that is larger, packed or decoded, is refused before memory is taken."""


class Sized(Protocol):
    """Anything that knows its size, such as an array."""

    @property
    def nbytes(self) -> int: ...


Value = TypeVar("Value", bound=Sized)


class Cache(Generic[Value]):
    """The values that were used last (LRU), up to `limit_bytes` of them; may be used from several threads at once.

    A value that several threads ask for at once is made once. Values larger than the limit are made one after the
    other, with nothing else kept meanwhile, so that threads do not multiply the memory that they take.

    Args:
        limit_bytes: how much is kept.
        at_least: so many values are kept whatever their size; 0 where even the last may be too much.

    >>> import numpy as np
    >>> cache = Cache[np.ndarray](limit_bytes=100)
    >>> [int(cache.get("a", 24, lambda: np.full(3, value))[0]) for value in (1, 2)]
    [1, 1]
    """

    def __init__(self, limit_bytes: int, at_least: int = 1) -> None:
        self._limit, self._at_least, self._held = limit_bytes, at_least, 0
        self._kept: OrderedDict[Hashable, Value] = OrderedDict()
        self._coming: dict[Hashable, Future[Value]] = {}
        self._lock, self._large = threading.Lock(), threading.RLock()

    def get(self, key: Hashable, size: int, make: Callable[[], Value]) -> Value:
        """The value of this key, from `make` where it is not kept.

        Args:
            key: what it is kept under.
            size: about how many bytes `make` gives.
            make: may ask the cache for other keys, but not for one that waits for this one.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            coming = self._coming.get(key)
            if coming is None:
                mine = self._coming[key] = Future()
        if coming is not None:
            return coming.result()
        try:
            with self._large if size > self._limit else nullcontext():
                if size > self._limit:
                    self._drop(0, 0)
                value = make()
        except BaseException as error:
            with self._lock:
                del self._coming[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._coming[key]
            self._kept[key] = value
            self._held += value.nbytes
        mine.set_result(value)
        self._drop(self._limit, self._at_least)
        return value

    def _drop(self, limit: int, at_least: int) -> None:
        """Forget the values that were not used for longest."""
        with self._lock:
            while self._held > limit and len(self._kept) > at_least:
                self._held -= self._kept.popitem(last=False)[1].nbytes
