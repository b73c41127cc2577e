"""Images from files of every format, by one route: what is in a file decides how it is read, whatever its ending says.
Labels are read by `label_file`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io import bitmap, microscopes, ome_zarr, tiff, tiff_reader
from nucleate.io.axes import as_pixels, name_of, names_of
from nucleate.io.base import Level, MemoryReader, Reader, chosen_image
from nucleate.io.files import open_regular, reading
from nucleate.io.ome_zarr import OmeZarrReader
from nucleate.io.stack import Scene, one_plane, refuse_other_planes
from nucleate.io.tiff_reader import TiffReader
from nucleate.types import Image, Plane

__all__ = ["Level", "MemoryReader", "Reader", "open_reader", "read_image"]

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".tf2", ".tf8", ".btf", ".svs", ".ndpi", ".zarr"} | microscopes.SUFFIXES
)
"""The endings of files, and of OME-Zarr folders, that can be read as images, in lower case."""

OUTLINE_ENDINGS = (".geojson", ".geojson.gz", "_rois.zip", ".roi")
"""The ends of the names of files with the outlines of nuclei: GeoJSON, and ImageJ regions of interest."""

LARGEST_WHOLE, LARGEST_LABELS = 2**29, 2**30
"""Bytes of an image, and of a label image with 4 bytes a pixel, that are read as a whole: to train, check, evaluate."""

LABEL_MARKS = ("_labels", "_cp_masks", "_masks", "_rois")
"""What the name of a label file may have beyond the name of its image."""


def is_image(path: Path) -> bool:
    """Whether a path is named like an image: a known ending, and not hidden.

    >>> is_image(Path("cells.OME.TIFF")), is_image(Path(".cells.png")), is_image(Path("cells.csv"))
    (True, False, False)
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def holds_outlines(path: Path) -> bool:
    """Whether a path is named like a file with the outlines of nuclei.

    >>> holds_outlines(Path("cells.geojson")), holds_outlines(Path("cells_rois.zip")), holds_outlines(Path("cells.tif"))
    (True, True, False)
    """
    return path.name.lower().endswith(OUTLINE_ENDINGS) and not path.name.startswith(".")


def unmarked(name: str) -> str:
    """The name of an image, from that of its label file.

    >>> unmarked("cells_labels"), unmarked("cells_cp_masks"), unmarked("cells")
    ('cells', 'cells', 'cells')
    """
    for mark in LABEL_MARKS:
        name = name.removesuffix(mark)
    return name


def scenes(path: Path, *, labels: bool = False) -> tuple[Scene, ...]:
    """The images that a file holds: one in most files, several where a microscope saved many positions as one; each may
    be a stack. A file that cannot be read counts as one image, and fails where that is opened.
    """
    try:
        if _is_folder(path):
            return ome_zarr.scenes(path, labels=labels)
        start = start_of(path)
        if start.startswith(tiff.SIGNATURES):
            return tiff_reader.scenes(path)
        return microscopes.scenes(path) if microscopes.kind(start) else (Scene(),)
    except ImageError:
        return (Scene(),)


