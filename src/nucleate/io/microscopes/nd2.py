"""ND2 files of Nikon's NIS-Elements, read by the package `nd2` (https://github.com/tlambert03/nd2) frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nucleate.errors import ImageError
from nucleate.io.axes import square
from nucleate.io.microscopes.reader import Frame, MicroscopeImage, only
from nucleate.types import Box

_POSITIONS = "P"


class Nd2File:
    """An ND2 file, open: its positions are its images; a frame holds all channels of a plane."""

    by_boxes = False

    def __init__(self, path: Path) -> None:
        import nd2  # here, as it need not be installed

        self._path, self._file = path, nd2.ND2File(path)

    def describe(self) -> None:
        lengths = dict(self._file.sizes)
        positions = lengths.pop(_POSITIONS, 1)
        self._shape = lengths.get("C", 1), lengths.get("Y", 1), lengths.get("X", 1), lengths.get("S", 1)
        lengths |= {"Y": self._shape[1], "X": self._shape[2]}
        ahead = {axis: n for axis, n in lengths.items() if axis not in "YXS"}
        lengths = {**ahead, **only(lengths, "Y", "X", "S")}
        self._frames = {tuple(sorted(at.items())): number for number, at in enumerate(self._file.loop_indices)}
        self._loops = self._file.loop_indices[0].keys() if self._frames else ()
        size = self._file.voxel_size()
        channels = tuple(one.channel.name for one in self._file.metadata.channels or ())
        known = square(size.x, size.y) if size.x > 0 and self._is_calibrated() else None
        self.images = tuple(
            MicroscopeImage(name, lengths, () if "S" in lengths else channels, known) for name in self._names(positions)
        )

    def _is_calibrated(self) -> bool:
        """Whether micrometres a pixel are more than what stands for nothing."""
        channels = self._file.metadata.channels or ()
        return all(one.volume.axesCalibrated[0] for one in channels if one.volume is not None)

    def _names(self, positions: int) -> list[str]:
        points = [one.parameters.points for one in self._file.experiment if one.type == "XYPosLoop"]
        names = [point.name or "" for point in points[0]] if points else []
        return names if len(names) == positions else [""] * positions

    def read(self, image: int, place: Mapping[str, int], _: Box) -> Frame:
        at = {axis: image if axis == _POSITIONS else place.get(axis, 0) for axis in self._loops}
        found = np.asarray(self._file.read_frame(self._frames.get(tuple(sorted(at.items())), 0)))
        if not found.any():  # the package gives zeros for what is not in the file
            raise ImageError(
                f"{self._path} has a frame without any light, at {dict(at)}: it was not acquired, or lost."
            )
        channels, height, width, samples = self._shape
        frame = found.reshape(channels, height, width, samples)
        return np.array(frame[0] if samples > 1 else np.moveaxis(frame[..., 0], 0, 2))

    def close(self) -> None:
        self._file.close()
