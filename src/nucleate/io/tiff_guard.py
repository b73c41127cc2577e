"""What a TIFF file promises, weighed before tifffile believes it: its pages, tags and OME-XML cost bounded work.

tifffile reads every page and every value that it is told of. So the chain of pages is walked here first, in few bytes
of memory, and what is beyond any microscope is refused. What is left it reads through a `BoundedFile`.

Format: TIFF 6.0 (Adobe, 1992), BigTIFF (Joris Van Damme and others, 2007), NDPI as tifffile reads it.
"""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

from nucleate.errors import ImageError
from nucleate.io.base import MOST_LEVELS
from nucleate.io.cache import LARGEST_PIECE

MOST_PAGES = 2**13
"""Pages of a file, those of its pyramids included; also planes of an image."""

_MOST_KINDS = 2**8  # of pages that differ in size or type; tifffile compares each with each
_MOST_TAGS, _MOST_TAGS_IN_ALL = 2**12, 2**19  # of a page, and of all of them
_MOST_PLACES = 2**23  # of tiles and strips in all pages: offsets and lengths
_MOST_TEXT = 2**26  # bytes of texts and other values without a meaning of their own, of all pages
_MOST_NUMBERS = 2**18  # of one tag; a palette of 16 bits has 3 * 2**16
_MOST_OME = 2**23  # characters of OME-XML
_MOST_READ, _MOST_READS = 2**28, 2**20  # bytes, and calls, while a file is opened

_BYTES_OF = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TEXTS = (1, 2, 6, 7)  # types of tags: bytes and characters
_PLACES = (273, 279, 324, 325, 65426, 65432)  # tags: where tiles and strips lie, and how long they are
_SUB_PAGES = 330
_GEOMETRY = (256, 257, 258, 259, 262, 277, 278, 284, 317, 322, 323, 339)  # tags by which pages differ in kind


class BoundedFile:
    """A file as tifffile reads it: no more at once than the largest piece, and, until `opened`, little in all."""

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self._file, self.name, self._path = file, str(path), path
        self._read, self._reads, self._opening = 0, 0, True
        file.seek(0)  # from where tifffile counts
        self._refused: ImageError | None = None

    def opened(self) -> None:
        """From here on pixels are read. Raises what was refused until then, which tifffile may have passed over."""
        self._opening = False
        if self._refused is not None:
            raise self._refused

    def read(self, size: int = -1) -> bytes:
        self._count(size if size >= 0 else LARGEST_PIECE + 1)
        return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:
        self._count(memoryview(buffer).nbytes)
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def _count(self, size: int) -> None:
        if self._opening:
            self._read, self._reads = self._read + size, self._reads + 1
        if size > LARGEST_PIECE or self._read > _MOST_READ or self._reads > _MOST_READS:
            self._refused = _beyond(self._path, "more bytes to be read than any image needs before its pixels")
            raise self._refused


def check_pages(file: BinaryIO, path: Path) -> int:
    """How many pages a file has, those of pyramids left out.

    Raises `ImageError` where the pages go in a circle, or promise more of anything than is read.
    """
    try:
        return _Walk(file, path).main()
    except (struct.error, OverflowError) as error:
        raise ImageError(
            f"{path} cannot be decoded (its list of pages is broken or cut off): copy or export it again."
        ) from error


