"""The reader of files that another library decodes: any box of any plane, one frame or tile in memory at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.axes import as_pixels, layout, name_of, names_of
from nucleate.io.base import Level, chosen_image
from nucleate.io.cache import Cache
from nucleate.io.files import reading, refuse_irregular
from nucleate.io.stack import Scene, StackReader
from nucleate.types import Box, Pixels

SUFFIXES = frozenset({".nd2", ".lif", ".czi"})
"""The endings of these files, in lower case."""

KEPT = 2**28
"""Bytes of decoded frames that are kept."""

Frame = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class MicroscopeImage:
    """One scene as its library tells it: the `lengths` of its axes by their letters, those of Y and X last but for
    samples (S); names of `channels`, empty where there are none; `pixel_size` in micrometres, None where it is not
    known."""

    name: str
    lengths: Mapping[str, int]
    channels: tuple[str, ...]
    pixel_size: float | None


class MicroscopeFile(Protocol):
    """An open file. `images` are its scenes, once it was asked to `describe` them; `by_boxes` says whether parts of a
    frame can be read alone."""

    images: tuple[MicroscopeImage, ...]
    by_boxes: bool

    def describe(self) -> None: ...

    def read(self, image: int, place: Mapping[str, int], box: Box) -> Frame:
        """The pixels (height, width) or (height, width, samples) of a box of the frame at a place of the axes T, Z and
        C, or, where one frame holds all channels, (height, width, channels) of them all; `box` is the whole frame where
        the file is not read `by_boxes`."""

    def close(self) -> None: ...


_FORMATS = (
    (b"\xda\xce\xbe\n", "nd2", "nd2", "Nd2File"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "nd2", "nd2", "Nd2File"),  # of before 2011, in JPEG 2000
    (b"\x70\x00\x00\x00", "lif", "liffile", "LifFile"),
    (b"ZISRAWFILE", "czi", "pylibCZIrw", "CziFile"),
)
"""How a file begins, our module for it, the library, and the class."""


def kind(start: bytes) -> str | None:
    """Which of these formats a file has, by how it begins.

    >>> kind(b"ZISRAWFILE"), kind(b"II*")
    ('czi', None)
    """
    return next((module for signature, module, _, _ in _FORMATS if start.startswith(signature)), None)


def open_file(path: Path) -> MicroscopeFile:
    """The file, open.

    Raises:
        ImageError: the library for it is not installed, or cannot read it.
    """
    refuse_irregular(path)
    with reading(path), path.open("rb") as file:
        start = file.read(16)
    _, module, library, name = next(one for one in _FORMATS if start.startswith(one[0]))
    try:
        import_module(library)
    except ImportError as error:
        raise ImageError(
            f"{path} is read by the package {library}, which is not there: pip install 'nucleate[microscopes]', or"
            " save it as OME-TIFF."
        ) from error
    with decoding(path):
        opened: MicroscopeFile = getattr(import_module(f"nucleate.io.microscopes.{module}"), name)(path)
        try:
            opened.describe()
        except BaseException:
            opened.close()
            raise
    return opened


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Whatever a library raises as an `ImageError`."""
    try:
        with reading(path):
            yield
    except ImageError:
        raise
    except Exception as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ImageError(f"{path} cannot be decoded ({reason:.200}): copy or export it again.") from error


def scenes(path: Path) -> tuple[Scene, ...]:
    """The images in a file; raises `ImageError` as `open_microscope` does."""
    with closing(open_file(path)) as file:
        return tuple(Scene(one.name, tuple(_stack(one, path).items())) for one in file.images)


def open_microscope(path: Path, level: int = 0, *, series: int | None = None) -> StackReader:
    """The reader of one image of a file.

    Raises:
        ImageError: the library for it is not installed or cannot read it; or the file holds several images of which
            none is chosen, has no such image or level, or axes that are not read.
    """
    file = open_file(path)
    try:
        return MicroscopeReader(path, file, level, series)
    except BaseException:
        file.close()
        raise


class MicroscopeReader(StackReader):
    """One image of an open file, which is closed with it. The library is asked by one thread at a time."""

    def __init__(self, path: Path, file: MicroscopeFile, level: int = 0, series: int | None = None) -> None:
        self._file, self._lock, self._cache = file, threading.Lock(), Cache[Frame](KEPT)
        self._number = chosen_image(series, [image.name for image in file.images], path)
        image = file.images[self._number]
        self.path, self.name, self.level = path, name_of(path), level
        found = layout("".join(image.lengths), tuple(image.lengths.values()), path)
        self.stack, self._channels = found.stack, image.lengths.get("C", 1)
        self.levels, self.pixel_size = (Level(found.shape, 1.0),), image.pixel_size
        self.check_level()
        self.piece = (min(_SIDE, found.shape[0]), min(_SIDE, found.shape[1])) if file.by_boxes else found.shape
        known = image.channels if len(image.channels) == found.channels == len(set(image.channels)) else ()
        self.channels = known if all(known) and known else names_of(found.channels)
        self.dtype = self._channel(tuple(0 for _ in self.stack), 0, Box(0, 0, 1, 1)).dtype

    def read_plane(self, place: tuple[int, ...], box: Box) -> Pixels:
        self.check_inside(box)
        first = self._channel(place, 0, box)
        if first.shape[2] == len(self.channels):  # colours, or a frame with all channels
            return first
        return np.concatenate([first, *(self._channel(place, one, box) for one in range(1, self._channels))], axis=2)

    def _channel(self, place: tuple[int, ...], channel: int, box: Box) -> Pixels:
        at = {**dict(zip(self.stack, place, strict=True)), "C": channel}
        if self._file.by_boxes:
            frame = self._read(at, box)
        else:
            size = self.box.height * self.box.width * 8
            make: Callable[[], Frame] = partial(self._read, at, self.box)
            frame = self._cache.get(tuple(sorted(at.items())), size, make)
            frame = frame[box.y : box.bottom, box.x : box.right]
        return np.ascontiguousarray(as_pixels(frame if frame.ndim == 3 else frame[..., None], self.path))

    def _read(self, at: Mapping[str, int], box: Box) -> Frame:
        assert self.path is not None
        with self._lock, decoding(self.path):
            frame = self._file.read(self._number, at, box)
            if frame.shape[:2] != box.shape:
                raise ValueError(f"a frame has {frame.shape[1]} x {frame.shape[0]} pixels")
            return frame

    def close(self) -> None:
        self._file.close()


_SIDE = 1024  # pixels that are read at once of a file that is read by boxes


def _stack(image: MicroscopeImage, path: Path) -> dict[str, int]:
    return layout("".join(image.lengths), tuple(image.lengths.values()), path).stack


def only(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of these names.

    >>> only({"T": 1, "Z": 2}, "Z", "C")
    {'Z': 2}
    """
    return {name: values[name] for name in names if name in values}
