"""The images of a folder as the page draws them and as the model sees them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.data.channels import choose_channels
from nucleate.data.normalization import Statistics
from nucleate.io.cache import Cache
from nucleate.io.reader import Level, Reader, open_reader
from nucleate.types import Box, Image, Plane
from nucleate.web.annotation.learner import Input
from nucleate.web.annotation.places import Source
from nucleate.web.tiles import CACHED, TILE, Colours, ImageTiles

OPENED = 4
"""Images that stay open."""

_WHOLE = 2**25  # pixels; of a larger image the intensities are those of a level of its pyramid, where it has one


@dataclass(slots=True)
class Picture:
    """One image, opened."""

    source: Source
    reader: Reader
    tiles: ImageTiles
    takes: Input
    channel: str | None
    statistics: Statistics | None = None
    places: tuple[int, ...] = ()

    def about(self) -> dict[str, Any]:
        """What the page must know to draw it."""
        height, width = self.tiles.shape
        size = self.reader.pixel_size
        shape = {"height": height, "width": width, "tile": TILE, "depth": self.tiles.depth, "pixelSize": size}
        return {"name": self.source.name, "origin": (0, 0), "shape": (height, width), "downsample": 1, **shape}

    def crop(self, box: Box) -> Image:
        """The pixels in a box, in the channels that the model sees."""
        self._look()
        names = tuple(self.reader.channels[place] for place in self.places)
        pixels = np.ascontiguousarray(self.reader.read(box)[..., list(self.places)])
        return Image(self.source.name, pixels, names, self.reader.pixel_size, self.source.path)

    @property
    def window(self) -> tuple[float, float]:
        """The intensities of the whole image that become 0 and 1."""
        self._look()
        assert self.statistics is not None  # as it was looked at
        return self.statistics.low, self.statistics.high

    @property
    def median(self) -> float:
        """That of the whole image, where the window becomes 0..1."""
        low, high = self.window
        assert self.statistics is not None  # as it was looked at
        return (self.statistics.median - low) / (high - low) if high > low else 0.0

    def normalised(self, box: Box) -> NDArray[np.float32]:
        """A box as the model sees it (channels, height, width), by the intensities of the whole image."""
        image = self.crop(box)
        assert self.statistics is not None  # as it was cropped
        return self.statistics.normalise(image.pixels, image.channels)

    def _look(self) -> None:
        """Find out which channels the model sees, and the intensities of the image."""
        if self.statistics is not None:
            return
        takes = self.takes
        places, _ = choose_channels(self.reader, takes.names, takes.channels, self.channel)
        level = _level(self.reader.levels)
        with open_reader(self.source.path, level, plane=Plane(self.source.series)) as reader:
            seen = _Channels(reader, places)
            self.statistics, self.places = Statistics.of(seen, takes.channels, takes.normalisation), places

    def close(self) -> None:
        self.tiles.close()
        self.reader.close()


class Pictures:
    """The images of a folder, each opened when it is first asked for; the last few stay open."""

    def __init__(self, sources: list[Source], takes: Input, channel: str | None = None) -> None:
        self._sources, self._takes, self._channel = sources, takes, channel
        self._open: OrderedDict[int, Picture] = OrderedDict()
        self._cache, self._lock = Cache[Colours](CACHED), threading.Lock()
        self._users: dict[int, int] = {}

    @contextmanager
    def image(self, number: int) -> Iterator[Picture]:
        """The image of this number, open as long as the `with` block; raises `ImageError` where it cannot be opened."""
        with self._lock:
            if number not in self._open:
                self._open[number] = self._opened(number)
            self._open.move_to_end(number)
            self._users[number] = self._users.get(number, 0) + 1
            picture = self._open[number]
        try:
            yield picture
        finally:
            with self._lock:
                self._users[number] -= 1
                idle = [one for one in self._open if not self._users[one]]
                for one in idle[: max(0, len(self._open) - OPENED)]:
                    self._open.pop(one).close()

    def close(self) -> None:
        with self._lock:
            for picture in self._open.values():
                picture.close()
            self._open.clear()

    def _opened(self, number: int) -> Picture:
        source = self._sources[number]
        tiles = ImageTiles(partial(open_reader, source.path, plane=Plane(source.series)), self._cache)
        reader = open_reader(source.path, plane=Plane(source.series))
        return Picture(source, reader, tiles, self._takes, self._channel)


class _Channels(Reader):
    """Some channels of an image."""

    def __init__(self, reader: Reader, places: tuple[int, ...]) -> None:
        self._reader, self._places = reader, list(places)
        self.name, self.path, self.channels = reader.name, reader.path, tuple(reader.channels[i] for i in places)
        self.dtype, self.pixel_size, self.piece = reader.dtype, reader.pixel_size, reader.piece
        self.levels, self.level = reader.levels, reader.level

    def read(self, box: Box) -> NDArray[np.generic]:
        return self._reader.read(box)[..., self._places]


def _level(levels: tuple[Level, ...]) -> int:
    """The first level that is small enough to be read as a whole, or the smallest."""
    fits = [number for number, one in enumerate(levels) if one.shape[0] * one.shape[1] <= _WHOLE]
    return fits[0] if fits else len(levels) - 1
