"""Image and mask files to the values of `nucleate.types`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io import bitmap, tiff
from nucleate.types import Image, Labels, Pixels

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".tf2", ".tf8", ".btf", ".svs", ".ndpi", ".zarr"}
)
"""The endings of files, and of OME-Zarr folders, that can be read, in lower case."""

GREY = ("grey",)
RGB = ("red", "green", "blue")


def is_image(path: Path) -> bool:
    """Whether a path is named like an image: a known ending, and not hidden.

    >>> is_image(Path("cells.OME.TIFF")), is_image(Path(".cells.png")), is_image(Path("cells.csv"))
    (True, False, False)
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def name_of(path: Path) -> str:
    """The name of the image in a file: the file's name without its ending.

    >>> name_of(Path("a/cells.ome.tif")), name_of(Path("a/plate.1.png"))
    ('cells', 'plate.1')
    """
    return path.stem[:-4] if path.stem.lower().endswith(".ome") else path.stem


def read_image(path: Path) -> Image:
    """Read one plane of a PNG, JPEG, TIFF, OME-TIFF or ImageJ TIFF file, or of an OME-Zarr folder.

    The pixels keep the file's type where it is uint8 or uint16; every other number becomes float32, and a bilevel
    image 0 and 255. Transparency is dropped. Channels are named as in the file, else "grey" or "red", "green",
    "blue", else "channel 1", "channel 2" and so on.

    Raises `ImageError` for a file that is missing, cut off, broken, a stack, larger than 2**31 pixels, or that holds
    NaN or infinity.

    >>> import tempfile, tifffile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "cells.tif"
    ...     tifffile.imwrite(path, np.eye(3, dtype=np.uint16))
    ...     image = read_image(path)
    >>> image.name, image.pixels.shape, image.pixels.dtype.name, image.channels
    ('cells', (3, 3, 1), 'uint16', ('grey',))
    """
    if path.is_dir():
        return _read_folder(path)
    plane = _read(path, labels=False)
    pixels = as_pixels(plane.pixels, path)
    return Image(name_of(path), pixels, plane.channels or names_of(pixels.shape[2]), plane.pixel_size, path)


def _read_folder(path: Path) -> Image:
    from nucleate.io.ome_zarr import OmeZarrReader  # it builds on what is here

    with OmeZarrReader(path) as reader:
        count = reader.shape[0] * reader.shape[1] * len(reader.channels)
        if count > bitmap.MAX_PIXELS:
            raise ImageError(
                f"{path} promises {count} values, above the limit of {bitmap.MAX_PIXELS}: cut it up first."
            )
        return Image(reader.name, reader.read(reader.box), reader.channels, reader.pixel_size, path)


def names_of(channels: int) -> tuple[str, ...]:
    """The names of so many channels in a file that does not name them.

    >>> names_of(1), names_of(2), names_of(3)
    (('grey',), ('channel 1', 'channel 2'), ('red', 'green', 'blue'))
    """
    return {1: GREY, 3: RGB}.get(channels) or tiff.numbered(channels)


def read_labels(path: Path) -> Labels:
    """Read a mask: an int32 array of shape (height, width), 0 background, 1..N one nucleus each, negative unknown.

    Integers of any width and floats with whole values are taken. A colour mask is taken where its channels are
    equal, or where it is a palette (its indices are the labels). A mask of one value is returned as it is: its nuclei
    are not told apart here.

    Raises `ImageError` as `read_image` does, and for colours, fractions, or values outside int32.

    >>> import tempfile, tifffile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mask.tif"
    ...     tifffile.imwrite(path, np.array([[0, 1], [2, 2]], np.uint16))
    ...     read_labels(path)
    array([[0, 1],
           [2, 2]], dtype=int32)
    """
    values = _read(path, labels=True).pixels
    _refuse_not_finite(values, path)
    if not (values == values[..., :1]).all():
        raise ImageError(
            f"{path} is a mask with {values.shape[2]} different channels: save it with one channel, a number for each"
            " nucleus and 0 for the background."
        )
    values = values[..., 0]
    if values.dtype.kind not in "buif":
        raise ImageError(f"{path} is a mask of type {values.dtype}: save it as 16-bit integers.")
    if values.dtype.kind == "f" and (values != np.trunc(values)).any():
        raise ImageError(f"{path} is a mask with fractions in it: save whole numbers, one for each nucleus.")
    lowest, highest = values.min(), values.max()
    limit = np.iinfo(np.int32)
    if int(lowest) < limit.min or int(highest) > limit.max:
        raise ImageError(f"{path} is a mask with values from {lowest} to {highest}: number its nuclei from 1.")
    return np.ascontiguousarray(values, dtype=np.int32)


def _read(path: Path, *, labels: bool) -> tiff.Plane:
    """Decode by what the file holds, whatever its ending says."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith((bitmap.PNG_SIGNATURE, bitmap.JPEG_SIGNATURE)):
            plane = tiff.Plane(bitmap.read_bitmap(path, labels=labels), (), None)
        elif start.startswith(tiff.SIGNATURES):
            plane = tiff.read_plane(path, labels=labels)
        elif not start:
            raise ImageError(f"{path} is empty: copy or export it again.")
        else:
            raise ImageError(f"{path} is not a PNG, JPEG or TIFF file, whatever its name says: export it as one.")
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist: check the path.") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}): check what it is and who may read it.") from error
    except MemoryError as error:
        raise ImageError(f"{path} does not fit in memory: cut it up first.") from error
    if plane.pixels.size == 0:
        raise ImageError(f"{path} has no pixels: export it again.")
    return plane


def as_pixels(values: NDArray[np.generic], path: Path | None) -> Pixels:
    """Values in a type that pixels have: 8 and 16 bit stay, a bilevel image becomes 0 and 255, others float32.

    Raises `ImageError` naming `path` for what is no number, NaN or infinite.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.dtype.kind not in "uif":
        raise ImageError(f"{path} has pixels of type {values.dtype}: save them as 8-bit, 16-bit or float numbers.")
    _refuse_not_finite(values, path)
    with np.errstate(over="ignore"):
        pixels = values.astype(np.float32)
    _refuse_not_finite(pixels, path)
    return pixels


def _refuse_not_finite(values: NDArray[np.generic], path: Path | None) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        raise ImageError(f"{path} holds {count} values that are NaN or infinite: replace them before using it.")
