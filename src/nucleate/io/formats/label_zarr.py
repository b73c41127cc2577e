"""Labels as OME-Zarr 0.5: a pyramid of chunks, each level every second pixel of the one before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nucleate.io.atomic import atomic_folder
from nucleate.io.formats.label_tiff import label_type
from nucleate.io.formats.progress import Observe, observed
from nucleate.io.instances import Instances
from nucleate.types import Box

CHUNK = 1024
"""Pixels; the side of a chunk. The pyramid ends with the first level that fits into one."""


def write(path: Path, nuclei: Instances, observe: Observe | None = None) -> None:
    """Write the labels as an image-label group (https://ngff.openmicroscopy.org/0.5) in the Zarr 3 format.

    Levels above the first hold every second pixel, never a mean, so that each value is a nucleus' number. Scale and
    translation place the labels on the whole segmented level, in micrometres where the pixel size is known. Chunks of
    background are not stored. No more than 2048 x 2048 labels are in memory at once.
    """
    import zarr  # here, as it takes long to load
    from zarr.codecs import ZstdCodec

    shapes = _shapes(nuclei.shape)
    dtype = label_type(nuclei.count)
    with atomic_folder(path, holds="zarr.json") as folder:
        group = zarr.create_group(folder, zarr_format=3)
        levels = [
            group.create_array(
                str(number),
                shape=shape,
                dtype=dtype,
                chunks=(min(CHUNK, shape[0]), min(CHUNK, shape[1])),
                compressors=ZstdCodec(level=5),
                fill_value=0,
                dimension_names=("y", "x"),
            )
            for number, shape in enumerate(shapes)
        ]
        work = [(number, box) for number, shape in enumerate(shapes) for box in _chunks(shape)]
        for number, box in observed(work, len(work), observe):
            here: Any = (slice(box.y, box.bottom), slice(box.x, box.right))
            below: Any = (slice(2 * box.y, 2 * box.bottom, 2), slice(2 * box.x, 2 * box.right, 2))
            levels[number][here] = nuclei.read(box).astype(dtype) if number == 0 else levels[number - 1][below]
        # Last, so that a reader who meets the passing folder does not take it for whole.
        group.attrs["ome"] = _metadata(nuclei, len(shapes))


def _metadata(nuclei: Instances, levels: int) -> dict[str, Any]:
    size = nuclei.pixel_size or 1.0
    unit = {"unit": "micrometer"} if nuclei.pixel_size else {}
    place = [begin * size for begin in nuclei.origin]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": [size * 2**number] * 2},
                {"type": "translation", "translation": place},
            ],
        }
        for number in range(levels)
    ]
    multiscale = {
        "name": nuclei.name.encode("utf-8", "backslashreplace").decode("utf-8"),
        "axes": [{"name": axis, "type": "space", **unit} for axis in "yx"],
        "datasets": datasets,
        "type": "nearest",
    }
    return {"version": "0.5", "multiscales": [multiscale], "image-label": {"version": "0.5"}}


def _shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """The (height, width) of each level.

    >>> _shapes((3000, 1025))
    [(3000, 1025), (1500, 513), (750, 257)]
    """
    shapes = [shape]
    while max(shapes[-1]) > CHUNK:
        shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
    return shapes


def _chunks(shape: tuple[int, int]) -> Iterator[Box]:
    height, width = shape
    for y in range(0, height, CHUNK):
        for x in range(0, width, CHUNK):
            yield Box(y, x, min(CHUNK, height - y), min(CHUNK, width - x))