def open_reader(path: Path, level: int = 0, *, labels: bool = False, plane: Plane | None = None) -> Reader:
    """The reader of an image of any size, which gives any box of it.

    TIFF in all its kinds (BigTIFF, OME-TIFF, ImageJ, SVS, NDPI), OME-Zarr and CZI are read by pieces, ND2 and LIF by
    frames. PNG and JPEG have none, so such an image is decoded as a whole.

    Args:
        path: a file, or an OME-Zarr folder.
        level: which level of a pyramid, 0 the whole image.
        labels: whether it is a label image: values stay as they are stored, a palette's indices are the labels, and
            OME-Zarr labels are read, too, which are no image.
        plane: which image of a file that holds several, and which plane of a stack.

    Returns:
        The open reader; close it, or use it in a `with` block.

    Raises:
        ImageError: the file is missing, cut off, broken or of another kind, has no such level, image or plane, holds
            several of which none is chosen, or is a PNG or JPEG above `bitmap.LARGEST`.

    >>> import tempfile, numpy, tifffile
    >>> from nucleate.types import Box
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tifffile.imwrite(Path(folder) / "slide.tif", numpy.eye(1000, dtype=numpy.uint8), tile=(256, 256))
    ...     with open_reader(Path(folder) / "slide.tif") as reader:
    ...         reader.shape, reader.piece, reader.read(Box(500, 499, 1, 3)).tolist()
    ((1000, 1000), (256, 256), [[[0], [1], [0]]])
    """
    plane = plane or Plane()
    if _is_folder(path):
        return one_plane(OmeZarrReader(path, level, labels=labels, series=plane.series), plane, labels=labels)
    start = start_of(path)
    if start.startswith(tiff.SIGNATURES):
        return one_plane(TiffReader(path, level, labels=labels, series=plane.series), plane, labels=labels)
    if microscopes.kind(start):
        return one_plane(microscopes.open_microscope(path, level, series=plane.series), plane, labels=labels)
    if not start.startswith((bitmap.PNG_SIGNATURE, bitmap.JPEG_SIGNATURE)):
        raise ImageError(
            f"{path} is not a PNG, JPEG or TIFF file, nor ND2, LIF or CZI, whatever its name says: export it as one."
            if start
            else f"{path} is empty: copy or export it again."
        )
    with reading(path):
        pixels = bitmap.read_bitmap(path, labels=labels)
        values = pixels if labels else as_pixels(pixels, path)
    chosen_image(plane.series, ("",), path)
    refuse_other_planes(path, plane)
    reader = MemoryReader(Image(name_of(path), values, names_of(pixels.shape[2]), None, path))
    reader.level = level
    reader.check_level()
    return reader


def read_image(path: Path, plane: Plane | None = None) -> Image:
    """Read one plane of a PNG, JPEG, TIFF, OME-TIFF, ImageJ TIFF, ND2, LIF or CZI file, or of an OME-Zarr folder.

    Args:
        path: of the file or folder.
        plane: which image of a file that holds several, and which plane of a stack.

    Returns:
        The image. The pixels keep the file's type where it is uint8 or uint16; every other number becomes float32, and
        a bilevel image 0 and 255. Transparency is dropped. Channels are named as in the file, else "grey" or "red",
        "green", "blue", else "channel 1", "channel 2" and so on.

    Raises:
        ImageError: as `open_reader`; it is above `LARGEST_WHOLE`, or holds NaN or infinity.

    >>> import tempfile, tifffile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "cells.tif"
    ...     tifffile.imwrite(path, np.eye(3, dtype=np.uint16))
    ...     image = read_image(path)
    >>> image.name, image.pixels.shape, image.pixels.dtype.name, image.channels
    ('cells', (3, 3, 1), 'uint16', ('grey',))
    """
    with open_reader(path, plane=plane) as reader:
        return Image(reader.name, whole(reader, path, LARGEST_WHOLE), reader.channels, reader.pixel_size, path)


def _is_folder(path: Path) -> bool:
    with reading(path):
        return path.is_dir()


def start_of(path: Path) -> bytes:
    """How a file begins."""
    with open_regular(path) as file, reading(path):
        return file.read(64)


def whole(reader: Reader, path: Path, most: int, least: int = 1) -> NDArray[np.generic]:
    """All pixels of an image that takes no more than `most` bytes, where a value takes `least` or more."""
    size = reader.shape[0] * reader.shape[1] * len(reader.channels) * max(reader.dtype.itemsize, least)
    if size > most:
        raise ImageError(
            f"{path} is {reader.shape[1]} x {reader.shape[0]} pixels, which take {size} bytes; it is read as a whole,"
            f" up to {most} bytes: cut it up first."
        )
    with reading(path):
        return reader.read(reader.box)
