"""CZI files of Zeiss' ZEN, read by the package `pylibCZIrw` of Zeiss (https://pypi.org/project/pylibCZIrw), which puts
together the tiles that a box touches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from nucleate.io.axes import square
from nucleate.io.microscopes.reader import Frame, MicroscopeImage, only
from nucleate.types import Box

_IMAGE = "./Metadata/Information/Image/Dimensions"
_OTHERS = {"H": "H", "I": "A", "B": "P", "V": "A", "R": "R"}
"""Axes of a CZI that are not read, by the letters of `io.axes`: phases, illuminations and views, rotations."""


class CziFile:
    """A CZI file, open: its scenes are its images."""

    by_boxes = True

    def __init__(self, path: Path) -> None:
        from pylibCZIrw import czi  # here, as it need not be installed

        self._open = ExitStack()
        self._file = self._open.enter_context(czi.open_czi(str(path)))

    def describe(self) -> None:
        scenes: dict[int, Any] = dict(self._file.scenes_bounding_rectangle)
        whole = self._file.total_bounding_rectangle
        self._scenes: list[tuple[int | None, Any]] = [*scenes.items()] or [(None, whole)]
        bounds = {axis: end - begin for axis, (begin, end) in self._file.total_bounding_box.items()}
        self._first = {axis: begin for axis, (begin, _) in self._file.total_bounding_box.items()}
        types = set(self._file.pixel_types.values())
        if len(types) > 1:
            raise ValueError(f"its channels are of several types, {', '.join(sorted(types))}")
        self._colour = types.pop().startswith("Bgr")
        root = ElementTree.fromstring(self._file.raw_metadata)
        sizes = {
            one.get("Id"): float(one.findtext("Value") or 0) * 1e6 for one in root.iterfind(".//Scaling//Distance")
        }
        names = tuple(one.get("Name", "") for one in root.iterfind(f"{_IMAGE}/Channels/Channel"))
        titles = {one.get("Index"): one.get("Name", "") for one in root.iterfind(f"{_IMAGE}/S/Scenes/Scene")}
        ahead = {_OTHERS.get(axis, axis): bounds[axis] for axis in "HIBVRTZC" if bounds.get(axis, 1) > 1}
        self.images = tuple(
            MicroscopeImage(
                titles.get(str(number), ""),
                {**ahead, "Y": int(place.h), "X": int(place.w), **({"S": 3} if self._colour else {})},
                () if self._colour else names,
                square(sizes.get("X") or None, sizes.get("Y") or None),
            )
            for number, place in self._scenes
        )

    def read(self, image: int, place: Mapping[str, int], box: Box) -> Frame:
        scene, whole = self._scenes[image]
        at = {axis: number + self._first.get(axis, 0) for axis, number in only(place, "T", "Z", "C").items()}
        roi = (whole.x + box.x, whole.y + box.y, box.width, box.height)
        found = np.array(self._file.read(roi=roi, plane=at, scene=scene))
        return found[..., ::-1] if self._colour else found

    def close(self) -> None:
        self._open.close()
