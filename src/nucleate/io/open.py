"""Any image, of any size, to the reader that reads it."""

from __future__ import annotations

from pathlib import Path

from nucleate.io.image_file import read_image
from nucleate.io.ome_zarr import OmeZarrReader
from nucleate.io.reader import MemoryReader, Reader
from nucleate.io.tiff import SIGNATURES
from nucleate.io.tiff_reader import TiffReader


def open_reader(path: Path, level: int = 0, *, labels: bool = False) -> Reader:
    """The reader of an image, by what is in it, whatever its ending says; `level` chooses one of its pyramid.

    TIFF in all its kinds (BigTIFF, OME-TIFF, SVS, NDPI) and OME-Zarr are read by pieces. PNG and JPEG have none, so
    such an image is decoded as a whole, and must be no larger than `bitmap.MAX_PIXELS`. OME-Zarr labels are no image;
    with `labels`, they are read, too.

    Raises `ImageError` for what is missing, cut off, broken, a stack or of another kind, and for a level that it does
    not have.

    >>> import tempfile, numpy, tifffile
    >>> from nucleate.types import Box
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tifffile.imwrite(Path(folder) / "slide.tif", numpy.eye(1000, dtype=numpy.uint8), tile=(256, 256))
    ...     with open_reader(Path(folder) / "slide.tif") as reader:
    ...         reader.shape, reader.piece, reader.read(Box(500, 499, 1, 3)).tolist()
    ((1000, 1000), (256, 256), [[[0], [1], [0]]])
    """
    if path.is_dir():
        return OmeZarrReader(path, level, labels=labels)
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(4)
        if start in SIGNATURES:
            return TiffReader(path, level)
    reader = MemoryReader(read_image(path))
    reader.level = level
    reader.check_level()
    return reader
