"""A model and image files -> label images, tables, outlines and overlays."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from nucleate import __version__
from nucleate.errors import DatasetError, InputError, NucleateError, OutputError
from nucleate.inference.block_store import MemorySpool
from nucleate.inference.image_input import Source, View, open_source
from nucleate.inference.instances import SpooledNuclei
from nucleate.inference.pipeline import Plan, Stream
from nucleate.inference.predictor import Predictor, is_small
from nucleate.inference.resume import digest, fingerprint, folder_of, open_work, refuse_unfinished
from nucleate.io.axes import name_of
from nucleate.io.formats import FORMATS, entropy_tiff
from nucleate.io.prediction_json import PredictionRecord, read_record, record_file, write_record
from nucleate.networks.runtime import keep_memory
from nucleate.report.overlay import write_overlay
from nucleate.types import Image

SMALLEST_TILE, LARGEST_TILE = 64, 4096
"""Pixels; the side of a tile."""

DRAWN = 4096
"""Pixels; the longest side of what an overlay is drawn of."""

_FOUND = 0.9  # of the work on an image, where writing begins

Observe = Callable[[Path, float, float], None]
"""Is told of an image which share of the work on it is done, and how many megapixels it has."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of each image: what of it (`view`), in tiles of how many pixels a side, in which formats, with
    which additions; `resume` goes on with what an interrupted run left.

    Raises `InputError` for a tile out of range and for an unknown format.
    """

    view: View = field(default_factory=View)
    tile: int = 1024
    formats: tuple[str, ...] = ("tif", "csv")
    overlay: bool = False
    entropy: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if not SMALLEST_TILE <= self.tile <= LARGEST_TILE:
            raise InputError(f"--tile is {self.tile}: give pixels, from {SMALLEST_TILE} to {LARGEST_TILE}.")
        for name in self.formats:
            if name not in FORMATS:
                raise InputError(f"There is no --format {name}: choose from {', '.join(FORMATS)}, with commas between.")
        if not self.formats:
            raise InputError(f"--format is empty: choose from {', '.join(FORMATS)}, with commas between.")

    def identity(self) -> dict[str, Any]:
        """What the nuclei depend on, for JSON."""
        view = self.view
        region = None if view.region is None else asdict(view.region)
        return {
            "level": view.level,
            "pixel size": view.pixel_size,
            "region": region,
            "tile": self.tile,
            "entropy": self.entropy,
        }


@dataclass(slots=True)
class Summary:
    """What `predict` did: nuclei by image; a sentence for each image that could not be done, and for what else there is
    to say; by image, how many nuclei reach as far as is looked at."""

    nuclei: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bounded: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Done:
    """One image that is done."""

    count: int
    megapixels: float = 0.0
    bounded: int = 0
    notes: tuple[str, ...] = ()


_LARGE = "large"  # of an image that is not done together with others


def predict(
    predictor: Predictor,
    images: Sequence[Path],
    out: Path,
    request: Request | None = None,
    *,
    observe: Observe | None = None,
) -> Summary:
    """Segment each image into `out`: the files of `request.formats`, NAME.json, which says what they are of, and, on
    request, NAME_entropy.tif and NAME_overlay.png.

    An image that cannot be used is noted and the others are done; an output that cannot be written ends the run.
    Of many small images, one more is in work at once than the network has threads, each on one of them, as one may wait
    for the disk; large ones follow one after the other. What is known of a large image is kept in the folder .NAME.work
    of `out` until it is done.
    """
    request = request or Request()
    _prepare(images, out, request)
    keep_memory()
    summary, results = Summary(), dict[Path, _Done | str]()
    for path, result in _results(predictor, images, out, request, observe):
        results[path] = result
        if observe is not None:
            observe(path, 1.0, result.megapixels if isinstance(result, _Done) else 0.0)
    for path in images:
        result = results[path]
        if isinstance(result, str):
            summary.failed.append(result)
            continue
        summary.nuclei[name_of(path)] = result.count
        summary.notes += result.notes
        if result.bounded:
            summary.bounded[name_of(path)] = result.bounded
    return summary


def _prepare(images: Sequence[Path], out: Path, request: Request) -> None:
    names = [name_of(path) for path in images]
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DatasetError(
            f"{count} images are named {name}, and their results would overwrite each other: rename them."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made ({error.strerror}): choose another --out.") from error
    if not request.resume:
        for name in names:
            refuse_unfinished(out, name)


def _results(
    predictor: Predictor, images: Sequence[Path], out: Path, request: Request, observe: Observe | None
) -> Iterator[tuple[Path, _Done | str]]:
    """Each image and what became of it, as they are done."""
    threads = torch.get_num_threads()
    count, each = (threads + 1, 1) if len(images) > threads else (1, threads)
    large = []
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(each,)) as pool:
            work = [pool.submit(_predict_one, predictor, path, out, request) for path in images]
            try:
                for path, done in zip(images, work, strict=True):
                    result = done.result()
                    if result == _LARGE:
                        large.append(path)
                    else:
                        yield path, result
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
    for path in large:
        yield path, _predict_one(predictor, path, out, request, alone=True, observe=observe)


def _predict_one(
    predictor: Predictor,
    path: Path,
    out: Path,
    request: Request,
    *,
    alone: bool = False,
    observe: Observe | None = None,
) -> _Done | str:
    """One image; why it could not be done; or `_LARGE`, where it is and is not `alone`."""
    try:
        with closing(_Work(predictor, path, out, request, observe)) as work:
            return work.do() if alone or work.small else _LARGE
    except OutputError:
        raise
    except NucleateError as error:
        return str(error)


class _Work:
    """One image, open, on its way to its files."""

    def __init__(self, predictor: Predictor, path: Path, out: Path, request: Request, observe: Observe | None) -> None:
        self.predictor, self.path, self.out, self.request = predictor, path, out, request
        self.name = name_of(path)
        self.source: Source = open_source(path, request.view)
        region = self.source.region
        self.megapixels = region.height * region.width / 1e6
        self.small = is_small(self.source.reader)
        self._observe = observe

    def close(self) -> None:
        self.source.reader.close()

    def tell(self, share: float) -> None:
        if self._observe is not None:
            self._observe(self.path, share, self.megapixels)

    def do(self) -> _Done:
        request, source, reader = self.request, self.source, self.source.reader
        identity = {
            "version": __version__,
            "image": fingerprint(self.path),
            **self.predictor.identity(),
            **request.identity(),
        }
        mark = digest(identity)
        known = self._known(mark) if request.resume else None
        if known is not None:
            return _Done(known, self.megapixels)
        spool = MemorySpool() if self.small else open_work(self.out, self.name, identity)
        tile = max(reader.shape) if self.small else request.tile
        plan = Plan(source.region, tile, entropy=request.entropy)
        stream = self.predictor.stream(reader, spool, plan, lambda share: self.tell(_FOUND * share))
        nuclei = stream.nuclei(
            self.name, downsample=reader.levels[reader.level].downsample, pixel_size=source.pixel_size
        )
        notes = [source.note] if source.note else []
        if request.overlay and max(nuclei.shape) > DRAWN:
            notes.append(f"{self.path} is too large for an overlay: look at it with nucleate view {self.out}.")
        self._write(stream, nuclei, mark)
        done = _Done(nuclei.count, self.megapixels, nuclei.bounded(), tuple(notes))
        if not self.small:
            shutil.rmtree(folder_of(self.out, self.name), ignore_errors=True)
        return done

    def _known(self, mark: str) -> int | None:
        """How many nuclei an earlier run found, if it was done with all that is asked for."""
        try:
            record = read_record(self.out / record_file(self.name))
        except InputError:
            return None
        wanted = self._files()
        if self.request.overlay or record is None or record.identity != mark or wanted.items() - record.files.items():
            return None
        return record.count if all((self.out / file).exists() for file in wanted.values()) else None

    def _files(self) -> dict[str, str]:
        """The files to write, by what they hold."""
        files = {name: FORMATS[name].file(self.name) for name in FORMATS if name in self.request.formats}
        return files | ({"entropy": self.name + entropy_tiff.ENDING} if self.request.entropy else {})

    def _write(self, stream: Stream, nuclei: SpooledNuclei, mark: str) -> None:
        files, region = self._files(), self.source.region
        for done, (name, file) in enumerate(files.items()):
            path = self.out / file

            def tell(share: float, done: int = done) -> None:
                self.tell(_FOUND + (1 - _FOUND) * (done + share) / len(files))

            if name in FORMATS:
                FORMATS[name].write(path, nuclei, tell)
            else:
                entropy_tiff.write(path, region, stream.entropy, pixel_size=nuclei.pixel_size, observe=tell)
        write_record(
            self.out / record_file(self.name),
            PredictionRecord.of(nuclei, self.path, self.source.reader.level, files, mark),
        )
        if self.request.overlay and max(nuclei.shape) <= DRAWN:
            reader = self.source.reader
            image = Image(self.name, reader.read(region), reader.channels)
            whole = nuclei.read(type(region)(0, 0, *region.shape))
            write_overlay(self.out / f"{self.name}_overlay.png", image, whole.astype("int32"))
