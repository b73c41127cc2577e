"""Labels inside the OME-Zarr image that they are of: its group labels/nuclei, with the levels and axes of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import OutputError
from nucleate.io.atomic import atomic_folder, write_json
from nucleate.io.formats.label_tiff import label_type
from nucleate.io.ome_zarr import ImageGroup
from nucleate.io.zarr_metadata import BROKEN, read_json
from nucleate.types import Box

NAME = "nuclei"
"""Of the labels, below labels/ of the image."""

CHUNK = 1024
"""Pixels; the side of a chunk."""

_OURS = {"program": "nucleate"}
"""Under `metadata` of the labels, by which they are known again."""

ReadLabels = Callable[[Box], NDArray[np.integer]]


def place_of(group: ImageGroup) -> Path:
    """Where the labels of an image lie."""
    return group.folder / "labels" / NAME


def refuse_replacing(group: ImageGroup, *, overwrite: bool) -> None:
    """Raise `OutputError` where the image has labels of this name that Nucleate did not write."""
    place = place_of(group)
    try:
        found = _attributes(place, group)["multiscales"][0].get("metadata")
    except BROKEN:
        found = None
    if place.exists() and found != _OURS and not overwrite:
        raise OutputError(
            f"{place} is there already and nucleate did not write it: rename it, or replace it with --overwrite."
        )


def write(group: ImageGroup, planes: Mapping[tuple[int, ...], ReadLabels], highest: int) -> None:
    """Write labels as an image-label group of the version of the image (https://ngff.openmicroscopy.org/0.5), and name
    it among the labels of the image.

    They have the axes of the image but for its channels, and its levels, so that a label covers what it covers in the
    image at each of them. Levels hold the nearest label of the one before, never a mean. No more than the labels of
    some chunks are in memory at once.

    Args:
        group: the image.
        planes: for each place of the axes before Y and X, channels left out, what reads the labels of a box.
        highest: no label is above it.

    Raises:
        OutputError: the labels cannot be written.
    """
    import zarr  # here, as it takes long to load

    kept = [place for place, axis in enumerate(group.axes) if axis != "C"]
    shapes = [tuple(shape[place] for place in kept) for shape in group.shapes]
    ahead = len(kept) - 2
    version, holds = group.zarr_format, "zarr.json" if group.zarr_format == 3 else ".zattrs"
    with atomic_folder(place_of(group), holds=holds) as folder:
        root: Any = zarr.create_group(folder, zarr_format=version)
        levels = [
            root.create_array(
                dataset["path"],
                shape=shape,
                dtype=label_type(highest),
                chunks=(*[1] * ahead, min(CHUNK, shape[-2]), min(CHUNK, shape[-1])),
                fill_value=0,
                chunk_key_encoding={"name": "default" if version == 3 else "v2", "separator": "/"},
                dimension_names=[group.axes[place].lower() for place in kept] if version == 3 else None,
            )
            for dataset, shape in zip(group.multiscale["datasets"], shapes, strict=True)
        ]
        for place, read in planes.items():
            for number, array in enumerate(levels):
                for box in _chunks(array.shape[-2:]):
                    values = read(box) if number == 0 else _nearest(levels[number - 1], place, box, array.shape[-2:])
                    array[(*place, slice(box.y, box.bottom), slice(box.x, box.right))] = values
        # Last, so that a reader who meets the passing folder does not take it for whole.
        _describe(root, group, kept)
    _name_among_labels(group)


def _nearest(above: Any, place: tuple[int, ...], box: Box, shape: tuple[int, int]) -> Any:
    """A box of a level of this shape, from the one above it."""
    rows, columns = (
        ((np.arange(start, start + side) + 0.5) * whole / own).astype(np.intp)
        for start, side, whole, own in zip((box.y, box.x), box.shape, above.shape[-2:], shape, strict=True)
    )
    part = above[(*place, slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))]
    return part[np.ix_(rows - rows[0], columns - columns[0])]


def _describe(root: Any, group: ImageGroup, kept: list[int]) -> None:
    number = "0.5" if group.zarr_format == 3 else "0.4"
    multiscale = {
        "name": NAME,
        "axes": [group.multiscale["axes"][place] for place in kept],
        "datasets": [
            {"path": one["path"], "coordinateTransformations": _without_channels(one, kept)}
            for one in group.multiscale["datasets"]
        ],
        "type": "nearest",
        "metadata": _OURS,
    }
    if "coordinateTransformations" in group.multiscale:
        multiscale["coordinateTransformations"] = _without_channels(group.multiscale, kept)
    label = {"version": number, "source": {"image": "../../"}}
    if group.zarr_format == 3:
        root.attrs["ome"] = {"version": number, "multiscales": [multiscale], "image-label": label}
    else:
        root.attrs.update({"multiscales": [{"version": number, **multiscale}], "image-label": label})


def _without_channels(owner: Mapping[str, Any], kept: list[int]) -> list[dict[str, Any]]:
    """Scales and translations of an image for axes that lack its channels."""
    found = []
    for one in owner["coordinateTransformations"]:
        lists = {name: [value[place] for place in kept] for name, value in one.items() if isinstance(value, list)}
        found.append({**one, **lists})
    return found


def _attributes(folder: Path, group: ImageGroup) -> dict[str, Any]:
    if group.zarr_format == 3:
        return dict(((read_json(folder / "zarr.json") or {}).get("attributes") or {}).get("ome") or {})
    return dict(read_json(folder / ".zattrs") or {})


def _name_among_labels(group: ImageGroup) -> None:
    """List the labels in the group of all labels of the image, beside those that are there."""
    folder = group.folder / "labels"
    found = _attributes(folder, group)
    names = [one for one in found.get("labels", []) if one != NAME] + [NAME]
    if group.zarr_format == 3:
        ome = {"version": "0.5", **found, "labels": names}
        write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}})
    else:
        write_json(folder / ".zgroup", {"zarr_format": 2})
        write_json(folder / ".zattrs", {**found, "labels": names})


def _chunks(shape: tuple[int, int]) -> Iterator[Box]:
    for y in range(0, shape[0], CHUNK):
        for x in range(0, shape[1], CHUNK):
            yield Box(y, x, min(CHUNK, shape[0] - y), min(CHUNK, shape[1] - x))
