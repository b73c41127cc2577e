"""The images of a folder that prediction wrote to, each opened when it is first asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nucleate.errors import InputError, NucleateError
from nucleate.io.cache import Cache
from nucleate.io.ome_zarr import is_zarr
from nucleate.io.prediction_json import PredictionRecord, read_record
from nucleate.io.reader import open_reader
from nucleate.web.tiles import CACHED, OUTLINE_DEPTH, TILE, Colours, ImageTiles, LabelTiles, Measurements

LABELS = ("tif", "zarr")
"""The formats that outlines are drawn from, the preferred one first."""

_GIVE = "give the --out of nucleate predict"


@dataclass(frozen=True, slots=True)
class Shown:
    """One image, opened: its tiles, and those of its labels and its measurements where they were written."""

    record: PredictionRecord
    tiles: ImageTiles
    labels: LabelTiles | None
    measurements: Measurements | None

    def about(self) -> dict[str, Any]:
        """What the page must know. The labels' pixel (y, x) covers the slide from ((y, x) + origin) x downsample."""
        record = self.record
        return {
            "height": self.tiles.shape[0],
            "width": self.tiles.shape[1],
            "tile": TILE,
            "depth": self.tiles.depth,
            "origin": record.origin,
            "shape": record.shape,
            "downsample": record.downsample,
            "pixelSize": None if record.pixel_size is None else record.pixel_size / record.downsample,
            "count": record.count,
            "outlines": self.labels is not None,
            "outlineDepth": OUTLINE_DEPTH,
            "measured": self.measurements is not None,
        }

    def close(self) -> None:
        self.tiles.close()
        if self.labels is not None:
            self.labels.close()


class Gallery:
    """The predictions in a folder, by name; `problems` has a sentence for each record that cannot be used.

    Images are asked for by their place in `names`, so that no request can name a file. Nothing is read but the files
    that the records name: those in the folder itself, and the images.

    Raises `InputError` where the folder has no prediction.
    """

    def __init__(self, folder: Path) -> None:
        records: dict[str, PredictionRecord] = {}
        self.problems: list[str] = []
        try:
            paths = [folder / name for name in sorted(_records_in(folder))]
        except OSError as error:
            raise InputError(f"{folder} cannot be read ({error.strerror}): {_GIVE}.") from error
        for path in paths:
            try:
                record = read_record(path)
            except InputError as error:
                self.problems.append(str(error))
            else:
                if record is not None:
                    records[path.relative_to(folder).with_suffix("").as_posix()] = record
        if not records:
            raise InputError(self.problems[0] if self.problems else f"{folder} holds no prediction: {_GIVE}.")
        self.folder, self.names, self._records = folder, list(records), list(records.values())
        self._opened: dict[int, Shown] = {}
        self._cache, self._lock = Cache[Colours](CACHED), threading.Lock()

    def __getitem__(self, number: int) -> Shown:
        """The image of `names[number]`; raises a `NucleateError` where it is not there or cannot be opened."""
        if not 0 <= number < len(self.names):
            raise InputError(f"There is no image {number}.")
        with self._lock:
            if number not in self._opened:
                place = self.folder / self.names[number]
                self._opened[number] = self._open(self._records[number], place.parent)
            return self._opened[number]

    def close(self) -> None:
        with self._lock:
            for shown in self._opened.values():
                shown.close()
            self._opened.clear()

    def _open(self, record: PredictionRecord, folder: Path) -> Shown:
        """Open an image by its record, which lies in that folder."""
        tiles = ImageTiles(partial(open_reader, record.locate(folder), series=record.series), self._cache)
        files = {name: folder / file for name, file in record.files.items() if (folder / file).exists()}
        try:
            written = next((files[name] for name in LABELS if name in files), None)
            labels = None if written is None else LabelTiles(open_reader(written, labels=True))
            if labels is not None and labels.labels.shape != record.shape:
                labels.close()
                raise InputError(f"{written} is not of the size that was predicted: run nucleate predict again.")
        except NucleateError:
            tiles.close()
            raise
        return Shown(record, tiles, labels, Measurements(files["csv"]) if "csv" in files else None)


def _records_in(folder: Path) -> Iterator[str]:
    """The JSON files in a folder and in those that it holds, where plates have their own, by their place in it. Folders
    that are hidden or a Zarr are left out."""
    for place in folder.iterdir():
        if place.suffix == ".json" and place.is_file():
            yield place.name
        elif place.is_dir() and not (place.is_symlink() or place.name.startswith(".") or is_zarr(place)):
            with suppress(OSError):
                yield from (f"{place.name}/{name}" for name in _records_in(place))
