"""What files say about their pixels, in one form: axes, names of channels, types of numbers, pixel sizes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.types import Pixels

MOST_CHANNELS = 1024
"""Channels of an image that is read."""

GREY = ("grey",)
RGB = ("red", "green", "blue")

_MICROMETRES = {
    **dict.fromkeys(("m", "meter"), 1e6),
    **dict.fromkeys(("cm", "centimeter"), 1e4),
    **dict.fromkeys(("mm", "millimeter"), 1e3),
    **dict.fromkeys(("µm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer"), 1e-3),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("pm", "picometer"), 1e-6),
    **dict.fromkeys(("inch", "in"), 25400.0),
}


def name_of(path: Path) -> str:
    """The name of the image in a file: the file's name without its ending.

    >>> name_of(Path("a/cells.ome.tif")), name_of(Path("a/plate.1.png")), name_of(Path("a/cells.geojson.gz"))
    ('cells', 'plate.1', 'cells')
    """
    stem = path.stem
    return stem[:-4] if stem.lower().endswith(".ome") else stem[:-8] if stem.lower().endswith(".geojson") else stem


def names_of(channels: int) -> tuple[str, ...]:
    """The names of so many channels in a file that does not name them.

    >>> names_of(1), names_of(2), names_of(3)
    (('grey',), ('channel 1', 'channel 2'), ('red', 'green', 'blue'))
    """
    return {1: GREY, 3: RGB}.get(channels) or numbered(channels)


def numbered(channels: int) -> tuple[str, ...]:
    """Names for channels that have none.

    >>> numbered(2)
    ('channel 1', 'channel 2')
    """
    return tuple(f"channel {number}" for number in range(1, channels + 1))


_COUNTER = re.compile(r"(?<![a-z0-9])(?:c|ch|channel|t|w|z)[\s:=_#-]*\d+(?:/\d+)?(?!\d)", re.IGNORECASE)


def uncounted(name: str) -> str:
    """The name of a channel without the counters that programs add to it; the name itself where nothing else is in it.

    >>> uncounted("DAPI - c:1/2"), uncounted("w1Hoechst 33342"), uncounted("channel 2")
    ('DAPI', 'Hoechst 33342', 'channel 2')
    """
    return _COUNTER.sub(" ", name).strip(" \t-_:,;/|") or name


@dataclass(frozen=True, slots=True)
class Layout:
    """What the axes of an image mean: the (height, width) of its planes, the lengths of the axes that make it a `stack`
    (Z, T, or the file's own letter of an axis that it does not name), in the file's order, and `channels`, which are
    axes C or S."""

    axes: str
    lengths: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return self.lengths[self.axes.index("Y")], self.lengths[self.axes.index("X")]

    @property
    def stack(self) -> dict[str, int]:
        return {axis: n for axis, n in zip(self.axes, self.lengths, strict=True) if axis not in "CSYX"}

    @property
    def channels(self) -> int:
        return math.prod(n for axis, n in zip(self.axes, self.lengths, strict=True) if axis in "CS")


UNNAMED = "IQ"
"""Axes of which a TIFF file says no more than that there are several pages."""

_OTHERS = {
    "A": "angles",
    "E": "wavelengths",
    "H": "lifetimes",
    "L": "exposures",
    "M": "tiles of a mosaic",
    "P": "phases or positions",
    "R": "tiles",
    "V": "events",
}


def layout(axes: str, shape: tuple[int, ...], path: Path) -> Layout:
    """What the axes of an image mean; those of length 1 are dropped, but for Y and X.

    Raises:
        ImageError: for axes of another meaning, in an order in which planes are not whole, and for more channels than
            `MOST_CHANNELS`.

    >>> layout("TCZYX", (5, 3, 1, 40, 50), Path("cells.ome.tif"))
    Layout(axes='TCYX', lengths=(5, 3, 40, 50))
    """
    kept = [i for i, (axis, size) in enumerate(zip(axes, shape, strict=True)) if axis in "YX" or size > 1]
    axes, shape = "".join(axes[i] for i in kept), tuple(shape[i] for i in kept)
    where = f"{path} has axes {axes} of shape {shape}"
    if other := next((axis for axis in axes if axis in _OTHERS), None):
        raise ImageError(f"{where}, and {_OTHERS[other]} ({other}) are not read: save one of them.")
    if not axes.removesuffix("S").endswith("YX") or len(set(axes)) < len(axes) or set(axes) - set("TZCSYX" + UNNAMED):
        raise ImageError(f"{where}, which is no order that is read: save it with the axes TZCYX.")
    if "C" in axes and "S" in axes:
        raise ImageError(f"{where}, colours in each of several channels: save each channel, or the colours, alone.")
    found = Layout(axes, shape)
    if found.channels > MOST_CHANNELS:
        raise ImageError(
            f"{path} promises {found.channels} channels, above the limit of {MOST_CHANNELS}: export it again."
        )
    return found


def as_pixels(values: NDArray[np.generic], where: object) -> Pixels:
    """Values in a type that pixels have: 8 and 16 bit stay, a bilevel image becomes 0 and 255, others float32.

    Raises:
        ImageError: naming `where`, for what is no number, NaN or infinite.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.dtype.kind not in "uif":
        raise ImageError(f"{where} has pixels of type {values.dtype}: save them as 8-bit, 16-bit or float numbers.")
    refuse_not_finite(values, where)
    with np.errstate(over="ignore"):
        pixels = values.astype(np.float32)
    refuse_not_finite(pixels, where)
    return pixels


def refuse_not_finite(values: NDArray[np.generic], where: object) -> None:
    """Raise `ImageError` naming `where` for values that are NaN or infinite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        raise ImageError(f"{where} holds {count} values that are NaN or infinite: replace them before using it.")


def micrometres(value: str | float | None, unit: str | None) -> float | None:
    """A length in micrometres; None where value or unit say nothing.

    >>> micrometres("250", "nm"), micrometres(1, "pixel")
    (0.25, None)
    """
    scale = _MICROMETRES.get((unit or "").strip().lower().replace("\u03bc", "µ"))
    try:
        length = float(value or 0) * (scale or 0)
    except ValueError:
        return None
    return length if 0 < length < math.inf else None


def square(x: float | None, y: float | None) -> float | None:
    """The side of a pixel; None where one is unknown or they differ by more than 1 %."""
    return x if x is not None and y is not None and math.isclose(x, y, rel_tol=0.01) else None
