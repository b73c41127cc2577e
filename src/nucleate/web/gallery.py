"""The images of a folder that prediction wrote to, each opened when it is first asked for."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nucleate.data.predictions import GIVE, RESUME, contents_of, some, without_result
from nucleate.errors import InputError, NucleateError
from nucleate.io.cache import Cache
from nucleate.io.label_file import read_labels
from nucleate.io.prediction_json import PredictionRecord, read_record
from nucleate.io.reader import MemoryReader, holds_outlines, is_image, open_reader
from nucleate.types import Image
from nucleate.web.measurements import Measurements
from nucleate.web.tiles import CACHED, OUTLINE_DEPTH, TILE, Colours, EntropyTiles, ImageTiles, LabelTiles
from nucleate.web.truth import TrueMasks

LABELS = ("tif", "zarr", "geojson", "roi")
"""The formats that outlines are drawn from, the preferred one first."""

FILLED = 2**24
"""Pixels; of a larger image the outlines of GeoJSON and ImageJ files, which are filled as a whole, are not shown."""

OPENED = 4
"""Images; so many stay open while a person goes through a folder of thousands."""


@dataclass(slots=True)
class Shown:
    """One image, opened: its tiles, and those of its labels, its entropy, its true labels and its measurements where
    there are any; `labels_file` is drawn, and `notes` say what cannot be shown."""

    record: PredictionRecord
    tiles: ImageTiles
    labels: LabelTiles | None = None
    labels_file: str | None = None
    truth: LabelTiles | None = None
    entropy: EntropyTiles | None = None
    measurements: Measurements | None = None
    notes: list[str] = field(default_factory=list)

    def about(self) -> dict[str, Any]:
        """What the page must know. The labels' pixel (y, x) covers the slide from ((y, x) + origin) x downsample."""
        record, layer = self.record, self._layer(self.record.shape)
        return {
            "height": self.tiles.shape[0],
            "width": self.tiles.shape[1],
            "tile": TILE,
            "depth": self.tiles.depth,
            **layer,
            "pixelSize": None if record.pixel_size is None else record.pixel_size / record.downsample,
            "count": record.count,
            "outlines": self.labels is not None,
            "outlineDepth": OUTLINE_DEPTH,
            "labelsFile": self.labels_file,
            "measured": self.measurements is not None,
            "truth": None if self.truth is None else self._layer(self.truth.labels.shape),
            "entropy": None if self.entropy is None else {**layer, "depth": self.entropy.depth},
            "notes": self.notes,
        }

    def _layer(self, shape: tuple[int, int]) -> dict[str, Any]:
        """Where a layer of this shape lies: on what was segmented, or on the whole slide."""
        record = self.record
        if shape == record.shape:
            return {"origin": record.origin, "shape": shape, "downsample": record.downsample}
        return {"origin": (0, 0), "shape": shape, "downsample": 1.0}

    def close(self) -> None:
        for layer in (self.tiles, self.labels, self.truth, self.entropy):
            if layer is not None:
                layer.close()


