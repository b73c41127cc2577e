"""OME-Zarr images of any size, read by the chunks that a box touches."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from nucleate.errors import ImageError
from nucleate.io.axes import Layout, as_pixels, layout, micrometres, name_of, names_of, square
from nucleate.io.base import MOST_LEVELS, Level, chosen_image, downsample
from nucleate.io.stack import Scene, StackReader
from nucleate.io.zarr_metadata import BROKEN, read_json, version_of
from nucleate.types import Box, Pixels


class OmeZarrReader(StackReader):
    """A folder that holds an OME-Zarr image of version 0.4 or 0.5 (https://ngff.openmicroscopy.org), open.

    Axes y and x, with c, z and t before them in any order. The folder may also be one that bioformats2raw made. Of
    several images in it `series` chooses one, from 1. Pixel sizes are those of each level's scale, in the axes' unit.
    With `labels`, labels that were written beside an image are read, too, and values stay as they are stored.

    Raises:
        ImageError: the folder is missing, broken or no image (labels, a plate), has axes that are not read, no such
            level, chunks that are too large, or codecs other than those of `zarr_metadata.COMPRESSORS`.
    """

    def __init__(self, path: Path, level: int = 0, *, labels: bool = False, series: int | None = None) -> None:
        self.path, self.level, self.name, self._labels = path, level, name_of(path), labels
        images = _images(path, labels)
        folder, attributes, multiscale = images[chosen_image(series, [_name(*image) for image in images], path)]
        try:
            self._open(path, folder, attributes, multiscale)
        except BROKEN as error:
            raise ImageError(f"{path} has broken OME-Zarr metadata ({error!r}): export it again.") from error
        except OSError as error:
            raise ImageError(f"{path} cannot be read ({error.strerror}): check who may read it.") from error

    def _open(self, path: Path, folder: Path, attributes: dict[str, Any], multiscale: dict[str, Any]) -> None:
        from nucleate.io.zarr_chunks import ChunkedArray  # here, as zarr takes longer to load than most images

        datasets = multiscale["datasets"]
        if len(datasets) > MOST_LEVELS:
            raise ImageError(
                f"{path} promises {len(datasets)} levels, above the limit of {MOST_LEVELS}: export it again."
            )
        axes = _axes_of(multiscale)
        names = _letters(axes)
        # Chunks of other channels are read together with one, those of other planes are not.
        together = [place for place, name in enumerate(names) if name == "C"]
        arrays = [ChunkedArray(_inside(folder, dataset["path"]), together=together) for dataset in datasets]
        shapes = [array.shape for array in arrays]
        if any(len(shape) != len(names) or shape[:-2] != shapes[0][:-2] for shape in shapes):
            raise ValueError(f"axes {names} of shapes {shapes}")
        found = layout(names, shapes[0], path)
        if not found.axes.endswith("YX") or "S" in found.axes:
            raise ValueError(f"axes {names}")
        self.stack, self._ahead = found.stack, names[:-2]
        sizes = [(height, width) for *_, height, width in shapes]
        self.levels = tuple(Level(size, downsample(sizes[0], size)) for size in sizes)
        self.check_level()
        self._array = arrays[self.level]
        if not self._labels:  # of which none need be stored, where there is no nucleus
            self._array.check_stored()
        *_, high, wide = self._array.chunk
        self.piece = min(high, self.shape[0]), min(wide, self.shape[1])
        stored = np.zeros(0, self._array.dtype)
        self.dtype = stored.dtype if self._labels else as_pixels(stored, path).dtype
        self.channels = _channels(attributes, found.channels)
        self.pixel_size = _pixel_size(multiscale, datasets[self.level], axes)

    def read_plane(self, place: tuple[int, ...], box: Box) -> Pixels:
        self.check_inside(box)
        at = dict(zip(self.stack, place, strict=True))
        ahead = list(zip(self._ahead, self._array.shape[:-2], strict=True))
        start = [0 if axis == "C" else at.get(axis, 0) for axis, _ in ahead]
        stop = [length if axis == "C" else begin + 1 for (axis, length), begin in zip(ahead, start, strict=True)]
        values = self._array.read((*start, box.y, box.x), (*stop, box.bottom, box.right))
        pixels = np.moveaxis(values.reshape(-1, *box.shape), 0, 2)
        return np.ascontiguousarray(pixels if self._labels else as_pixels(pixels, self.path))


def is_zarr(path: Path) -> bool:
    """Whether a path is a folder with the metadata of Zarr in it."""
    try:
        return any((path / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray"))
    except OSError:
        return True  # a folder that may not be entered: that is said where it is read


def holds_labels(path: Path) -> bool:
    """Whether an OME-Zarr folder is of labels, as they are written beside an image, and no image.

    Raises `ImageError` for metadata that cannot be read.
    """
    return "image-label" in (_attributes(path) or {})


def _attributes(folder: Path) -> dict[str, Any] | None:
    """What OME-Zarr keeps with a group; None where the folder is none."""
    newer = read_json(folder / "zarr.json")
    if newer is None:
        return read_json(folder / ".zattrs")
    try:
        return dict(newer.get("attributes", {}).get("ome", {}))
    except BROKEN as error:
        raise ImageError(f"{folder} has broken OME-Zarr metadata ({error!r}): export it again.") from error


def scenes(path: Path, *, labels: bool = False) -> tuple[Scene, ...]:
    """The images in an OME-Zarr folder; raises `ImageError` as `OmeZarrReader` does."""
    try:
        return tuple(
            Scene(_name(*image), tuple(_stored_layout(path, *image).stack.items())) for image in _images(path, labels)
        )
    except BROKEN as error:
        raise ImageError(f"{path} has broken OME-Zarr metadata ({error!r}): export it again.") from error


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """Where in an OME-Zarr folder an image lies, and how: the `zarr_format` of its arrays, the letters of its `axes`,
    its part of the metadata, and the shape of each level."""

    folder: Path
    zarr_format: Literal[2, 3]
    axes: str
    multiscale: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]


def image_group(path: Path, series: int | None = None) -> ImageGroup:
    """The group of an image; raises `ImageError` as `OmeZarrReader` does."""
    images = _images(path, labels=False)
    folder, _, multiscale = images[chosen_image(series, [_name(*image) for image in images], path)]
    try:
        places = [_inside(folder, dataset["path"]) for dataset in multiscale["datasets"]]
        axes = _letters(_axes_of(multiscale))
        return ImageGroup(folder, version_of(places[0]), axes, multiscale, tuple(map(_stored_shape, places)))
    except BROKEN as error:
        raise ImageError(f"{path} has broken OME-Zarr metadata ({error!r}): export it again.") from error


def _stored_shape(array: Path) -> tuple[int, ...]:
    found = read_json(array / "zarr.json") or read_json(array / ".zarray") or {}
    return tuple(int(length) for length in found["shape"])


def _stored_layout(path: Path, folder: Path, _: dict[str, Any], multiscale: dict[str, Any]) -> Layout:
    """What the axes of an image mean, from its metadata alone."""
    names = _letters(_axes_of(multiscale))
    shape = _stored_shape(_inside(folder, multiscale["datasets"][0]["path"]))
    if len(shape) != len(names):
        raise ValueError(f"axes {names} of shape {shape}")
    return layout(names, shape, path)


def _axes_of(multiscale: dict[str, Any]) -> list[dict[str, Any]]:
    return [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale["axes"]]


def _letters(axes: list[dict[str, Any]]) -> str:
    """The axes by one letter each."""
    return "".join("C" if axis.get("type") == "channel" else str(axis["name"]).upper() for axis in axes)


_OneImage = tuple[Path, dict[str, Any], dict[str, Any]]


def _name(folder: Path, attributes: dict[str, Any], multiscale: Any) -> str:
    name = multiscale.get("name") if isinstance(multiscale, dict) else None
    return name if isinstance(name, str) else ""


def _images(path: Path, labels: bool) -> list[_OneImage]:
    """The images of a folder: for each the folder that it is in, the attributes of that, and its own part of them."""
    found = _attributes(path)
    if found is not None and "multiscales" not in found and "bioformats2raw.layout" in found:
        return [image for inner in _series_folders(path) for image in _multiscales(path, inner, labels)]
    return _multiscales(path, path, labels)


def _series_folders(path: Path) -> list[Path]:
    """The folders of the images that bioformats2raw made: those that it lists, else those named by numbers from 0."""
    listed = (_attributes(path / "OME") or {}).get("series")
    if isinstance(listed, list) and listed and all(isinstance(name, str) for name in listed):
        return [_inside(path, name) for name in listed]
    return [path / "0", *takewhile(Path.is_dir, (path / str(number) for number in count(1)))]


def _multiscales(path: Path, folder: Path, labels: bool) -> list[_OneImage]:
    """The images of one group."""
    found = _attributes(folder)
    if found is None:
        raise ImageError(f"{path} is no OME-Zarr image: give a file, or a folder that holds one.")
    if "image-label" in found and not labels:
        raise ImageError(f"{path} holds labels and no image: give the image that they are of.")
    if "plate" in found:
        raise ImageError(f"{path} holds a plate of many images: name the folder of one of them.")
    if "multiscales" not in found:
        raise ImageError(f"{path} is a Zarr folder that names no OME-Zarr image: export it as OME-Zarr 0.4 or 0.5.")
    multiscales = found["multiscales"]
    if not isinstance(multiscales, list) or not multiscales:
        raise ImageError(f"{path} has broken OME-Zarr metadata (multiscales): export it again.")
    return [(folder, found, one) for one in multiscales]


def _inside(folder: Path, name: str) -> Path:
    """The folder of this name inside of another."""
    within = PurePosixPath(name)
    place = folder / within
    outside = within.is_absolute() or ".." in within.parts or "\\" in name
    if outside or not place.resolve().is_relative_to(folder.resolve()):
        raise ImageError(f"{folder} names a part that lies outside of it ({name!r:.80}): export it again.")
    return place


def _channels(attributes: dict[str, Any], count: int) -> tuple[str, ...]:
    shown = (attributes.get("omero") or {}).get("channels") or []
    names = tuple(str(channel.get("label") or "") for channel in shown)
    return names if len(names) == count == len(set(names)) and all(names) else names_of(count)


def _pixel_size(multiscale: dict[str, Any], dataset: dict[str, Any], axes: list[dict[str, Any]]) -> float | None:
    """Micrometres a pixel of one level; None where it is not said, or where a pixel is not square."""
    sizes = [1.0, 1.0]
    for transformation in (*dataset["coordinateTransformations"], *multiscale.get("coordinateTransformations", ())):
        if transformation["type"] == "scale":
            sizes = [size * scale for size, scale in zip(sizes, transformation["scale"][-2:], strict=True)]
    return square(*(micrometres(size, axis.get("unit")) for size, axis in zip(sizes, axes[-2:], strict=True)))
