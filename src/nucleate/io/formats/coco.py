"""COCO: one JSON file with the nuclei of many images, as polygons or as run-length encoded masks.

Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; https://cocodataset.org/#format-data. A crowd
(`iscrowd`) is a part of the image in which objects were not told apart: it is unknown. The category is not looked at:
every annotation is a nucleus.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.axes import name_of
from nucleate.io.files import reading
from nucleate.io.formats import qupath, rle
from nucleate.io.formats.painting import Canvas
from nucleate.types import Labels

NUCLEUS = {"id": 1, "name": "nucleus"}
"""The category that is written."""


@dataclass(frozen=True, slots=True)
class Coco:
    """A COCO file: the entry of each image by its file's name, and the annotations by the ids of images."""

    path: Path
    images: Mapping[str, Mapping[str, Any]]
    annotations: Mapping[Any, Sequence[Mapping[str, Any]]]
    _alike: Mapping[str, Sequence[str]]

    def of(self, image: Path) -> str | None:
        """The name that an image has in the file, with the folders that both name; None where it is not in it."""
        parts = image.parts
        same = self._alike.get(image.name) or self._alike.get(name_of(image), ())
        longest = [name for name in same if parts[-len(_parts(name)) :] == _parts(name)]
        found = max(longest, key=lambda name: len(_parts(name)), default=None)
        return found if found is not None else same[0] if len(same) == 1 else None


def is_coco(value: Any) -> bool:
    """Whether the value of a JSON file is COCO."""
    return isinstance(value, dict) and isinstance(value.get("images"), list) and "annotations" in value


def load(path: Path) -> Coco:
    """A COCO file; the one that was read last is kept, as it is asked for once for each image.

    Raises:
        ImageError: it cannot be read, or is no COCO.
    """
    with reading(path):
        found = path.stat()
    return _load(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=2)
def _load(path: Path, _time: int, _size: int) -> Coco:
    return parse(qupath.load(path), path)


def parse(value: Any, path: Path) -> Coco:
    """The value of a COCO file; raises `ImageError` where it is none."""
    try:
        images = {str(image["file_name"]): image for image in value["images"]}
        of = defaultdict[Any, list[Mapping[str, Any]]](list)
        for one in value["annotations"]:
            of[one["image_id"]].append(one)
        alike = defaultdict[str, list[str]](list)
        for name in images:
            for key in {_parts(name)[-1], name_of(Path(_parts(name)[-1]))}:
                alike[key].append(name)
        if not all(image["id"] is not None for image in images.values()):
            raise ValueError("an image without an id")
        if len({image["id"] for image in images.values()}) < len(value["images"]):
            raise ValueError("two images of one name or one id")
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"{path} is no COCO file of images and annotations ({error!r:.200}): export it again."
        ) from error
    return Coco(path, images, dict(of), dict(alike))


def paint(coco: Coco, name: str, shape: tuple[int, int] | None = None) -> tuple[Labels, tuple[str, ...]]:
    """The labels of one image of a COCO file, in the order of its annotations, and what is odd about them.

    Args:
        coco: the file.
        name: the image's, one of `coco.images`.
        shape: (height, width) of the image, which must be what the file says; by default what the file says.

    Raises:
        ImageError: the image has another size, or an annotation is broken.
    """
    entry = coco.images[name]
    try:
        said = int(entry["height"]), int(entry["width"])
        if shape is not None and said != shape:
            raise ImageError(
                f"{coco.path} says that {name} is {said[1]} x {said[0]} pixels, and it is {shape[1]} x {shape[0]}:"
                " export the annotations of this image again."
            )
        canvas, crowd = Canvas(said, coco.path), Canvas(said, coco.path)
        for one in coco.annotations.get(entry["id"], ()):
            if one.get("iscrowd"):
                _add(crowd, one["segmentation"])
            else:
                _add(canvas, one["segmentation"])
        labels = np.where(crowd.labels > 0, -1, canvas.labels).astype(np.int32)
        return labels, canvas.notes()
    except (AttributeError, KeyError, MemoryError, OverflowError, TypeError, ValueError) as error:
        raise ImageError(f"{coco.path} has a broken annotation of {name} ({error!r:.200}): export it again.") from error


def entry(labels: Labels, number: int, first: int) -> list[dict[str, Any]]:
    """The annotations of a label image: each nucleus, in the order of the labels, and as a crowd what is unknown.

    Args:
        labels: 0 background, 1..N one nucleus each, negative unknown.
        number: the id of the image.
        first: the id of the first annotation.
    """
    down = labels.T.ravel()
    order = np.argsort(down, kind="stable")
    values, begins = np.unique(down[order], return_index=True)
    parts = np.split(order, begins[1:])
    unknown = [part for value, part in zip(values, parts, strict=True) if value < 0]
    masks = [(part, 0) for value, part in zip(values, parts, strict=True) if value > 0]
    masks += [(np.sort(np.concatenate(unknown)), 1)] if unknown else []
    return [
        _annotation(places, labels.shape, crowd, number, place)
        for place, (places, crowd) in enumerate(masks, start=first)
    ]


def _annotation(
    places: NDArray[np.int64], shape: tuple[int, ...], crowd: int, image: int, number: int
) -> dict[str, Any]:
    height, width = shape
    columns, rows = np.divmod(places, height)
    return {
        "id": number,
        "image_id": image,
        "category_id": NUCLEUS["id"],
        "iscrowd": crowd,
        "area": places.size,
        "bbox": [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1],
        "segmentation": {"size": [height, width], "counts": rle.pack(rle.encode(places, height * width))},
    }


def _add(canvas: Canvas, segmentation: Any) -> None:
    """Paint an annotation: run-length encoded, or polygons, of all of which it consists."""
    if not isinstance(segmentation, dict):
        canvas.add(*([_ring(corners)] for corners in segmentation))
        return
    height, width = canvas.shape
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"a mask of {segmentation['size']} pixels")
    canvas.add_pixels(rle.decode(segmentation["counts"], height, width))


def _ring(corners: Any) -> NDArray[np.float64]:
    ring = np.asarray(corners, np.float64).reshape(-1, 2)
    if not np.isfinite(ring).all():
        raise ValueError("coordinates that are not finite")
    return ring


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts
