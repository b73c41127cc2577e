"""A data set written anew in the layout of another program, from any layout that `data.dataset.find` knows.

    nucleate   images/NAME, masks/NAME.tif              negative numbers are unknown
    cellpose   NAME, NAME_masks.tif                     what is unknown becomes background
    nnunet     imagesTr/NAME_0000.tif, labelsTr/NAME.tif, dataset.json
               classes: 0 background, 1 nucleus, 2 where nuclei touch, 3 unknown; instancesTr/NAME.tif has the numbers
    qupath     images/NAME, annotations/NAME.geojson    detections; what is unknown has the class Ignore*
    coco       images/NAME, annotations.json            run-length encoded; what is unknown is a crowd

Images are copied byte for byte where they are files that the layout takes, else written as TIFF.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleate.data.dataset import find
from nucleate.data.inspect import Looked, look
from nucleate.data.masks import Masks
from nucleate.errors import DatasetError, ImageError, InputError
from nucleate.io.atomic import atomic_folder, write_text
from nucleate.io.formats import coco, geojson
from nucleate.io.formats.image_tiff import write_image, write_labels
from nucleate.types import Labels

LAYOUTS = ("nucleate", "cellpose", "nnunet", "qupath", "coco")
"""The layouts by the names that `nucleate convert --to` takes."""

_TOUCHING, _IGNORED = 2, 3
_VALIDATION = "validation"


@dataclass(slots=True)
class Converted:
    """What was written: how many images, and nuclei in their masks; `notes` say what was left out or is odd."""

    images: int = 0
    nuclei: int = 0
    notes: list[str] = field(default_factory=list)


def convert(folder: Path, out: Path, to: str = "nucleate", masks: Masks = "auto") -> Converted:
    """Write the data set in `folder` to `out`, whole or not at all; images without masks are copied, too.

    What rectangles of the class Validation set aside is written to `out/validation`, in the same layout; in that of
    QuPath it stays a rectangle.

    Args:
        folder: in any layout that `nucleate check` knows.
        out: a folder that is not there yet, or is empty.
        to: one of `LAYOUTS`.
        masks: how masks are taken; see `data.masks`.

    Raises:
        InputError: there is no such layout.
        DatasetError: `folder` is no data set, or a mask surely is a mistake.
        OutputError: `out` holds something, or cannot be written.
    """
    if to not in LAYOUTS:
        raise InputError(f"There is no --to {to}: choose one of {', '.join(LAYOUTS)}.")
    dataset = find(folder)
    done = Converted(notes=list(dataset.notes))
    samples = sorted((*dataset.labelled, *dataset.unlabelled), key=lambda sample: sample.name)
    with atomic_folder(out, holds="") as passing:
        writer = _Writer(passing, to)
        for sample in samples:
            try:
                looked = look(sample, masks, strict=True)
            except ImageError as error:
                done.notes.append(f"{sample.name} is left out: {error}")
                continue
            for mistake in looked.mistakes:
                raise DatasetError(mistake.sentence(str(sample.mask)))
            done.notes += [f"{sample.name}: {oddity}" for oddity in looked.oddities]
            done.notes += writer.add(looked)
            done.images += 1
            done.nuclei += looked.areas.size
        writer.finish()
        if not done.images:
            raise DatasetError(f"No image of {folder} can be read. {done.notes[-1]}")
    return done


class _Writer:
    """One data set in one layout, image by image."""

    def __init__(self, out: Path, to: str) -> None:
        self._out, self._to = out, to
        self._names = set[str]()
        self._coco: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": [coco.NUCLEUS]}
        self._cases = list[tuple[str, bool]]()
        self._channels: tuple[str, ...] = ()
        self._held: _Writer | None = None

    def add(self, looked: Looked) -> list[str]:
        """Write one image with its labels, and say what the layout cannot hold."""
        labels, held = looked.labels, looked.validation
        if labels is not None and held is not None and self._to != "qupath":
            self._held = self._held or _Writer(self._out / _VALIDATION, self._to)
            notes = self._held.write(looked, np.where(held, labels, -1).astype(np.int32))
            labels = np.where(held, -1, labels).astype(np.int32)
            return notes + self.write(looked, labels)
        return self.write(looked, labels)

    def finish(self) -> None:
        """Write what is about all images."""
        if self._to == "coco":
            write_text(
                self._out / "annotations.json", json.dumps(self._coco, ensure_ascii=False, allow_nan=False) + "\n"
            )
        if self._to == "nnunet" and self._cases:
            ignore = {"ignore": _IGNORED} if any(unknown for _, unknown in self._cases) else {}
            described = {
                "channel_names": {str(number): name for number, name in enumerate(self._channels)},
                "labels": {"background": 0, "nucleus": 1, "touching": _TOUCHING, **ignore},
                "numTraining": len(self._cases),
                "file_ending": ".tif",
            }
            write_text(self._out / "dataset.json", json.dumps(described, indent=2, ensure_ascii=False) + "\n")
        if self._held is not None:
            self._held.finish()

    def write(self, looked: Looked, labels: Labels | None) -> list[str]:
        name = self._free(looked.sample.name.replace("/", "_"))
        writers: dict[str, Callable[[Looked, str, Labels | None], list[str]]] = {
            "nucleate": self._nucleate,
            "cellpose": self._cellpose,
            "nnunet": self._nnunet,
            "qupath": self._qupath,
            "coco": self._in_coco,
        }
        return writers[self._to](looked, name, labels)

    def _free(self, name: str) -> str:
        """The name, or with a number where another image has it: A/1 and A_1."""
        free, number = name, 1
        while free.casefold() in self._names:
            number += 1
            free = f"{name}_{number}"
        self._names.add(free.casefold())
        return free

    def _copy(self, looked: Looked, folder: Path, name: str) -> Path:
        source = looked.sample.image
        path = folder / f"{name}{source.suffix if source.is_file() else '.tif'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            path = path.with_name(name + ".ome" + source.suffix) if source.stem.lower().endswith(".ome") else path
            shutil.copyfile(source, path)
        else:
            write_image(path, looked.image)
        return path

    def _nucleate(self, looked: Looked, name: str, labels: Labels | None) -> list[str]:
        self._copy(looked, self._out / "images", name)
        if labels is not None:
            write_labels(self._out / "masks" / f"{name}.tif", labels, looked.image.pixel_size)
        return []

    def _cellpose(self, looked: Looked, name: str, labels: Labels | None) -> list[str]:
        self._copy(looked, self._out, name)
        if labels is None:
            return []
        write_labels(self._out / f"{name}_masks.tif", np.maximum(labels, 0), looked.image.pixel_size)
        unknown = int(np.count_nonzero(labels < 0))
        return [f"{name}: {unknown} unknown pixels became background, as Cellpose has none."] if unknown else []

    def _nnunet(self, looked: Looked, name: str, labels: Labels | None) -> list[str]:
        if labels is None:
            write_image(self._out / "imagesTs" / f"{name}_0000.tif", looked.image)
            return []
        self._channels = looked.image.channels if len(looked.image.channels) == 1 else ("image",)
        write_image(self._out / "imagesTr" / f"{name}_0000.tif", looked.image)
        write_labels(self._out / "labelsTr" / f"{name}.tif", classes(labels), looked.image.pixel_size)
        write_labels(self._out / "instancesTr" / f"{name}.tif", labels, looked.image.pixel_size)
        self._cases.append((name, bool((labels < 0).any())))
        return []

    def _qupath(self, looked: Looked, name: str, labels: Labels | None) -> list[str]:
        self._copy(looked, self._out / "images", name)
        if labels is not None:
            features = drawn(labels, looked.validation)
            lines = ",\n".join(json.dumps(one, allow_nan=False) for one in features)
            text = f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'
            write_text(self._out / "annotations" / f"{name}.geojson", text)
        return []

    def _in_coco(self, looked: Looked, name: str, labels: Labels | None) -> list[str]:
        path = self._copy(looked, self._out / "images", name)
        if labels is not None:
            images, found = self._coco["images"], self._coco["annotations"]
            height, width = labels.shape
            images.append({"id": len(images) + 1, "file_name": path.name, "width": width, "height": height})
            found += coco.entry(labels, len(images), len(found) + 1)
        return []


def classes(labels: Labels) -> Labels:
    """Classes of pixels, from which a network that knows no instances can tell them: 0 background, 1 nucleus, 2 where
    two nuclei touch, diagonally or not, 3 unknown.

    >>> classes(np.array([[1, 1, 2, 2, 0, -1]])).tolist()
    [[1, 2, 2, 1, 0, 3]]
    """
    high = np.where(labels > 0, labels, 0)
    low = np.where(labels > 0, labels, np.iinfo(np.int32).max)
    touching = ndimage.maximum_filter(high, 3) > ndimage.minimum_filter(low, 3)
    found = (labels > 0).astype(np.int32)
    found[(labels > 0) & touching] = _TOUCHING
    found[labels < 0] = _IGNORED
    return found


def drawn(labels: Labels, validation: NDArray[np.bool_] | None = None) -> list[dict[str, Any]]:
    """A label image as the objects of QuPath: a detection for each nucleus, in the order of their numbers, and
    annotations of the class Ignore* for what is unknown, or of Training and Validation where a part is for that.

    >>> [one["properties"]["objectType"] for one in drawn(np.array([[0, 7, -1]]))]
    ['detection', 'annotation']
    """
    features = [
        geojson.shape(labels[box] == number + 1, box[0].start, box[1].start, "detection", geojson.CLASSIFICATION)
        for number, box in enumerate(ndimage.find_objects(np.maximum(labels, 0)))
        if box is not None
    ]
    parts = {"Ignore*": labels < 0}
    if validation is not None:
        parts = {"Training": (labels >= 0) & ~validation, "Validation": (labels >= 0) & validation}
    features += [
        geojson.shape(part, 0, 0, "annotation", {"name": name, "color": [128, 128, 128]})
        for name, part in parts.items()
        if part.any()
    ]
    return features
