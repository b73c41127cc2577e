"""Images of one channel as TIFF: compressed, written piece by piece, BigTIFF where the file may pass 4 GB."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleate.io.atomic import atomic
from nucleate.io.formats.progress import Observe, observed
from nucleate.types import Box

TILE = 512
"""Pixels; the side of a tile."""

THREADS = min(4, os.cpu_count() or 1)
"""That read and compress pieces; one writes them."""

MANY = 16
"""Pieces, from which on threads are worth their start."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def write(
    path: Path,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    read: Callable[[Box], NDArray[Any]],
    *,
    tiled: bool,
    pixel_size: float | None = None,
    observe: Observe | None = None,
) -> None:
    """Write an image of this (height, width) and type, losslessly compressed, in tiles or in strips.

    `read` gives the pixels of any box, is called from several threads, and asked for no more than 512 x 512 pixels at a
    time. The pixel size in micrometres, where it is known, is in the resolution tags, in pixels a centimetre.
    """
    height, width = shape
    little = dtype.newbyteorder("<")
    piece = (TILE, TILE) if tiled else (min(height, max(1, TILE**2 // width)), width)
    boxes = [
        Box(y, x, min(piece[0], height - y), min(piece[1], width - x))
        for y in range(0, height, piece[0])
        for x in range(0, width, piece[1])
    ]

    def encoded(box: Box) -> bytes:
        pixels = read(box).astype(little)
        if tiled:  # a tile at the right or lower border is filled up with zeros
            pixels = np.pad(pixels, ((0, TILE - box.height), (0, TILE - box.width)))
        return bytes(imagecodecs.deflate_encode(pixels.tobytes(), level=6, raw=False))

    with atomic(path) as file, tifffile.TiffWriter(file, byteorder="<", bigtiff=is_big(shape, little)) as tiff:
        tiff.write(
            observed(in_order(encoded, boxes, THREADS if len(boxes) >= MANY else 1), len(boxes), observe),
            shape=shape,
            dtype=little,
            tile=piece if tiled else None,
            rowsperstrip=None if tiled else piece[0],
            compression="zlib",
            photometric="minisblack",
            resolution=None if pixel_size is None else (1e4 / pixel_size, 1e4 / pixel_size),
            resolutionunit=None if pixel_size is None else "centimeter",
            metadata={"axes": "YX"},
        )


def is_big(shape: tuple[int, int], dtype: np.dtype[Any]) -> bool:
    """Whether the file could pass 4 GB, the end of a plain TIFF: what will not compress takes no less."""
    tiles = -(-shape[0] // TILE) * -(-shape[1] // TILE)
    return tiles * TILE**2 * dtype.itemsize > 2**32 - 2**25


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """What a function makes of each item, in their order, computed by so many threads no more than two each ahead; by
    the calling one where it is to be one.

    >>> list(in_order(str.upper, "abcde", 2))
    ['A', 'B', 'C', 'D', 'E']
    """
    if threads == 1:
        yield from map(function, items)
        return
    left = iter(items)
    pool = ThreadPoolExecutor(threads, "nucleate-encoder")
    try:
        running = deque[Future[Result]](pool.submit(function, item) for item in islice(left, 2 * threads))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(function, item) for item in islice(left, 1))
    finally:
        pool.shutdown(cancel_futures=True)
