"""TIFF files of any size, read by the tiles or strips that a box touches: TIFF, BigTIFF, OME-TIFF, SVS, NDPI."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io import tiff
from nucleate.io.axes import Layout, as_pixels, micrometres, name_of, names_of
from nucleate.io.base import MOST_LEVELS, Level, chosen_image, downsample
from nucleate.io.files import open_regular, reading
from nucleate.io.stack import Scene, StackReader
from nucleate.io.tiff_guard import BoundedFile, check_ome, check_pages
from nucleate.io.tiff_page import PieceCache, SharedFile, TiffPage
from nucleate.types import Box, Pixels

KEPT, KEPT_STRIPS = 2**26, 2**28
"""Bytes of decoded tiles that are kept, and of strips, of which a row of boxes shares many."""

_LONGEST = 2**22  # pixels; twenty times the longest side of a slide
_MOST_TOGETHER = 2**30  # bytes of a tile or strip, in all channels

_FOREIGN = {"is_mmstack": False, "is_ndtiff": False, "is_scanimage": False}
"""Dialects that look for planes in other files, or take them for granted by their number; read as plain TIFF."""

_APERIO_SIZE = re.compile(r"\bMPP\s*=\s*([0-9.eE+-]+)")


class TiffReader(StackReader):
    """A TIFF file, open; `level` chooses one level of its pyramid.

    Of a file that holds several images (`tiff.images_of`), `series` chooses one, from 1. Channels may be samples of a
    pixel, planes of a page, or pages of their own. Every tile that the file names must lie inside it, so that a file
    that is cut off is refused when it is opened.

    Axes of length 1 are dropped, and so is transparency. Of a stack only the pages of the planes that are read are
    looked at. A palette becomes its colours, except in an ImageJ file, where the indices are what was measured. With
    `labels`, values stay as they are stored, a palette's indices included, as programs colour a label image for
    display.

    Raises:
        ImageError: the file is missing, cut off, broken, of another kind, without the level, holds several images of
            which none is chosen, has axes that are not read, colours for printing, or planes in other files.
    """

    def __init__(self, path: Path, level: int = 0, *, labels: bool = False, series: int | None = None) -> None:
        self.path, self.level, self.name, self._labels = path, level, name_of(path), labels
        self._file = _OpenTiff(path)
        self._tiff = self._file.tiff
        with _decoding(path, self._file):
            self._open(path, self._file.images[chosen_image(series, self._file.names, path)])

    def _open(self, path: Path, series: Any) -> None:
        self.levels = _levels(series, path)
        self.check_level()
        chosen = series.levels[self.level]
        layout = tiff.series_layout(chosen, path)
        self.stack, self._page, self.samples = layout.stack, chosen.keyframe, "S" in layout.axes
        tiff.refuse_printing(self._page, path)
        cache = PieceCache(KEPT if self._page.is_tiled else KEPT_STRIPS)
        self._pages = _Pages(chosen, layout, SharedFile(path, self._tiff.filehandle), cache)
        first_planes = self._pages.at(tuple(0 for _ in self.stack))
        if sum(plane.samples for plane in first_planes) != layout.channels:
            raise ImageError(
                f"{path} has axes {layout.axes} of shape {layout.lengths} stored in another shape: export it again."
            )
        self.piece = first_planes[0].piece
        together = math.prod(self.piece) * layout.channels * self._page.dtype.itemsize
        if together > _MOST_TOGETHER:
            raise ImageError(f"{path} takes {together} bytes to read one tile of all its channels: save smaller tiles.")
        first = self._values(tuple(0 for _ in self.stack), Box(0, 0, 1, 1))
        self.dtype = first.dtype if self._labels else as_pixels(first[:0], path).dtype
        count = first.shape[2]
        self.channels = (() if self.samples else tiff.channel_names(self._tiff, count, series)) or names_of(count)
        size = self._whole_size(series)
        self.pixel_size = None if size is None else size * self.levels[self.level].downsample

    def _whole_size(self, series: Any) -> float | None:
        """Micrometres a pixel of the first level."""
        page = series.levels[0].keyframe
        if not self._tiff.is_svs:
            return tiff.pixel_size(self._tiff, page, series)
        found = _APERIO_SIZE.search(page.description)
        return micrometres(found.group(1), "um") if found else None

    def read_plane(self, place: tuple[int, ...], box: Box) -> Pixels:
        self.check_inside(box)
        values = self._values(place, box)
        return values if self._labels else as_pixels(values, self.path)

    def _values(self, place: tuple[int, ...], box: Box) -> NDArray[np.generic]:
        """The pixels of a box of a plane in the file's own type."""
        parts = [plane.read(box) for plane in self._pages.at(place)]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        values = tiff.displayed(
            values, self._page, as_indices=self._labels or self._tiff.is_imagej, as_stored=self._labels
        )
        colours = tiff.colours(self._page, values.shape[2]) if self.samples else values.shape[2]
        return np.ascontiguousarray(values[..., :colours])

    def close(self) -> None:
        self._file.close()


def scenes(path: Path) -> tuple[Scene, ...]:
    """The images in a TIFF file; raises `ImageError` as `TiffReader` does."""
    with closing(_OpenTiff(path)) as file, _decoding(path, file):
        layouts = [tiff.series_layout(image, path) for image in file.images]
        return tuple(Scene(name, tuple(one.stack.items())) for name, one in zip(file.names, layouts, strict=True))


