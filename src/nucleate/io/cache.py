"""Decoded tiles, strips and chunks, of which neighbouring boxes share many."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

Piece = NDArray[np.generic]

LARGEST_PIECE = 2**28
"""Bytes; a single tile, strip or chunk that is larger, packed or decoded, is refused before memory is taken."""


class Cache:
    """The pieces that were used last, up to `limit` bytes of them; the very last one is kept whatever its size.

    A piece that several threads ask for at once is decoded once. Pieces larger than the limit are decoded one after
    the other, with nothing else kept meanwhile, so that threads do not multiply the memory that they take.

    >>> cache = Cache(limit=100)
    >>> [int(cache.get("a", 3, lambda: np.full(3, value))[0]) for value in (1, 2)]
    [1, 1]
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._kept: OrderedDict[Hashable, Piece] = OrderedDict()
        self._coming: dict[Hashable, Future[Piece]] = {}
        self._lock, self._one = threading.Lock(), threading.Lock()

    def get(self, key: Hashable, size: int, decode: Callable[[], Piece]) -> Piece:
        """The piece of this key, from `decode`, of which it is known that it gives about `size` bytes."""
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
            with self._one if size > self._limit else nullcontext():
                if size > self._limit:
                    self._drop_to(0)
                piece = decode()
        except BaseException as error:
            with self._lock:
                del self._coming[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._coming[key]
            self._kept[key] = piece
            self._held += piece.nbytes
        mine.set_result(piece)
        self._drop_to(self._limit)
        return piece

    def _drop_to(self, limit: int) -> None:
        with self._lock:
            while self._held > limit and len(self._kept) > (limit > 0):
                self._held -= self._kept.popitem(last=False)[1].nbytes
