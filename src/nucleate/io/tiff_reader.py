"""TIFF files of any size, read by the tiles or strips that a box touches: TIFF, BigTIFF, OME-TIFF, SVS, NDPI."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io import tiff
from nucleate.io.axes import as_pixels, micrometres, name_of, names_of
from nucleate.io.base import Level, Reader, downsample
from nucleate.io.tiff_page import PieceCache, SharedFile, TiffPage
from nucleate.types import Box, Pixels

KEPT, KEPT_STRIPS = 2**26, 2**28
"""Bytes of decoded tiles that are kept, and of strips, of which a row of boxes shares many."""

_APERIO_SIZE = re.compile(r"\bMPP\s*=\s*([0-9.eE+-]+)")


class TiffReader(Reader):
    """A TIFF file, open; `level` chooses one level of its pyramid.

    Its largest image is read, whatever thumbnails and photographs are beside it. Channels may be samples of a pixel,
    planes of a page, or pages of their own. Every tile that the file names must lie inside it, so that a file that is
    cut off is refused when it is opened.

    Axes of length 1 are dropped, and so is transparency. A palette becomes its colours, except in an ImageJ file, where
    the indices are what was measured. With `labels`, values stay as they are stored, a palette's indices included, as
    programs colour a label image for display.

    Raises:
        ImageError: the file is missing, cut off, broken, of another kind, a stack, without the level, or has planes in
            other files.
    """

    def __init__(self, path: Path, level: int = 0, *, labels: bool = False) -> None:
        self.path, self.level, self.name, self._labels = path, level, name_of(path), labels
        try:
            # Planes in other files, whose names might lead anywhere, are not looked for.
            self._tiff = tifffile.TiffFile(path, _multifile=False)
        except FileNotFoundError as error:
            raise ImageError(f"{path} does not exist: check the path.") from error
        except OSError as error:
            raise ImageError(f"{path} cannot be read ({error.strerror}): check who may read it.") from error
        except Exception as error:  # a broken TIFF file raises whatever its broken field leads to
            raise ImageError(f"{path} cannot be decoded ({error}): export or copy it again.") from error
        try:
            self._open(path)
        except BaseException as error:
            self._tiff.close()
            if isinstance(error, ImageError) or not isinstance(error, Exception):
                raise
            raise ImageError(f"{path} cannot be decoded ({error}): export or copy it again.") from error

    def _open(self, path: Path) -> None:
        series = tiff.main_series(self._tiff, path)
        self.levels = _levels(series, path)
        self.check_level()
        chosen = series.levels[self.level]
        axes, shape = tiff.plane_axes(chosen, path)
        self._page, self._samples = chosen.keyframe, "S" in axes
        cache = PieceCache(KEPT if self._page.is_tiled else KEPT_STRIPS)
        self._planes = _planes(chosen, SharedFile(path, self._tiff.filehandle), cache)
        if sum(plane.samples for plane in self._planes) != np.prod(shape) // np.prod(self.shape):
            raise ImageError(f"{path} has axes {axes} of shape {shape} stored in another shape: export it again.")
        self.piece = self._planes[0].piece
        first = self._values(Box(0, 0, 1, 1))
        self.dtype = first.dtype if self._labels else as_pixels(first[:0], path).dtype
        count = first.shape[2]
        self.channels = (() if self._samples else tiff.channel_names(self._tiff, count)) or names_of(count)
        size = self._whole_size(series.levels[0].keyframe)
        self.pixel_size = None if size is None else size * self.levels[self.level].downsample

    def _whole_size(self, page: Any) -> float | None:
        """Micrometres a pixel of the first level."""
        if not self._tiff.is_svs:
            return tiff.pixel_size(self._tiff, page)
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
        self._tiff.close()


def _levels(series: Any, path: Path) -> tuple[Level, ...]:
    shapes = []
    for level in series.levels:
        axes, shape = tiff.plane_axes(level, path)
        shapes.append((shape[axes.index("Y")], shape[axes.index("X")]))
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