class _Walk:
    """The way through the pages of a file, counting what they promise."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        file.seek(0)
        start = file.read(16)
        self._order = "<" if start[:2] == b"II" else ">"
        (version,) = struct.unpack_from(self._order + "H", start, 2)
        self._big = version == 43
        self._wide = self._big or (path.suffix.lower() == ".ndpi" and self._order == "<")  # offsets of 64 bits
        (self._first,) = self._unpack("Q" if self._wide else "I", start, 8 if self._big else 4)
        self._size = file.seek(0, os.SEEK_END)
        self._total: Counter[str] = Counter()
        self._kinds: set[tuple[tuple[int, bytes], ...]] = set()

    def main(self) -> int:
        """Walk all pages; how many are in the chain itself."""
        offset, seen = self._first, set[int]()
        while 0 < offset < self._size:
            if offset in seen:
                raise ImageError(f"{self._path} has a list of pages that runs in a circle: copy or export it again.")
            seen.add(offset)
            below, offset = self._page(offset)
            for one in below:
                if 0 < one < self._size:
                    self._page(one)
        return len(seen)

    def _page(self, offset: int) -> tuple[list[int], int]:
        """Where the page's own smaller ones lie, and the page after it."""
        self._add("pages", 1, MOST_PAGES)
        self._file.seek(offset)
        (count,) = self._unpack("Q" if self._big else "H", self._file.read(8 if self._big else 2))
        if count > _MOST_TAGS:
            raise self._beyond(f"{count} tags on a page")
        self._add("tags", count, _MOST_TAGS_IN_ALL)
        size = 20 if self._big else 12
        data = self._file.read(count * size + (8 if self._wide else 4))
        (after,) = self._unpack("Q" if self._wide else "I", data, count * size)
        below, kind = list[int](), list[tuple[int, bytes]]()
        for at in range(0, count * size, size):
            code, form, number = self._unpack("HHQ" if self._big else "HHI", data, at)
            value = data[at + (12 if self._big else 8) : at + size]
            self._tag(code, form, number)
            if code in _GEOMETRY:
                kind.append((code, value))
            if code == _SUB_PAGES:
                below = list(self._offsets(form, number, value))
        self._kinds.add(tuple(kind))
        if len(self._kinds) > _MOST_KINDS:
            raise self._beyond(f"more than {_MOST_KINDS} sizes and types of pages")
        return below, after

    def _tag(self, code: int, form: int, number: int) -> None:
        if code in _PLACES:
            self._add("offsets and lengths of tiles and strips", number, _MOST_PLACES)
        elif form in _TEXTS:
            self._add("bytes of text", number, _MOST_TEXT)
        elif number > _MOST_NUMBERS and form in _BYTES_OF:
            raise self._beyond(f"{number} values in the tag {code}")

    def _offsets(self, form: int, number: int, value: bytes) -> Iterator[int]:
        """The values of the tag that says where smaller pages lie."""
        if number > MOST_LEVELS:
            raise self._beyond(f"a pyramid of {number} levels")
        each = _BYTES_OF.get(form, 0)
        if each not in (4, 8):
            return
        if number * each > len(value):
            (place,) = self._unpack("Q" if self._big else "I", value)
            self._file.seek(place)
            value = self._file.read(number * each)
        yield from self._unpack(f"{number}{'I' if each == 4 else 'Q'}", value)

    def _add(self, what: str, number: int, most: int) -> None:
        self._total[what] += number
        if self._total[what] > most:
            raise self._beyond(f"{self._total[what]} {what}")

    def _beyond(self, what: str) -> ImageError:
        return _beyond(self._path, what)

    def _unpack(self, form: str, data: bytes, at: int = 0) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, data, at)


def check_ome(text: str, path: Path, pages: int) -> None:
    """Raise `ImageError` where OME-XML promises more planes than are read, or names planes in other files.

    A file that was renamed calls itself by its old name; it is read where it has as many pages as it names planes.
    """
    if len(text) > _MOST_OME:
        raise _beyond(path, f"{len(text)} characters of OME-XML")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ImageError(f"{path} has OME-XML that defines entities, which are not read: export it again.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return  # tifffile, too, goes on without
    images = root.findall("{*}Image/{*}Pixels")
    planes = sum(_planes(pixels, path) for pixels in images)
    if planes > MOST_PAGES:
        raise _beyond(path, f"{planes} planes")
    _check_modulo(root, path)
    names = {name for pixels in images for data in pixels.findall("{*}TiffData") for name in _file_names(data)}
    named = names - {None}
    elsewhere = len(names) > 1 or any(name and (set(name) & {"/", "\\"}) for name in named)
    if elsewhere or (named - {path.name} and planes > pages):
        raise ImageError(f"{path} names planes that lie in other files: save it as one file.")


def _planes(pixels: ElementTree.Element, path: Path) -> int:
    """How many planes an image has; every number that leads to one is bounded."""
    samples = max((int(one.get("SamplesPerPixel", "1")) for one in pixels.findall("{*}Channel")), default=1)
    sizes = [int(pixels.get(f"Size{axis}", "1")) for axis in "ZCT"]
    numbers = [
        int(data.get(name, "0"))
        for data in pixels.findall("{*}TiffData")
        for name in ("IFD", "PlaneCount", "NumPlanes", "FirstZ", "FirstC", "FirstT")
    ]
    if min(sizes) < 1 or samples < 1 or min(numbers, default=0) < 0:
        raise ImageError(f"{path} has OME-XML with sizes {sizes}, or places below 0: export it again.")
    largest = max(math.prod(sizes), samples, *numbers, 0)
    if largest > MOST_PAGES:
        raise _beyond(path, f"{largest} planes")
    return max(1, math.prod(sizes) // samples)


def _check_modulo(root: ElementTree.Element, path: Path) -> None:
    """Bound the axes that annotations fold into others."""
    for along in root.iter():
        if isinstance(along.tag, str) and along.tag[:-1].endswith("Along") and "Start" in along.attrib:
            step = float(along.get("Step", "1"))
            steps = (float(along.attrib["End"]) - float(along.attrib["Start"])) / step if step else math.inf
            if not steps <= MOST_PAGES:
                raise _beyond(path, f"{steps:g} planes along {along.tag[-1]}")


def _file_names(data: ElementTree.Element) -> list[str | None]:
    """The files that hold the planes of one element; None for this one."""
    return [uuid.get("FileName") for uuid in data.findall("{*}UUID")] or [None]


def _beyond(path: Path, what: str) -> ImageError:
    return ImageError(f"{path} promises {what}, which is beyond what is read: copy or export it again.")
