"""Images to try the widget on: drawn when they are asked for, so nothing is downloaded."""

from __future__ import annotations

from typing import Any

from nucleate.data.synthetic import fluorescence, tissue
from nucleate.types import Image, Labels

LayerData = tuple[Any, dict[str, Any], str]
"""A layer as napari takes it: the array, the arguments of the layer, and its kind."""

SIDE = 512
"""Pixels; the drawn images are square."""


def fluorescence_sample() -> list[LayerData]:
    """Bright nuclei on a dark ground, and their true labels, which are hidden at first.

    >>> [(data.shape, options["name"], kind) for data, options, kind in fluorescence_sample()]
    [((512, 512), 'fluorescence', 'image'), ((512, 512), 'fluorescence, true nuclei', 'labels')]
    """
    return _layers("fluorescence", fluorescence(1, SIDE, SIDE))


def tissue_sample() -> list[LayerData]:
    """A section of tissue in haematoxylin and eosin, and its true labels, which are hidden at first.

    >>> [(data.shape, options["name"], kind) for data, options, kind in tissue_sample()]
    [((512, 512, 3), 'tissue', 'image'), ((512, 512), 'tissue, true nuclei', 'labels')]
    """
    return _layers("tissue", tissue(1, SIDE, SIDE))


def _layers(name: str, drawn: tuple[Image, Labels]) -> list[LayerData]:
    image, labels = drawn
    return [
        picture(image.pixels, {"name": name}),
        (labels, {"name": f"{name}, true nuclei", "visible": False}, "labels"),
    ]


def picture(pixels: Any, options: dict[str, Any]) -> LayerData:
    """Pixels (height, width, channels) as a layer: in colour where there are three channels of 8 bits, else each
    channel on its own slider."""
    channels = pixels.shape[2]
    if channels == 1:
        return pixels[..., 0], options, "image"
    if channels == 3 and pixels.dtype == "uint8":
        return pixels, {**options, "rgb": True}, "image"
    return pixels, {**options, "channel_axis": 2}, "image"
