"""What the model finds in the tiles that may come next, and which of them it is least sure of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from nucleate.errors import InputError
from nucleate.types import Labels, Map

POOL = 32
"""Tiles among which the next one is chosen by its entropy."""

_KEPT = 64  # guesses

Order = Literal["entropy", "random"]
ORDERS: tuple[Order, ...] = ("entropy", "random")


def checked(order: str) -> Order:
    """An order by its name; raises `InputError` for any other."""
    for known in ORDERS:
        if order == known:
            return known
    raise InputError(f"--order is {order}: give {' or '.join(ORDERS)}.")


@dataclass(frozen=True, slots=True)
class Guess:
    """What the model of this `version` (how many updates it has had) finds in a tile: labels, and bits of entropy."""

    labels: Labels
    bits: Map
    version: int

    @property
    def mean(self) -> float:
        """The mean predictive entropy in bits."""
        return float(self.bits.mean())


class Guesses:
    """The guesses of the first `POOL` tiles of a shuffled order that are not taken, and of some others.

    Args:
        shuffled: the numbers of all tiles, in the order of the seed.
        order: entropy, for the tile of the highest mean entropy of the pool; random, for the first one.
        predict: the guess of a tile.
    """

    def __init__(self, shuffled: Sequence[int], order: Order, predict: Callable[[int], Guess]) -> None:
        self._shuffled, self.order, self._predict = shuffled, order, predict
        self._held: OrderedDict[int, Guess] = OrderedDict()
        self._failed: dict[int, str] = {}

    def get(self, number: int) -> Guess | None:
        return self._held.get(number)

    def make(self, number: int) -> Guess:
        """Predict a tile anew."""
        try:
            guess = self._predict(number)
        except Exception as error:
            self._failed[number] = str(error)
            raise
        self._failed.pop(number, None)
        self._held[number] = guess
        self._held.move_to_end(number)
        while len(self._held) > _KEPT:
            self._held.popitem(last=False)
        return guess

    def failed(self, number: int) -> str | None:
        """Why the model could not look at a tile."""
        return self._failed.get(number)

    def oldest(self, taken: Container[int], version: int) -> int | None:
        """The tile of the pool whose guess is missing, or the oldest; None where all are of this version."""
        versions = {number: self._version(number) for number in self._pool(taken)}
        least = min(versions, key=versions.__getitem__, default=None)
        return least if least is not None and versions[least] < version else None

    def best(self, taken: Container[int]) -> int | None:
        """The tile that comes next; None where all are taken."""
        pool = list(self._pool(taken))
        known = [number for number in pool if number in self._held]
        if self.order == "entropy" and known:
            return max(known, key=lambda number: self._held[number].mean)
        return pool[0] if pool else next((number for number in self._failed if number not in taken), None)

    def _version(self, number: int) -> int:
        guess = self._held.get(number)
        return -1 if guess is None else guess.version

    def _pool(self, taken: Container[int]) -> Iterable[int]:
        free = (number for number in self._shuffled if number not in taken and number not in self._failed)
        return islice(free, 1 if self.order == "random" else POOL)
