"""TIFF, OME-TIFF and ImageJ TIFF files to one plane of pixels."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.bitmap import MAX_PIXELS

# What tifffile logs on its way to an error, the error says; without a handler it would land on the terminal.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_MICROMETRES = {
    "m": 1e6,
    "meter": 1e6,
    "cm": 1e4,
    "centimeter": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "å": 1e-4,
    "angstrom": 1e-4,
    "pm": 1e-6,
    "picometer": 1e-6,
    "inch": 25400.0,
    "in": 25400.0,
}
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}
_COARSEST = 20.0  # micrometres a pixel; above it no nucleus shows, and the tag is a printer's (72, 96, 300 dpi)
_MINISWHITE, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6


@dataclass(frozen=True, slots=True)
class Plane:
    """Pixels of shape (height, width, channels) in the file's type; `channels` is empty for plain grey or RGB."""

    pixels: NDArray[np.generic]
    channels: tuple[str, ...]
    pixel_size: float | None


def read_plane(path: Path, *, labels: bool = False) -> Plane:
    """The first image of a TIFF file, which must be one plane.

    Axes YX, YXS (samples) and CYX (channels) are read; axes of length 1 are dropped, and so is transparency. A
    palette becomes its colours, except in an ImageJ file or with `labels`, where the indices are the measurement and
    the palette is only for display. Where white is stored as 0 (MINISWHITE), 8- and 16-bit values are turned round.

    Raises `ImageError` for a file that is cut off or broken, a stack (Z or T above 1), or too many pixels.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            return _read(tiff, path, labels)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a broken TIFF file raises whatever its broken field leads to
        raise ImageError(f"{path} cannot be decoded ({error}): export or copy it again.") from error


def _read(tiff: Any, path: Path, labels: bool) -> Plane:
    series = main_series(tiff, path)
    axes, shape = plane_axes(series, path)
    _check(tiff, series, shape, path)
    pixels = np.asarray(series.asarray(squeeze=False)).reshape(shape)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if axes in ("CYX", "SYX"):
        pixels = np.moveaxis(pixels, 0, 2)
    pixels = pixels.reshape(pixels.shape[0], pixels.shape[1], -1)
    page = series.keyframe
    pixels = displayed(pixels, page, as_indices=labels or tiff.is_imagej)
    if "S" in axes:
        pixels = pixels[..., : colours(page, pixels.shape[2])]
    pixels = np.ascontiguousarray(pixels)
    return Plane(pixels, () if "S" in axes else channel_names(tiff, pixels.shape[2]), pixel_size(tiff, page))


def main_series(tiff: Any, path: Path) -> Any:
    """The image of a file that may also hold a thumbnail, a label and a photograph of the slide: the largest, or the
    first where the format says so."""
    if not tiff.series:
        raise ImageError(f"{path} holds no image: export it again.")
    if tiff.is_svs:
        return tiff.series[0]
    return max(tiff.series, key=lambda series: math.prod(series.shape))


def plane_axes(series: Any, path: Path) -> tuple[str, tuple[int, ...]]:
    """The axes of a series of pages that are one plane, and their lengths."""
    return one_plane(series.get_axes(False), series.get_shape(False), path)


def one_plane(axes: str, shape: tuple[int, ...], path: Path) -> tuple[str, tuple[int, ...]]:
    """The axes of one plane, YX, YXS, CYX or SYX, and their lengths; others of length 1 are dropped.

    Raises `ImageError` for a stack.

    >>> one_plane("TCZYX", (1, 3, 1, 40, 50), Path("cells.ome.tif"))
    ('CYX', (3, 40, 50))
    """
    kept = [i for i, (axis, size) in enumerate(zip(axes, shape, strict=True)) if axis in "YX" or size > 1]
    axes, shape = "".join(axes[i] for i in kept), tuple(shape[i] for i in kept)
    if axes not in ("YX", "YXS", "CYX", "SYX"):
        raise ImageError(
            f"{path} has axes {axes} of shape {shape} where one plane is needed: save one plane or a projection of it"
            " (channels belong on an axis named C)."
        )
    return axes, shape


def _check(tiff: Any, series: Any, shape: tuple[int, ...], path: Path) -> None:
    """What can be known before memory is taken: a bearable size, every byte there."""
    if math.prod(shape) > MAX_PIXELS:
        raise ImageError(
            f"{path} promises {math.prod(shape)} values, above the limit of {MAX_PIXELS}: cut it up first."
        )
    if any(page is None for page in series.pages):
        raise ImageError(f"{path} names planes that lie in other files, which are missing: save it as one file.")
    here = [page for page in series.pages if page.parent is tiff]
    ends = (o + n for page in here for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
    if max(ends, default=0) > tiff.filehandle.size:
        raise ImageError(f"{path} is cut off before its end: copy or export it again.")


def displayed(pixels: NDArray[np.generic], page: Any, *, as_indices: bool) -> NDArray[np.generic]:
    if page.photometric == _PALETTE and page.colormap is not None and not as_indices:
        colours: NDArray[np.uint16] = page.colormap[:, pixels[..., 0]]
        return np.moveaxis(colours >> 8, 0, 2).astype(np.uint8)
    # Bilevel images are left: tifffile marks every one of them MINISWHITE and stores True as 1 all the same.
    if page.photometric == _MINISWHITE and pixels.dtype.kind == "u":
        return np.asarray(np.invert(pixels))
    return pixels


def colours(page: Any, samples: int) -> int:
    """How many of a pixel's samples are colour, the rest being transparency."""
    if page.photometric in (_RGB, _YCBCR):
        return 3
    return samples - sum(extra in (1, 2) for extra in page.extrasamples)


