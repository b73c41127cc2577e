"""Arrays of any library as images: numpy, torch, dask, zarr, h5py, lists, whatever has `__array__`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.axes import as_pixels, names_of
from nucleate.io.base import Level, Reader
from nucleate.types import Box, Pixels

_SIDE = 512  # pixels of an array that are read at once, where it does not say how it is stored


class ArrayReader(Reader):
    """An array as an image, of which any box can be read; only that much of it is converted to numpy at a time.

    Args:
        array: (H, W), or (H, W, C), or with `channel_axis` the channels on that axis. Numbers of any type; a bool is 0
            or 255.
        channel_axis: 0, 1 or 2 (or -1) of an array of three axes; the last by default.
        name: what the image is called in sentences.
        pixel_size: micrometres a pixel, if known.

    Raises:
        ImageError: the array has another number of axes, no pixels, or values that are no numbers. Values that are NaN
            or infinite are refused when they are read.

    >>> reader = ArrayReader(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), channel_axis=0)
    >>> reader.shape, reader.channels, reader.read(Box(1, 2, 1, 2)).tolist()
    ((3, 4), ('channel 1', 'channel 2'), [[[6, 18], [7, 19]]])
    """

    def __init__(
        self, array: Any, channel_axis: int | None = None, *, name: str = "array", pixel_size: float | None = None
    ) -> None:
        self._array = _sliceable(array)
        shape = tuple(int(side) for side in self._array.shape)
        if len(shape) not in (2, 3):
            raise ImageError(
                f"The array has {len(shape)} axes (shape {shape}): give one image of shape (H, W) or (H, W, C), or"
                " (C, H, W) with channel_axis=0."
            )
        if channel_axis is not None and (len(shape) == 2 or not -3 <= channel_axis < 3):
            raise ImageError(
                f"channel_axis={channel_axis} does not fit an array of shape {shape}: give one of its axes."
            )
        if 0 in shape:
            raise ImageError(f"The array of shape {shape} has no pixels: give an image.")
        self._axis = None if len(shape) == 2 else (-1 if channel_axis is None else channel_axis) % 3
        sides = [side for axis, side in enumerate(shape) if axis != self._axis]
        self.name, self.path, self.pixel_size = name, None, pixel_size
        self.levels, self.level = (Level((sides[0], sides[1]), 1.0),), 0
        self.channels = names_of(1 if self._axis is None else shape[self._axis])
        self.piece = min(_SIDE, sides[0]), min(_SIDE, sides[1])
        self.dtype = self.read(Box(0, 0, 1, 1)).dtype

    def read(self, box: Box) -> Pixels:
        self.check_inside(box)
        place: list[slice] = [slice(box.y, box.bottom), slice(box.x, box.right)]
        if self._axis is not None:
            place.insert(self._axis, slice(None))
        values: NDArray[np.generic] = np.asarray(self._array[tuple(place)])
        values = values[..., None] if self._axis is None else np.moveaxis(values, self._axis, 2)
        return np.ascontiguousarray(as_pixels(values, f"The {self.name}"))


def _sliceable(array: Any) -> Any:
    """Something with a shape whose slices `numpy.asarray` takes."""
    if type(array).__module__.partition(".")[0] == "torch":
        array = array.detach().cpu()
        return array.float() if array.dtype.is_floating_point and array.dtype.itemsize < 4 else array
    if hasattr(array, "shape") and hasattr(array, "__getitem__"):
        return array
    try:
        return np.asarray(array)
    except ValueError as error:  # rows of different length
        raise ImageError(
            f"What was given is no array ({error}): give an image of shape (H, W) or (H, W, C)."
        ) from error