@dataclass(slots=True)
class _Place:
    """Where an image is opened, so that one that takes long holds up nobody who asks for another."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    shown: Shown | None = None
    users: int = 0

    def close(self) -> None:
        if self.shown is not None:
            self.shown.close()


class Gallery:
    """The predictions in a folder and the folders in it, by name; `notes` has a sentence for each record that cannot
    be used, and for images that are not finished.

    Images are asked for by their place in `names`, so that no request can name a file. Nothing is read but the files
    that the records name: those beside them, and the images; and the true masks in `truth`.

    Raises `InputError` where the folder has no prediction.
    """

    def __init__(self, folder: Path, truth: Path | None = None) -> None:
        self.notes: list[str] = []
        paths, unfinished = contents_of(folder)
        found: dict[str, tuple[Path, PredictionRecord]] = {}
        for path in paths:
            try:
                record = read_record(path)
            except InputError as error:
                self.notes.append(str(error))
            else:
                if record is not None:
                    found[path.relative_to(folder).with_suffix("").as_posix()] = path.parent, record
        if unfinished:
            self.notes.append(f"Not finished: {some(unfinished)}; {RESUME}.")
        if not found:
            raise InputError(self.notes[0] if self.notes else f"{folder} holds no prediction: {GIVE}.")
        self.folder, self.names, self._records = folder, list(found), list(found.values())
        self.notes += without_result({record.locate(place).resolve() for place, record in self._records})
        self._truth = None if truth is None else TrueMasks(truth)
        self._places: OrderedDict[int, _Place] = OrderedDict()
        self._cache, self._lock = Cache[Colours](CACHED), threading.Lock()

    @contextmanager
    def image(self, number: int) -> Iterator[Shown]:
        """The image of `names[number]`, which stays open at least as long as the `with` block.

        Raises a `NucleateError` where it is not there or cannot be opened.
        """
        if not 0 <= number < len(self.names):
            raise InputError(f"There is no image {number}.")
        with self._lock:
            place = self._places.setdefault(number, _Place())
            self._places.move_to_end(number)
            place.users += 1
        try:
            with place.lock:
                if place.shown is None:
                    place.shown = self._open(number)
            yield place.shown
        finally:
            with self._lock:
                place.users -= 1
                idle = [one for one, other in self._places.items() if not other.users]
                for one in idle[: max(0, len(self._places) - OPENED)]:
                    self._places.pop(one).close()

    def close(self) -> None:
        with self._lock:
            for place in self._places.values():
                place.close()
            self._places.clear()

    def _open(self, number: int) -> Shown:
        folder, record = self._records[number]
        image = record.locate(folder)
        if not os.path.exists(image):  # noqa: PTH110 - False for names that no system allows, too
            raise InputError(f"{image} does not exist: put the image back there, or run nucleate predict again.")
        tiles = ImageTiles(partial(open_reader, image, plane=record.plane), self._cache)
        shown = Shown(record, tiles, notes=list(record.notes))
        files = {name: folder / file for name, file in record.files.items() if (folder / file).exists()}
        try:
            self._add_layers(shown, files)
            if self._truth is not None:
                self._add_truth(shown, self.names[number], image, self._truth)
        except BaseException:
            shown.close()
            raise
        return shown

    def _add_layers(self, shown: Shown, files: dict[str, Path]) -> None:
        shape = shown.record.shape
        small = shape[0] * shape[1] <= FILLED
        written = next(
            (files[one] for one in LABELS if one in files and (small or not holds_outlines(files[one]))), None
        )
        if written is not None:
            shown.labels, shown.labels_file = _label_tiles(written), written.name
            if shown.labels.labels.shape != shape:
                raise InputError(f"{written} is not of the size that was predicted: run nucleate predict again.")
        if "csv" in files:
            shown.measurements = Measurements(files["csv"])
        if "entropy" in files:
            shown.entropy = EntropyTiles(open_reader(files["entropy"]), self._cache)
            if shown.entropy.shape != shape:
                raise InputError(
                    f"{files['entropy']} is not of the size that was predicted: run nucleate predict again."
                )

    @staticmethod
    def _add_truth(shown: Shown, name: str, image: Path, truth: TrueMasks) -> None:
        mask = truth.of(name, image.resolve())
        if mask is None:
            shown.notes.append(f"{truth.folder} has no true labels of {name}.")
            return
        try:
            labels = _label_tiles(mask, shown.tiles.shape)
        except NucleateError as error:
            shown.notes.append(str(error))
            return
        if labels.labels.shape in (shown.record.shape, shown.tiles.shape):
            shown.truth = labels
        else:
            labels.close()
            shown.notes.append(f"{mask} is not of the size of {name}: its true outlines are not shown.")


def _label_tiles(path: Path, shape: tuple[int, int] | None = None) -> LabelTiles:
    """A label image of any format; outlines are filled, in an image of this shape where they are no prediction."""
    if is_image(path):
        return LabelTiles(open_reader(path, labels=True))
    if shape is not None and shape[0] * shape[1] > FILLED:
        raise InputError(f"{path} belongs to an image of more than {FILLED} pixels: save a label image to see it here.")
    return LabelTiles(MemoryReader(Image(path.name, read_labels(path, shape)[..., None], ("labels",))))