def channel_names(tiff: Any, count: int) -> tuple[str, ...]:
    """Names of the channels; numbers where the file does not name each; empty for one channel without a name."""
    if tiff.is_ome:
        pixels = _ome_pixels(tiff)
        names = [] if pixels is None else [channel.get("Name", "") for channel in pixels.findall("{*}Channel")]
    elif tiff.is_imagej:
        labels = (tiff.imagej_metadata or {}).get("Labels") or []
        names = [labels] if isinstance(labels, str) else [str(label) for label in labels]
    else:
        names = []
    # A name is how a person picks a channel, so it must point at one.
    if len(names) == count == len(set(names)) and all(names):
        return tuple(names)
    return numbered(count) if count > 1 else ()


def numbered(count: int) -> tuple[str, ...]:
    """Names for channels that have none.

    >>> numbered(2)
    ('channel 1', 'channel 2')
    """
    return tuple(f"channel {number}" for number in range(1, count + 1))


def _ome_pixels(tiff: Any) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(tiff.ome_metadata).find("{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return None


def pixel_size(tiff: Any, page: Any) -> float | None:
    """Micrometres a pixel; None where the file does not say, or where a pixel is not square (within 1 %)."""
    if tiff.is_ome:
        found = _ome_pixels(tiff)
        if found is not None and found.get("PhysicalSizeX"):
            x = length(found.get("PhysicalSizeX"), found.get("PhysicalSizeXUnit", "µm"))
            y = length(found.get("PhysicalSizeY", found.get("PhysicalSizeX")), found.get("PhysicalSizeYUnit", "µm"))
            return square(x, y)
    tags = page.tags
    if "XResolution" not in tags or "YResolution" not in tags:
        return None
    unit = _RESOLUTION_UNITS.get(int(tags["ResolutionUnit"].value)) if "ResolutionUnit" in tags else None
    if tiff.is_imagej:
        unit = str((tiff.imagej_metadata or {}).get("unit", unit or "")).replace("\\u00B5", "µ")
    sizes = [length(_reciprocal(tags[name].value), unit) for name in ("XResolution", "YResolution")]
    size = square(*sizes)
    return size if size is not None and size <= _COARSEST else None


def _reciprocal(fraction: tuple[int, int]) -> float:
    return fraction[1] / fraction[0] if fraction[0] else 0.0


def length(value: str | float | None, unit: str | None) -> float | None:
    """A length in micrometres; None where value or unit say nothing."""
    scale = _MICROMETRES.get((unit or "").strip().lower().replace("\u03bc", "µ"))
    try:
        micrometres = float(value or 0) * (scale or 0)
    except ValueError:
        return None
    return micrometres if 0 < micrometres < math.inf else None


def square(x: float | None, y: float | None) -> float | None:
    """The side of a pixel; None where one is unknown or they differ by more than 1 %."""
    return x if x is not None and y is not None and math.isclose(x, y, rel_tol=0.01) else None
