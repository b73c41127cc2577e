"""LIF files of Leica's LAS X, read by the package `liffile` (https://github.com/cgohlke/liffile) frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.io.axes import micrometres, square
from nucleate.io.microscopes.reader import Frame, MicroscopeImage
from nucleate.types import Box

_DESCRIPTION = "./Data/Image/ImageDescription"


class LifFile:
    """A LIF file, open: its series are its images."""

    by_boxes = False

    def __init__(self, path: Path) -> None:
        import liffile  # here, as it need not be installed

        self._file = liffile.LifFile(path)

    def describe(self) -> None:
        self._images = [image for image in self._file.images if not image.is_flim]
        if not self._images:
            raise ValueError("it holds no image")
        self.images = tuple(_image(one) for one in self._images)

    def read(self, image: int, place: Mapping[str, int], _: Box) -> Frame:
        found = self._images[image]
        return np.asarray(found.frame(**{axis: n for axis, n in place.items() if axis in found.sizes}))

    def close(self) -> None:
        self._file.close()


def _image(image: Any) -> MicroscopeImage:
    element = image.xml_element
    sizes = {
        one.get("DimID"): micrometres(_step(one), one.get("Unit"))
        for one in element.findall(f"{_DESCRIPTION}/Dimensions/DimensionDescription")
    }
    names = tuple(
        _dye(one) or one.get("LUTName", "") for one in element.findall(f"{_DESCRIPTION}/Channels/ChannelDescription")
    )
    return MicroscopeImage(image.path, image.sizes, names, square(sizes.get("1"), sizes.get("2")))


def _dye(channel: Any) -> str | None:
    """The name of the dye of a channel, where the file has it."""
    known = {one.findtext("Key"): one.findtext("Value") for one in channel.findall("ChannelProperty")}
    return known.get("DyeName")


def _step(dimension: Any) -> float:
    """From the middle of one element of an axis to that of the next; its length is from the first to the last."""
    return abs(float(dimension.get("Length", 0))) / max(1, int(dimension.get("NumberOfElements", 1)) - 1)