class _OpenTiff:
    """A TIFF file, open, and the images in it; its header was weighed before it was believed."""

    def __init__(self, path: Path) -> None:
        self._file = open_regular(path)
        with _decoding(path, self._file):
            pages = check_pages(self._file, path)
            bounded = BoundedFile(self._file, path)
            # Planes in other files, whose names might lead anywhere, are not looked for.
            self.tiff = tifffile.TiffFile(cast(Any, bounded), name=path.name, _multifile=False, **_FOREIGN)
            if self.tiff.is_ome:
                check_ome(self.tiff.ome_metadata or "", path, pages)
            self.images = tiff.images_of(self.tiff, path)
            bounded.opened()

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the images, empty where they have none."""
        return tuple(image.name for image in self.images)

    def close(self) -> None:
        self.tiff.close()
        self._file.close()


@contextmanager
def _decoding(path: Path, held: BinaryIO | _OpenTiff) -> Iterator[None]:
    """What a broken file raises as an `ImageError`; what is held open is closed then."""
    try:
        with reading(path):
            yield
    except BaseException as error:
        held.close()
        if isinstance(error, ImageError) or not isinstance(error, Exception):
            raise
        raise ImageError(f"{path} cannot be decoded ({error}): export or copy it again.") from error


def _levels(series: Any, path: Path) -> tuple[Level, ...]:
    layouts = [tiff.series_layout(level, path) for level in series.levels]
    shapes = [one.shape for one in layouts]
    if len(shapes) > MOST_LEVELS or any(
        a < b for one, next in pairwise(shapes) for a, b in zip(one, next, strict=True)
    ):
        raise ImageError(f"{path} has a pyramid of {len(shapes)} levels that do not get smaller: export it again.")
    if any(one.stack != layouts[0].stack for one in layouts):
        raise ImageError(f"{path} has a pyramid whose levels hold different numbers of planes: export it again.")
    if max(shapes[0]) > _LONGEST:
        raise ImageError(
            f"{path} promises {shapes[0][1]} x {shapes[0][0]} pixels, above the limit of {_LONGEST} a side."
        )
    return tuple(Level(shape, downsample(shapes[0], shape)) for shape in shapes)


class _Pages:
    """The pages of one level, by the planes of a stack that they belong to."""

    def __init__(self, series: Any, layout: Layout, file: SharedFile, cache: PieceCache) -> None:
        self._file, self._cache, self._first = file, cache, series.keyframe
        self._made: dict[int, TiffPage] = {}
        pages = list(series)
        if any(page is None for page in pages):
            raise ImageError(f"{file.path} names planes that lie in other files: save it as one file.")
        if series.is_truncated:  # one page stands for all, which lie behind it (ImageJ, above 4 GiB)
            strides = range(0, series.nbytes, self._first.nbytes)
            moved = [[offset + stride for offset in self._first.dataoffsets] for stride in strides]
            self._places = [(offsets, self._first.databytecounts, None) for offsets in moved]
        else:
            self._places = [(page.dataoffsets, page.databytecounts, page.jpegtables) for page in pages]
        # Samples lie within a page; a file may call them channels.
        inner = ("S" if "S" in layout.axes else "C") if self._first.samplesperpixel > 1 else ""
        within = "YX" + inner
        ahead = [(axis, n) for axis, n in zip(layout.axes, layout.lengths, strict=True) if axis not in within]
        lengths = [n for _, n in ahead]
        if self._first.imagedepth > 1:
            raise ImageError(f"{file.path} stores its planes in blocks of three dimensions: save each plane as a page.")
        if math.prod(lengths) != len(self._places):
            raise ImageError(
                f"{file.path} has axes {layout.axes} of shape {layout.lengths} and {len(self._places)} pages: export it"
                " again."
            )
        numbers = np.arange(len(self._places)).reshape(lengths)
        colours = [place for place, (axis, _) in enumerate(ahead) if axis in "CS"]
        self._numbers = np.moveaxis(numbers, colours, range(-len(colours), 0)) if colours else numbers

    def at(self, place: tuple[int, ...]) -> list[TiffPage]:
        """The pages of one plane, each of which holds some of its channels."""
        return [self._page(int(number)) for number in np.ravel(self._numbers[place])]

    def _page(self, number: int) -> TiffPage:
        if number not in self._made:
            self._made[number] = TiffPage(self._first, *self._places[number], self._file, self._cache)
        return self._made[number]


def planes(path: Path, most: int = 2**30) -> list[NDArray[np.generic]] | None:
    """The planes (height, width) of a TIFF file that holds one stack of them, as they are stored.

    None for a file of one plane, of several images, of more than one axis besides height and width, of several samples
    a pixel, and of more than `most` bytes. Raises `ImageError` for a file that is broken.
    """
    if len(scenes(path)) != 1:
        return None
    with closing(TiffReader(path, labels=True)) as reader:
        count = math.prod(reader.stack.values()) * len(reader.channels)
        box = Box(0, 0, *reader.shape)
        if reader.samples or count < 2 or count * box.height * box.width * reader.dtype.itemsize > most:
            return None
        if len(reader.stack) > 1 or (reader.stack and len(reader.channels) > 1):
            return None
        places = [(number,) for number in range(count)] if reader.stack else [()]
        values = np.concatenate([reader.read_plane(place, box) for place in places], axis=2)
        return list(np.moveaxis(values, 2, 0))
