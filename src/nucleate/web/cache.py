"""Arrays that were made and may be wanted again, as many as fit into so many bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from numpy.typing import NDArray


class Cache:
    """Keeps the arrays that were asked for last; may be used from several threads at once.

    >>> import numpy as np
    >>> cache = Cache(limit=2)
    >>> [int(cache.get(key, lambda: np.full(1, key, np.uint8))[0]) for key in (1, 2, 1, 3)]
    [1, 2, 1, 3]
    >>> sorted(cache.keys())
    [1, 3]
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._arrays: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def keys(self) -> list[Hashable]:
        with self._lock:
            return list(self._arrays)

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array under this key, made where it is not there. Two threads may both make it; one is kept."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        made = make()
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = made
                self._held += made.nbytes
            while self._held > self._limit:
                self._held -= self._arrays.popitem(last=False)[1].nbytes
        return made
