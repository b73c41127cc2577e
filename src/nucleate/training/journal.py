"""Corrections on the disk: an append-only journal, and each correction as open files.

    MODEL/corrections/000007_cells.tif, 000007_cells_masks.tif     image and mask, for any program
    MODEL/online/journal.jsonl                                     one line for each thing that happened

The files are written first and the line last, all forced to the disk: so a line stands for a correction that is whole.
Lines tell of a correction that was recorded, of one that was learnt, and that all before was undone.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from nucleate import __version__
from nucleate.data import names
from nucleate.errors import ModelError
from nucleate.io import lines
from nucleate.io.atomic import atomic
from nucleate.io.axes import RGB
from nucleate.io.label_file import read_labels
from nucleate.io.reader import read_image
from nucleate.networks.manifest import fault
from nucleate.types import Box, Image, Labels

FOLDER = "corrections"
"""Of the open files, below the model's folder."""

JOURNAL = "online/journal.jsonl"

Number = Annotated[int, Field(ge=1, lt=2**53)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Score = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Correction:
    """A correction that is on the disk: `image` and `mask` are the names of its files.

    `box` (y, x, height, width) is where it lies in a larger image; `window` are the intensities that become 0 and 1.
    """

    number: Number
    name: str
    time: str
    software: str
    image: str
    mask: str
    image_sha256: Sha256
    mask_sha256: Sha256
    nuclei: Count
    window: tuple[float, float]
    channels: tuple[str, ...]
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """What one correction did.

    `before` and `after` are the average precision at an IoU of 0.5 on the corrected tile, before it was learnt
    (prequential) and after; None where nothing was to be scored. `sentinel_before` and `sentinel` are that of the
    sentinel set. `time` is when the correction was recorded (ISO 8601, UTC), `seconds` what learning took.
    """

    number: Number
    name: str
    time: str
    nuclei: Count
    before: Score | None
    after: Score | None
    sentinel_before: Score
    sentinel: Score
    taken_back: bool
    drift: bool
    seconds: Annotated[float, Field(ge=0)]
    software: str


@dataclass(frozen=True, slots=True)
class Undo:
    """All corrections up to number `through` were undone."""

    time: str
    through: Count


_KINDS: dict[str, TypeAdapter[Any]] = {
    "correction": TypeAdapter(Correction),
    "learnt": TypeAdapter(Update),
    "undone": TypeAdapter(Undo),
}
_NAMES = {Correction: "correction", Update: "learnt", Undo: "undone"}


def now() -> str:
    """The time as the journal has it, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class Standing:
    """What the journal says now: the highest `number`, up to which all is `undone`, which corrections after that there
    are, and what of them was `learnt`, in that order."""

    number: int = 0
    undone: int = 0
    corrections: dict[int, Correction] = field(default_factory=dict)
    learnt: dict[int, Update] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Journal:
    """The corrections of the model in `folder`."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / JOURNAL

    def entries(self) -> Iterator[Correction | Update | Undo]:
        """Everything that happened, in its order.

        Raises:
            ModelError: a line was altered.
        """
        for number, line in enumerate(lines.read(self.path), 1):
            try:
                ((kind, value),) = json.loads(line).items()
                yield _KINDS[kind].validate_python(value)
            except ValidationError as error:
                raise self._altered(number, fault(error)) from error
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
                raise self._altered(number, str(error)) from error

    def _altered(self, number: int, what: str) -> ModelError:
        return ModelError(f"{self.path} was altered in line {number} ({what}): restore it from a copy.")

    def standing(self) -> Standing:
        """What there is to learn."""
        found = Standing()
        for entry in self.entries():
            if isinstance(entry, Correction):
                found.number = entry.number
                found.corrections[entry.number] = entry
            elif isinstance(entry, Update):
                found.learnt[entry.number] = entry
            else:
                found.undone = entry.through
                found.corrections, found.learnt = {}, {}
        return found

    def updates(self) -> list[Update]:
        """All updates, in their order, those that were undone among them."""
        return [entry for entry in self.entries() if isinstance(entry, Update)]

    def add(self, entry: Correction | Update | Undo) -> None:
        """Add a line; it is on the disk when this returns."""
        lines.append(self.path, json.dumps({_NAMES[type(entry)]: asdict(entry)}, allow_nan=False))

    def record(
        self, number: int, image: Image, labels: Labels, name: str, window: tuple[float, float], box: Box | None
    ) -> Correction:
        """Write a correction's files, and then its line."""
        stem = f"{number:06d}_{safe(name)}"
        parts = {f"{stem}.tif": _image_tiff(image), f"{stem}_masks.tif": _label_tiff(labels)}
        folder = self.folder / FOLDER
        for left in folder.glob(f"{number:06d}_*"):  # of a process that was killed before it wrote the line
            left.unlink()
        for file_name, content in parts.items():
            with atomic(folder / file_name) as file:
                file.write(content)
        (image_name, image_content), (mask_name, mask_content) = parts.items()
        found = Correction(
            number=number,
            name=name,
            time=now(),
            software=f"nucleate {__version__}",
            image=image_name,
            mask=mask_name,
            image_sha256=hashlib.sha256(image_content).hexdigest(),
            mask_sha256=hashlib.sha256(mask_content).hexdigest(),
            nuclei=int(np.unique(labels[labels > 0]).size),
            window=window,
            channels=image.channels,
            box=None if box is None else (box.y, box.x, box.height, box.width),
        )
        self.add(found)
        return found

    def read(self, correction: Correction) -> tuple[Image, Labels]:
        """The image and the labels of a correction, as they were recorded.

        Raises:
            ModelError: a file is missing or was altered since.
        """
        for name, sha256 in ((correction.image, correction.image_sha256), (correction.mask, correction.mask_sha256)):
            path = self.folder / FOLDER / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                raise ModelError(
                    f"{path} is missing or was changed since it was recorded, and it is not learnt yet: put it back, or"
                    " go back with --undo and give the correction anew."
                )
        image = read_image(self.folder / FOLDER / correction.image)
        return Image(correction.name, image.pixels, correction.channels, image.pixel_size), read_labels(
            self.folder / FOLDER / correction.mask
        )


def corrections_of(folder: Path) -> Path | None:
    """The folder of a model's corrections, where it has any."""
    return folder / FOLDER if any((folder / FOLDER).glob("*_masks.tif")) else None


def safe(name: str) -> str:
    """A name as part of a file's name, which is not taken for that of a mask.

    >>> safe("well A1/cells (2)"), safe("cells_masks")
    ('well_A1_cells_2', 'cells_masks_tile')
    """
    plain = re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_")[:60] or "tile"
    is_marked = names.core(f"0_{plain}") != f"0_{plain}".casefold()
    return f"{plain}_tile" if is_marked else plain


def _image_tiff(image: Image) -> bytes:
    pixels = image.pixels
    if pixels.shape[2] == 1:
        return _tiff(pixels[..., 0], image.pixel_size, photometric="minisblack")
    if image.channels == RGB and pixels.dtype == np.uint8:
        return _tiff(pixels, image.pixel_size, photometric="rgb")
    planes = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    return _tiff(planes, image.pixel_size, photometric="minisblack", metadata={"axes": "CYX"})


def _label_tiff(labels: Labels) -> bytes:
    """16 bits where they suffice; unknown pixels, -1, need a sign."""
    kind = np.uint16 if labels.min(initial=0) >= 0 and labels.max(initial=0) < 2**16 else np.int32
    return _tiff(labels.astype(kind), None, photometric="minisblack")


def _tiff(pixels: NDArray[np.generic], pixel_size: float | None, **how: Any) -> bytes:
    """Losslessly compressed; the pixel size, in micrometres, is in the resolution tags."""
    size: dict[str, Any] = {}
    if pixel_size is not None:
        size = {"resolution": (1e4 / pixel_size, 1e4 / pixel_size), "resolutionunit": "centimeter"}
    with io.BytesIO() as file:
        tifffile.imwrite(file, pixels, byteorder="<", compression="zlib", software="nucleate", **how, **size)
        return file.getvalue()
