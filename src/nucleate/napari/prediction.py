"""From a layer of napari to the nuclei in it: which plane is meant, what is computed, and where the labels lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nucleate.errors import ImageError
from nucleate.napari.samples import LayerData
from nucleate.sentences import count

MODELS = ("fluorescence", "brightfield")
"""The models of the package."""

SMALLEST_TILE, LARGEST_TILE, TILE = 64, 4096, 1024
"""Pixels; as of `nucleate predict --tile`."""


class Cancelled(Exception):
    """A person has ended the work."""


@dataclass(frozen=True, slots=True)
class Plane:
    """What is segmented of a layer: the array `data`, (Y, X) or, in colour, (Y, X, C), and where it lies.

    `before` are the places on the axes before Y and X, of which the plane is one; `options` what the layer of labels
    takes over, as scale and translation of all axes.
    """

    name: str
    data: Any
    before: tuple[int, ...]
    options: dict[str, Any]

    @classmethod
    def of(cls, layer: Any, point: Sequence[float]) -> Plane:
        """The plane of an image layer that is shown.

        Args:
            layer: of napari, with any number of axes; the last two are Y and X. Of one at several resolutions the
                finest is taken.
            point: where the sliders stand, in the units of the viewer, one number for each axis of it.

        Raises:
            ImageError: the layer has no plane.
        """
        axes = layer.ndim
        if axes < 2:
            raise ImageError(f"The layer {layer.name} has one axis alone: choose an image.")
        data = layer.data[0] if layer.multiscale else layer.data
        place = np.rint(layer.world_to_data(tuple(point)[-axes:])).astype(int)[:-2]
        before = tuple(int(min(max(step, 0), length - 1)) for step, length in zip(place, data.shape, strict=False))
        translate = np.array(layer.translate, dtype=float)
        translate[:-2] += np.multiply(before, layer.scale[:-2])
        options = {
            "scale": tuple(layer.scale),
            "translate": tuple(translate),
            "rotate": layer.rotate,
            "shear": layer.shear,
            "affine": layer.affine,
            "units": layer.units,
            "axis_labels": layer.axis_labels,
        }
        return cls(layer.name, data[before], before, options)

    def labels(self, found: Any) -> LayerData:
        """The nuclei of a `nucleate.Result` as a layer over the plane, with their measurements as its features."""
        table = found.table
        features = {"index": table["id"], **{name: table[name] for name in table.dtype.names if name != "id"}}
        labels = found.labels.reshape((1,) * len(self.before) + found.shape)
        options = {"name": f"{self.name} nuclei", "features": features if len(found) else None}
        return labels, {**self.options, **options, "metadata": {"notes": found.notes}}, "labels"


class Finder:
    """Finds nuclei with the model that was asked for last, which is kept."""

    def __init__(self) -> None:
        self._loaded: tuple[str, Any] = "", None

    def find(self, model: str, plane: Plane, tile: int, tell: Callable[[float], None]) -> tuple[LayerData, list[str]]:
        """The layer of the nuclei in a plane, and sentences for the person who asked.

        Args:
            model: a model folder, or one of `MODELS`.
            plane: what is segmented.
            tile: pixels; the side of the tiles of a large image. No result depends on it.
            tell: is told the share that is done; what it raises ends the work.

        Raises:
            NucleateError: the model or the image cannot be used.
        """
        import nucleate

        tell(0.0)
        if self._loaded[0] != model:
            self._loaded = model, nucleate.load(model)
        tell(0.0)
        found = self._loaded[1].segment(plane.data, tile=tile, observe=tell)
        return plane.labels(found), [f"{count(len(found), 'nucleus', 'nuclei')}.", *found.notes]
