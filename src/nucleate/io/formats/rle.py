"""Run-length encoded masks, as COCO has them: the pixels column by column, as how many are out, then in, then out ...

Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; the packed form is that of pycocotools' maskApi.c.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BITS, _MORE, _SIGN, _FIRST = 5, 0x20, 0x10, 48  # a character holds five bits, from "0" on


def decode(counts: str | bytes | Sequence[int], height: int, width: int) -> NDArray[np.int64]:
    """The pixels of the mask (height, width) with the runs `counts`, a list of numbers or their packed form: their
    places, counted along the rows.

    Raises:
        ValueError: runs that are negative, or do not sum to the number of pixels.

    >>> decode([1, 2, 3], 2, 3).tolist(), decode("123", 2, 3).tolist()
    ([3, 1], [3, 1])
    """
    runs = _unpack(counts) if isinstance(counts, (str, bytes)) else np.asarray(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"runs of {runs.sum()} pixels for a mask of {height} x {width}")
    lengths = runs[1::2]
    begins = (runs.cumsum() - runs)[1::2]
    down = np.repeat(begins - (lengths.cumsum() - lengths), lengths) + np.arange(lengths.sum())
    column, row = np.divmod(down, max(1, height))
    return np.asarray(row * width + column)


def encode(places: NDArray[np.int64], size: int) -> list[int]:
    """The runs of a mask of `size` pixels from the places of those inside, counted down the columns, in order.

    >>> encode(np.array([1, 2]), 6), encode(np.array([0]), 1)
    ([1, 2, 3], [0, 1])
    """
    breaks = np.flatnonzero(np.diff(places) > 1)
    begins, ends = places[np.concatenate([[0], breaks + 1])], places[np.concatenate([breaks, [-1]])] + 1
    edges = np.concatenate([[0], np.column_stack([begins, ends]).ravel(), [size]])
    runs = [int(run) for run in np.diff(edges)]
    return runs if runs[-1] else runs[:-1]


def pack(runs: Sequence[int]) -> str:
    """Runs in their packed form: from the fourth on, each is its difference to the run two before.

    >>> pack([1, 2, 3])
    '123'
    """
    characters = list[str]()
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = value & (2**_BITS - 1)
            value >>= _BITS
            more = value != -1 if bits & _SIGN else value != 0
            characters.append(chr((bits | _MORE if more else bits) + _FIRST))
    return "".join(characters)


def _unpack(packed: str | bytes) -> NDArray[np.int64]:
    data = packed.encode("ascii") if isinstance(packed, str) else packed
    runs, value, shift = list[int](), 0, 0
    for character in data:
        bits = character - _FIRST
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"the character {chr(character)!r} in packed runs")
        value |= (bits & (2**_BITS - 1)) << shift
        shift += _BITS
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        if abs(runs[-1]) >= 2**62:
            raise ValueError("a run longer than any image")
        value = shift = 0
    if shift:
        raise ValueError("packed runs that break off")
    return np.array(runs, np.int64)
