"""TIFF files of any size, read by the tiles or strips that a box touches: TIFF, BigTIFF, OME-TIFF, SVS, NDPI."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.images import tiff
from nucleate.images.slide import Level, Reader
from nucleate.types import Box, Pixels

CACHED = 2**26
"""Bytes of decoded tiles that are kept, since neighbouring boxes share them."""

LARGEST_SEGMENT = 2**30
"""Bytes; a single tile or strip that claims to be larger is not decoded."""

_MPP = re.compile(r"\bMPP\s*=\s*([0-9.eE+-]+)")


class TiffReader(Reader):
    """A TIFF file, opened; `level` chooses one level of its pyramid.

    Channels may be samples of a pixel, planes of a page, or pages of their own. The file is checked when it is
    opened: every tile that it names must lie inside it, so a file that is cut short is refused before work begins.
    """

    def __init__(self, path: Path, level: int = 0) -> None:
        self.path, self.level, self.name = path, level, path.stem
        try:
            self._tiff = tifffile.TiffFile(path)
        except FileNotFoundError as error:
            raise ImageError(f"{path} does not exist: check the path.") from error
        except OSError as error:
            raise ImageError(f"{path} cannot be read ({error.strerror}): check who may read it.") from error
        except Exception as error:  # a broken TIFF file raises whatever its broken field leads to
            raise ImageError(f"{path} cannot be decoded ({error}): export or copy it again.") from error
        try:
            self._open(path)
        except ImageError:
            self._tiff.close()
            raise
        except Exception as error:  # as above
            self._tiff.close()
            raise ImageError(f"{path} cannot be decoded ({error}): export or copy it again.") from error

    def _open(self, path: Path) -> None:
        if not self._tiff.series:
            raise ImageError(f"{path} holds no image: export it again.")
        series: Any = self._tiff.series[0]
        shapes = [_plane_shape(one, path) for one in series.levels]
        if not 0 <= self.level < len(shapes):
            raise ImageError(f"{path} has levels 0 to {len(shapes) - 1} and no level {self.level}.")
        self.levels = tuple(Level(shape, shapes[0][1] / shape[1]) for shape in shapes)
        chosen = series.levels[self.level]
        self._pages: list[Any] = [page.aspage() if hasattr(page, "aspage") else page for page in chosen.pages]
        if any(page is None or page.parent is not self._tiff for page in self._pages):
            raise ImageError(f"{path} names planes that lie in other files: save it as one file.")
        page = self._pages[0]
        self._planar = page.planarconfig == 2 and page.samplesperpixel > 1
        samples = page.samplesperpixel if len(self._pages) == 1 else len(self._pages)
        self._samples = tiff.colours(page, samples) if len(self._pages) == 1 and samples > 1 else samples
        self._decoders = [one.decode for one in self._pages]
        self._tile = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        self._tile = (min(self._tile[0], page.imagelength) if not page.is_tiled else self._tile[0], self._tile[1])
        self.piece = self._tile
        self._check(path, chosen)
        first = self.read(Box(0, 0, 1, 1))
        self.dtype = first.dtype
        count = first.shape[2]
        named = tiff.channel_names(self._tiff, count)
        self.channels = named or {1: ("grey",), 3: ("red", "green", "blue")}.get(count) or tiff.numbered(count)
        if self._is_rgb(page):
            self.channels = ("red", "green", "blue")
        size = self._pixel_size(series.levels[0].keyframe)
        self.pixel_size = None if size is None else size * self.levels[self.level].downsample

    @staticmethod
    def _is_rgb(page: Any) -> bool:
        return page.photometric in (2, 6) and page.samplesperpixel >= 3

    def _pixel_size(self, page: Any) -> float | None:
        found = _MPP.search(page.description) if self._tiff.is_svs else None
        if found is None:
            return tiff.pixel_size(self._tiff, page)
        try:
            return float(found.group(1))
        except ValueError:
            return None

    def _check(self, path: Path, series: Any) -> None:
        """What can be known before pixels are decoded: bearable tiles, all of them there."""
        page = self._pages[0]
        per_tile = self._tile[0] * self._tile[1] * (1 if self._planar else page.samplesperpixel) * page.dtype.itemsize
        if per_tile > LARGEST_SEGMENT and not self._mapped(page):
            raise ImageError(
                f"{path} is stored in pieces of {per_tile} bytes, above the limit of {LARGEST_SEGMENT}: save it tiled."
            )
        rows, columns = self._grid()
        expected = rows * columns * (page.samplesperpixel if self._planar else 1)
        size = self._tiff.filehandle.size
        for one in self._pages:
            ends = [o + n for o, n in zip(one.dataoffsets, one.databytecounts, strict=True)]
            contiguous = len(one.dataoffsets) == 1 and self._mapped(one)
            if len(one.dataoffsets) != expected and not contiguous:
                raise ImageError(
                    f"{path} promises {expected} tiles and names {len(one.dataoffsets)}: copy or export it again."
                )
            if max(ends, default=0) > size:
                raise ImageError(f"{path} is cut off before its end: copy or export it again.")
            plain = self.levels[self.level].shape[0] * self.levels[self.level].shape[1] * page.dtype.itemsize
            if one.compression == 1 and sum(one.databytecounts) < plain * page.bitspersample // (
                8 * page.dtype.itemsize
            ):
                raise ImageError(f"{path} promises more pixels than it holds: copy or export it again.")
        self._cache: OrderedDict[tuple[int, int], NDArray[np.generic]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def _grid(self) -> tuple[int, int]:
        height, width = self.shape
        return -(-height // self._tile[0]), -(-width // self._tile[1])

    @staticmethod
    def _mapped(page: Any) -> bool:
        """Whether the pixels lie in the file as they lie in memory, so that any part can be read without the rest."""
        return bool(page.is_memmappable) and not page.is_tiled and page.planarconfig == 1

    def read(self, box: Box) -> Pixels:
        self._inside(box)
        page = self._pages[0]
        parts = [
            self._read_plane(number, plane, box)
            for number in range(len(self._pages))
            for plane in range(page.samplesperpixel if self._planar else 1)
        ]
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        pixels = tiff.displayed(pixels, page, as_indices=self._tiff.is_imagej)
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * np.uint8(255)
        elif pixels.dtype not in (np.uint8, np.uint16):
            if pixels.dtype.kind not in "uif":
                raise ImageError(f"{self.path} has pixels of type {pixels.dtype}: save them as 8-bit, 16-bit or float.")
            pixels = pixels.astype(np.float32)
            if not np.isfinite(pixels).all():
                raise ImageError(f"{self.path} holds values that are NaN or infinite: replace them before using it.")
        colours = pixels.shape[2] if len(self._pages) > 1 or page.photometric == 3 else self._samples
        return np.ascontiguousarray(pixels[..., :colours])

    def _read_plane(self, number: int, plane: int, box: Box) -> NDArray[np.generic]:
        page = self._pages[number]
        if self._mapped(page):
            return self._read_mapped(page, box)
        samples = 1 if self._planar else page.samplesperpixel
        out = np.zeros((box.height, box.width, samples), dtype=page.dtype)
        rows, columns = self._grid()
        high, wide = self._tile
        for row in range(box.y // high, (box.bottom - 1) // high + 1):
            for column in range(box.x // wide, (box.right - 1) // wide + 1):
                tile = self._segment(number, (plane * rows + row) * columns + column, (row, column))
                if tile is None:  # never written: stays 0, as TIFF has it
                    continue
                here = Box(row * high, column * wide, *tile.shape[:2])
                common = here.common(box)
                if common is not None:
                    out[common.within(box)] = tile[common.within(here)]
        return out

    def _read_mapped(self, page: Any, box: Box) -> NDArray[np.generic]:
        width = self.shape[1]
        dtype = page.dtype.newbyteorder(self._tiff.byteorder)
        line = width * page.samplesperpixel * dtype.itemsize
        data = self._bytes(page.dataoffsets[0] + box.y * line, box.height * line)
        rows = np.frombuffer(data, dtype).reshape(box.height, width, page.samplesperpixel)
        return rows[:, box.x : box.right].astype(page.dtype)

    def _bytes(self, offset: int, count: int) -> bytes:
        try:
            data = os.pread(self._tiff.filehandle.fileno(), count, offset)
        except OSError as error:
            raise ImageError(
                f"{self.path} cannot be read any more ({error.strerror}): is its disk still there?"
            ) from error
        if len(data) < count:
            raise ImageError(f"{self.path} ended while it was read: copy or export it again.")
        return data

    def _segment(self, number: int, index: int, place: tuple[int, int]) -> NDArray[np.generic] | None:
        """The decoded tile or strip (height, width, samples); None where the file leaves it out."""
        key = (number, index)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        page = self._pages[number]
        count = page.databytecounts[index]
        if count == 0:
            return None
        data = self._bytes(page.dataoffsets[index], count)
        try:
            decoded = self._decoders[number](data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0]
        except Exception as error:  # each codec has errors of its own
            row, column = place
            raise ImageError(
                f"{self.path} has a tile that cannot be decoded, row {row}, column {column} ({error}): copy or export"
                " it again."
            ) from error
        if decoded is None:
            return None
        tile: NDArray[np.generic] = decoded[0]
        with self._lock:
            self._cache[key] = tile
            self._held += tile.nbytes
            while self._held > CACHED and len(self._cache) > 1:
                self._held -= self._cache.popitem(last=False)[1].nbytes
        return tile

    def close(self) -> None:
        self._tiff.close()


def _plane_shape(series: Any, path: Path) -> tuple[int, int]:
    """(height, width) of one level, which must be one plane."""
    axes, shape = series.get_axes(False), series.get_shape(False)
    kept = [i for i, (axis, size) in enumerate(zip(axes, shape, strict=True)) if axis in "YX" or size > 1]
    names, sizes = "".join(axes[i] for i in kept), [shape[i] for i in kept]
    if names not in ("YX", "YXS", "CYX", "SYX"):
        raise ImageError(
            f"{path} has axes {names} of shape {tuple(sizes)} where one plane is needed: save one plane or a"
            " projection of it (channels belong on an axis named C)."
        )
    return sizes[names.index("Y")], sizes[names.index("X")]
