"""What a TIFF, OME-TIFF or ImageJ TIFF file says of its image: which of its pages, axes, colours, names, pixel size."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.axes import Layout, layout, micrometres, numbered, square

# What tifffile logs on its way to an error, the error says; without a handler it would land on the terminal.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_RESOLUTION_UNITS = {2: "inch", 3: "cm"}
_COARSEST = 20.0  # micrometres a pixel; above it no nucleus shows, and the tag is a printer's (72, 96, 300 dpi)
_SLIDES = ("scn", "qpi", "ndpi", "bif", "avs", "philips", "sis")  # formats of which one image is the slide
_PHOTOGRAPH = re.compile(r"\b(label|macro|overview|preview|thumbnail)\b", re.IGNORECASE)
_THUMBNAIL = 16  # times smaller, where the format does not say what a page is
_MINISWHITE, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_NOT_LIGHT = {
    4: "a transparency mask",
    5: "inks for printing (CMYK)",
    8: "CIE L*a*b*",
    9: "CIE L*a*b* (ICC)",
    10: "CIE L*a*b* (ITU)",
    32803: "a colour filter array of a camera",
    32844: "the logarithm of light (LogL)",
    32845: "the logarithm of light (LogLuv)",
    34892: "raw numbers of a camera",
}


def images_of(tiff: Any, path: Path) -> list[Any]:
    """The images of a file, each a series of pages: several where it holds several positions of a stage. None of them
    is a thumbnail, a label or a photograph of the slide; of a slide it is the largest, or the first where the format
    says so."""
    if not tiff.series:
        raise ImageError(f"{path} holds no image: export it again.")
    said = int((tiff.imagej_metadata or {}).get("images", 1)) if tiff.is_imagej else 1
    if said > len(tiff.pages) and tiff.series[0].kind != "imagej":
        raise ImageError(
            f"{path} says that it holds {said} planes and holds {len(tiff.pages)}: copy or export it again."
        )
    if tiff.is_svs:
        return [tiff.series[0]]
    largest = max(tiff.series, key=lambda series: math.prod(series.shape))
    if any(getattr(tiff, f"is_{slide}", False) for slide in _SLIDES):
        return [largest]
    return [series for series in tiff.series if series is largest or not _shows_others(series, largest)]


def _shows_others(series: Any, largest: Any) -> bool:
    """Whether a series shows again, smaller, what another does; or the slide it is on."""
    if series.keyframe.is_reduced or _PHOTOGRAPH.search(series.name):
        return True
    return bool(series.kind == "generic" and _THUMBNAIL * math.prod(series.shape) < math.prod(largest.shape))


def series_layout(series: Any, path: Path) -> Layout:
    """What the axes of a series of pages, or of one level of it, mean."""
    return layout(series.get_axes(False), series.get_shape(False), path)


def refuse_printing(page: Any, path: Path) -> None:
    """Raise `ImageError` for colours that are no light: inks (CMYK), CIE L*a*b* and their like."""
    if page.photometric in _NOT_LIGHT:
        raise ImageError(f"{path} has colours as {_NOT_LIGHT[page.photometric]}: save it as RGB.")


def displayed(pixels: NDArray[np.generic], page: Any, *, as_indices: bool, as_stored: bool) -> NDArray[np.generic]:
    """Pixels (height, width, samples) as they are meant to be seen: a palette becomes its colours, unless its indices
    are what counts, and where white is stored as 0 (MINISWHITE), values are turned round, but for labels `as_stored`:
    of whole numbers the lowest of their type becomes the highest, and floats become 1 - x."""
    if page.photometric == _PALETTE and page.colormap is not None and not as_indices:
        colours: NDArray[np.uint16] = page.colormap[:, pixels[..., 0]]
        return np.moveaxis(colours >> 8, 0, 2).astype(np.uint8)
    # Bilevel images are left: tifffile marks every one of them MINISWHITE and stores True as 1 all the same.
    if page.photometric == _MINISWHITE and not as_stored and pixels.dtype.kind in "iuf":
        return np.asarray(1 - pixels if pixels.dtype.kind == "f" else np.invert(pixels))
    return pixels


def colours(page: Any, samples: int) -> int:
    """How many of a pixel's samples are colour, the rest being transparency."""
    if page.photometric in (_RGB, _YCBCR):
        return 3
    return samples - sum(extra in (1, 2) for extra in page.extrasamples)


def channel_names(tiff: Any, count: int, series: Any = None) -> tuple[str, ...]:
    """Names of the channels of a series; numbers where the file does not name each; empty for one without a name."""
    if tiff.is_ome:
        pixels = _ome_pixels(tiff, series)
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


def _ome_pixels(tiff: Any, series: Any = None) -> ElementTree.Element | None:
    """What OME says of a series; of the first one, where it does not name as many as there are."""
    try:
        every = ElementTree.fromstring(tiff.ome_metadata).findall("{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return None
    if series is not None and len(every) == len(tiff.series):
        return next(pixels for pixels, one in zip(every, tiff.series, strict=True) if one is series)
    return every[0] if every else None


def pixel_size(tiff: Any, page: Any, series: Any = None) -> float | None:
    """Micrometres a pixel; None where the file does not say, or where a pixel is not square (within 1 %)."""
    if tiff.is_ome:
        found = _ome_pixels(tiff, series)
        if found is not None and found.get("PhysicalSizeX"):
            x = micrometres(found.get("PhysicalSizeX"), found.get("PhysicalSizeXUnit", "µm"))
            y = micrometres(
                found.get("PhysicalSizeY", found.get("PhysicalSizeX")), found.get("PhysicalSizeYUnit", "µm")
            )
            return square(x, y)
    tags = page.tags
    if "XResolution" not in tags or "YResolution" not in tags:
        return None
    unit = _RESOLUTION_UNITS.get(int(tags["ResolutionUnit"].value)) if "ResolutionUnit" in tags else None
    if tiff.is_imagej:
        unit = str((tiff.imagej_metadata or {}).get("unit", unit or "")).replace("\\u00B5", "µ")
    sizes = [micrometres(_reciprocal(tags[name].value), unit) for name in ("XResolution", "YResolution")]
    size = square(*sizes)
    return size if size is not None and size <= _COARSEST else None


def _reciprocal(fraction: tuple[int, int]) -> float:
    return fraction[1] / fraction[0] if fraction[0] else 0.0
