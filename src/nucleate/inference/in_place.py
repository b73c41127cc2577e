"""The labels of OME-Zarr images written into the images, from those that a prediction wrote to its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.inference.request import Request
from nucleate.inference.sources import Source
from nucleate.inference.summary import Failed, ImageResult
from nucleate.io.formats import FORMATS, label_zarr_in_place
from nucleate.io.ome_zarr import ImageGroup, image_group, is_zarr
from nucleate.io.reader import Reader, open_reader
from nucleate.types import Box


@dataclass(frozen=True, slots=True)
class InPlace:
    """An OME-Zarr image, and the source of each of its planes, by the places of its axes before Y and X, channels left
    out."""

    group: ImageGroup
    planes: dict[tuple[int, ...], Source]


def images(sources: Sequence[Source], *, overwrite: bool) -> tuple[list[InPlace], list[str]]:
    """The images whose every plane is segmented, and a sentence for each of the others.

    Raises:
        OutputError: an image has such labels that Nucleate did not write.
    """
    found, notes = list[InPlace](), list[str]()
    together: dict[tuple[Path, int | None], list[Source]] = {}
    for source in sources:
        together.setdefault((source.path, source.plane.series), []).append(source)
    for (path, series), planes in together.items():
        if not path.is_dir() or not is_zarr(path):
            notes.append(f"{path} is no OME-Zarr: its labels lie in --out alone.")
            continue
        try:
            group = image_group(path, series)
        except ImageError:
            continue  # what is wrong with it is said where it is opened
        label_zarr_in_place.refuse_replacing(group, overwrite=overwrite)
        lengths = {axis: n for axis, n in zip(group.axes[:-2], group.shapes[0], strict=False) if axis != "C"}
        places = {_place(one, lengths): one for one in planes}
        if set(places) == set(product(*map(range, lengths.values()))):
            found.append(InPlace(group, {place: one for place, one in places.items() if place is not None}))
        else:
            notes.append(
                f"{path} is a stack and not segmented plane by plane (--z each, --t each): nothing is written in place."
            )
    return found, notes


def _place(source: Source, lengths: Mapping[str, int]) -> tuple[int, ...] | None:
    """Where in its image a source is; None of a projection, and of one whose plane is not known before it is read."""
    said = {"Z": source.plane.z, "T": source.plane.t}
    numbers = [1 if length == 1 else said.get(axis) for axis, length in lengths.items()]
    return tuple(n - 1 for n in numbers if isinstance(n, int)) if all(isinstance(n, int) for n in numbers) else None


def write(found: Sequence[InPlace], results: Mapping[str, ImageResult], out: Path, request: Request) -> None:
    """Write the labels of each image whose planes are all done."""
    kind = "tif" if "tif" in request.formats else "zarr"
    for image in found:
        counts = [one.count for source in image.planes.values() if not isinstance(one := results[source.name], Failed)]
        if len(counts) < len(image.planes):
            continue
        with ExitStack() as stack:
            readers: dict[tuple[int, ...], Callable[[Box], NDArray[np.integer]]] = {}
            for place, source in image.planes.items():
                path = source.folder(out) / FORMATS[kind].file(source.stem)
                readers[place] = partial(_labels, stack.enter_context(open_reader(path, labels=True)))
            label_zarr_in_place.write(image.group, readers, max(counts))


def _labels(reader: Reader, box: Box) -> NDArray[np.integer]:
    return np.asarray(reader.read(box)[..., 0], np.uint32)
