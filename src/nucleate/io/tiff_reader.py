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
from nucleate.io.axes import as_pixels, micrometres, name_of, names_of
from nucleate.io.base import MOST_LEVELS, Level, Reader, chosen_image, downsample
from nucleate.io.files import open_regular, reading
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


class TiffReader(Reader):
    """A TIFF file, open; `level` chooses one level of its pyramid.

    Of a file that holds several images (`tiff.images_of`), `series` chooses one, from 1. Channels may be samples of a
    pixel, planes of a page, or pages of their own. Every tile that the file names must lie inside it, so that a file
    that is cut off is refused when it is opened.

    Axes of length 1 are dropped, and so is transparency. A palette becomes its colours, except in an ImageJ file, where
    the indices are what was measured. With `labels`, values stay as they are stored, a palette's indices included, as
    programs colour a label image for display.

    Raises:
        ImageError: the file is missing, cut off, broken, of another kind, a stack, without the level, holds several
            images of which none is chosen, or has planes in other files.
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
        axes, shape = tiff.plane_axes(chosen, path)
        self._page, self._samples = chosen.keyframe, "S" in axes
        cache = PieceCache(KEPT if self._page.is_tiled else KEPT_STRIPS)
        self._planes = _planes(chosen, SharedFile(path, self._tiff.filehandle), cache)
        if sum(plane.samples for plane in self._planes) != math.prod(shape) // math.prod(self.shape):
            raise ImageError(f"{path} has axes {axes} of shape {shape} stored in another shape: export it again.")
        self.piece = self._planes[0].piece
        together = math.prod(self.piece) * sum(plane.samples for plane in self._planes) * self._page.dtype.itemsize
        if together > _MOST_TOGETHER:
            raise ImageError(f"{path} takes {together} bytes to read one tile of all its channels: save smaller tiles.")
        first = self._values(Box(0, 0, 1, 1))
        self.dtype = first.dtype if self._labels else as_pixels(first[:0], path).dtype
        count = first.shape[2]
        self.channels = (() if self._samples else tiff.channel_names(self._tiff, count, series)) or names_of(count)
        size = self._whole_size(series)
        self.pixel_size = None if size is None else size * self.levels[self.level].downsample

    def _whole_size(self, series: Any) -> float | None:
        """Micrometres a pixel of the first level."""
        page = series.levels[0].keyframe
        if not self._tiff.is_svs:
            return tiff.pixel_size(self._tiff, page, series)
        found = _APERIO_SIZE.search(page.description)
        return micrometres(found.group(1), "um") if found else None

    def read(self, box: Box) -> Pixels:
        self.check_inside(box)
        values = self._values(box)
        return values if self._labels else as_pixels(values, self.path)

    def _values(self, box: Box) -> NDArray[np.generic]:
        """The pixels of a box in the file's own type."""
        parts = [plane.read(box) for plane in self._planes]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        values = tiff.displayed(
            values, self._page, as_indices=self._labels or self._tiff.is_imagej, as_stored=self._labels
        )
        colours = tiff.colours(self._page, values.shape[2]) if self._samples else values.shape[2]
        return np.ascontiguousarray(values[..., :colours])

    def close(self) -> None:
        self._file.close()


def image_names(path: Path) -> tuple[str, ...]:
    """The names of the images in a TIFF file, empty where they have none; raises `ImageError` as `TiffReader` does."""
    with closing(_OpenTiff(path)) as file:
        return file.names


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
    shapes = []
    for level in series.levels:
        axes, shape = tiff.plane_axes(level, path)
        shapes.append((shape[axes.index("Y")], shape[axes.index("X")]))
    if len(shapes) > MOST_LEVELS or any(
        a < b for one, next in pairwise(shapes) for a, b in zip(one, next, strict=True)
    ):
        raise ImageError(f"{path} has a pyramid of {len(shapes)} levels that do not get smaller: export it again.")
    if max(shapes[0]) > _LONGEST:
        raise ImageError(
            f"{path} promises {shapes[0][1]} x {shapes[0][0]} pixels, above the limit of {_LONGEST} a side."
        )
    return tuple(Level(shape, downsample(shapes[0], shape)) for shape in shapes)


def _planes(series: Any, file: SharedFile, cache: PieceCache) -> list[TiffPage]:
    """The pages of one level, or the one page that stands for all where they lie behind it (ImageJ, above 4 GiB)."""
    pages = list(series)
    if any(page is None for page in pages):
        raise ImageError(f"{file.path} names planes that lie in other files: save it as one file.")
    first = series.keyframe
    if series.is_truncated:
        strides = range(0, series.nbytes, first.nbytes)
        moved = [[offset + stride for offset in first.dataoffsets] for stride in strides]
        return [TiffPage(first, offsets, first.databytecounts, None, file, cache) for offsets in moved]
    return [TiffPage(first, page.dataoffsets, page.databytecounts, page.jpegtables, file, cache) for page in pages]


def planes(path: Path, most: int = 2**30) -> list[NDArray[np.generic]] | None:
    """The planes (height, width) of a TIFF file that holds one stack of them, as they are stored.

    None for a file of one plane, of several images, of more than one axis besides height and width, of several samples
    a pixel, and of more than `most` bytes. Raises `ImageError` for a file that is broken.
    """
    with closing(_OpenTiff(path)) as file, _decoding(path, file):
        if len(file.images) != 1:
            return None
        series = file.images[0]
        long = [(axis, size) for axis, size in zip(series.get_axes(False), series.get_shape(False), strict=True)]
        axes = "".join(axis for axis, size in long if axis in "YX" or size > 1)
        if len(axes) != 3 or axes[1:] != "YX" or axes[0] == "S" or series.nbytes > most:
            return None
        pages = _planes(series, SharedFile(path, file.tiff.filehandle), PieceCache(KEPT_STRIPS))
        height, width = series.keyframe.imagelength, series.keyframe.imagewidth
        return [page.read(Box(0, 0, height, width))[..., 0] for page in pages if page.samples == 1]
