"""A model and image files -> label images, tables, outlines and overlays."""

from __future__ import annotations

import shutil
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nucleate.errors import DatasetError, InputError, NucleateError, OutputError
from nucleate.inference.block_store import MemoryBlockStore
from nucleate.inference.image_input import OpenImage, Selection, open_image
from nucleate.inference.instances import StoredInstances
from nucleate.inference.pipeline import Pipeline
from nucleate.inference.predictor import Predictor
from nucleate.inference.resume import digest, fingerprint, open_work, refuse_unfinished, work_folder
from nucleate.inference.scheduler import as_completed, thread_pool
from nucleate.io.axes import name_of
from nucleate.io.formats import FORMATS, entropy_tiff
from nucleate.io.formats.progress import Observe as ObserveShare
from nucleate.io.prediction_json import PredictionRecord, read_record, record_file, write_record
from nucleate.networks.runtime import keep_memory
from nucleate.report.overlay import write_overlay
from nucleate.sentences import command
from nucleate.types import Box, Image

SMALLEST_TILE, LARGEST_TILE = 64, 4096
"""Pixels; the side of a tile."""

DRAWN = 4096
"""Pixels; an overlay is drawn of images whose longest side is no longer."""

_SEGMENTED = 0.9  # of the work on an image, where writing begins

Observe = Callable[[Path, float, float], None]
"""Is told of an image which share of the work on it is done, and how many megapixels it has."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of each image.

    Args:
        selection: what of the image is segmented.
        tile: pixels; the side of the tiles of a large image. No result depends on it.
        formats: which files are written, of `io.formats.FORMATS`.
        overlay: also write the image with the outlines drawn in.
        entropy: also write the predictive entropy of each pixel, and its mean for each nucleus.
        resume: continue what an interrupted run left.

    Raises:
        InputError: for a tile out of range and for an unknown format.
    """

    selection: Selection = field(default_factory=Selection)
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
        """What the nuclei, and what an interrupted run keeps of them, depend on, for JSON."""
        region = self.selection.region
        return {
            "level": self.selection.level,
            "pixel size": self.selection.pixel_size,
            "region": None if region is None else asdict(region),
            "tile": self.tile,
            "entropy": self.entropy,
        }

    def files(self, name: str) -> dict[str, str]:
        """The files to write for an image of this name, by format."""
        files = {one: FORMATS[one].file(name) for one in FORMATS if one in self.formats}
        return files | ({"entropy": name + entropy_tiff.ENDING} if self.entropy else {})


@dataclass(frozen=True, slots=True)
class Segmented:
    """An image that was segmented: how many nuclei it holds, how many of them may be larger than what was found, and
    sentences for the person who asked."""

    count: int
    megapixels: float
    bounded: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that an earlier run had segmented already, with the same model and options."""

    count: int
    megapixels: float


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that cannot be used, and why."""

    reason: str


ImageResult = Segmented | Skipped | Failed


@dataclass(frozen=True, slots=True)
class Summary:
    """What `predict` did: the result for each image, in their order."""

    results: dict[Path, ImageResult]

    @property
    def nuclei(self) -> dict[str, int]:
        """How many nuclei each image has, by its name."""
        return {name_of(path): one.count for path, one in self.results.items() if not isinstance(one, Failed)}

    @property
    def failed(self) -> list[str]:
        """A sentence for each image that could not be used."""
        return [one.reason for one in self.results.values() if isinstance(one, Failed)]

    @property
    def notes(self) -> list[str]:
        """What else there is to say."""
        return [note for one in self.results.values() if isinstance(one, Segmented) for note in one.notes]

    @property
    def bounded(self) -> dict[str, int]:
        """By image with such nuclei, how many may be larger than what was found of them."""
        segmented = {name_of(path): one for path, one in self.results.items() if isinstance(one, Segmented)}
        return {name: one.bounded for name, one in segmented.items() if one.bounded}


def predict(
    predictor: Predictor,
    images: Sequence[Path],
    out: Path,
    request: Request | None = None,
    *,
    observe: Observe | None = None,
) -> Summary:
    """Segment image files into a folder.

    Of many small images, one more is in work at once than the network has threads, each on one of them, as one may wait
    for the disk; large ones follow one after the other. What is computed of a large image is kept in the folder
    .NAME.work of `out` until it is done.

    Args:
        predictor: what segments.
        images: the files.
        out: the folder that is given, for each image, the files of `request.formats`, NAME.json, which describes them,
            and, on request, NAME_entropy.tif and NAME_overlay.png.
        request: what is asked of each image.
        observe: is told how far the work on each image is.

    Returns:
        What became of each image; one that cannot be used is noted, and the others are done.

    Raises:
        DatasetError: where two images have one name.
        OutputError: for an output that cannot be written; it ends the run.
    """
    request = request or Request()
    _prepare(images, out, request)
    keep_memory()
    results: dict[Path, ImageResult] = {}
    with closing(_Run(predictor, out, request, observe).results(images)) as finished:
        for path, result in finished:
            results[path] = result
            if observe is not None:
                observe(path, 1.0, 0.0 if isinstance(result, Failed) else result.megapixels)
    return Summary({path: results[path] for path in images})


def _prepare(images: Sequence[Path], out: Path, request: Request) -> None:
    """Make the folder `out`; refuse images of one name, and unfinished runs that are not to be resumed."""
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


class _Run:
    """One call of `predict`. Every image is opened once."""

    def __init__(self, predictor: Predictor, out: Path, request: Request, observe: Observe | None) -> None:
        self.predictor, self.out, self.request, self.observe = predictor, out, request, observe
        self.environment = predictor.environment()  # here, as the threads of the pool have fewer

    def results(self, images: Sequence[Path]) -> Generator[tuple[Path, ImageResult], None, None]:
        """Each image and what became of it, as they are done.

        Images are opened in order, and small ones segmented at once. Large ones wait, open, until those in work are
        done, and no others are opened meanwhile: so few are open at a time.
        """
        threads, waiting = torch.get_num_threads(), deque(images)
        count, each = (threads + 1, 1) if len(images) > threads else (1, threads)
        large = deque[tuple[Path, OpenImage]]()
        try:
            while waiting:
                with thread_pool(count, each) as pool:
                    for path, result in as_completed(pool, self._starts(waiting, large), count + 1):
                        if isinstance(result, OpenImage):
                            large.append((path, result))
                        else:
                            yield path, result
                while large:
                    path, image = large.popleft()
                    tell = None if self.observe is None else partial(self._tell, self.observe, path, image.megapixels)
                    yield path, self._finish(path, image, tell)
        finally:
            for _, image in large:
                image.close()

    def _starts(
        self, waiting: deque[Path], large: deque[tuple[Path, OpenImage]]
    ) -> Iterator[Callable[[], tuple[Path, ImageResult | OpenImage]]]:
        while waiting and not large:
            yield partial(self._start, waiting.popleft())

    def _start(self, path: Path) -> tuple[Path, ImageResult | OpenImage]:
        """Open an image, and segment it if it is small."""
        try:
            image = open_image(path, self.request.selection)
        except NucleateError as error:
            return path, Failed(str(error))
        return path, self._finish(path, image) if self.predictor.is_small(image.reader) else image

    def _finish(self, path: Path, image: OpenImage, tell: ObserveShare | None = None) -> ImageResult:
        """Segment an open image and close it."""
        try:
            with closing(image):
                return self._segment(path, image, tell or (lambda share: None))
        except OutputError:
            raise
        except NucleateError as error:
            return Failed(str(error))

    @staticmethod
    def _tell(observe: Observe, path: Path, megapixels: float, share: float) -> None:
        observe(path, share, megapixels)

    def _segment(self, path: Path, image: OpenImage, tell: ObserveShare) -> Segmented | Skipped:
        request, reader, name = self.request, image.reader, name_of(path)
        identity = {
            "image": fingerprint(path),
            **self.predictor.identity(),
            **{key.replace("_", " "): value for key, value in asdict(self.environment).items()},
            **request.identity(),
        }
        if request.resume and (count := self._finished(name, digest(identity))) is not None:
            return Skipped(count, image.megapixels)
        small = self.predictor.is_small(reader)
        pipeline = self.predictor.run(
            reader,
            MemoryBlockStore() if small else open_work(self.out, name, identity),
            region=image.region,
            tile=max(reader.shape) if small else request.tile,
            entropy=request.entropy,
            observe=lambda share: tell(_SEGMENTED * share),
        )
        nuclei = pipeline.instances(
            name, downsample=reader.levels[reader.level].downsample, pixel_size=image.pixel_size
        )
        self._write(pipeline, nuclei, lambda share: tell(_SEGMENTED + (1 - _SEGMENTED) * share))
        files = request.files(name)
        record = PredictionRecord.of(nuclei, path, reader.level, files, digest(identity), self.environment)
        write_record(self.out / record_file(name), record)
        notes = [image.note] if image.note else []
        if request.overlay and max(nuclei.shape) > DRAWN:
            notes.append(f"{path} is too large for an overlay. To look at it: {command('view', self.out)}")
        elif request.overlay:
            pixels = Image(name, reader.read(image.region), reader.channels)
            labels = nuclei.read(Box(0, 0, *nuclei.shape)).astype("int32")
            write_overlay(self.out / f"{name}_overlay.png", pixels, labels)
        done = Segmented(nuclei.count, image.megapixels, nuclei.bounded(), tuple(notes))
        if not small:
            shutil.rmtree(work_folder(self.out, name), ignore_errors=True)
        return done

    def _finished(self, name: str, mark: str) -> int | None:
        """How many nuclei an earlier run found, if it was done with all that is asked for."""
        try:
            record = read_record(self.out / record_file(name))
        except InputError:
            return None
        wanted = self.request.files(name)
        if self.request.overlay or record is None or record.identity != mark or wanted.items() - record.files.items():
            return None
        return record.count if all((self.out / file).exists() for file in wanted.values()) else None

    def _write(self, pipeline: Pipeline, nuclei: StoredInstances, tell: ObserveShare) -> None:
        """Write the files of all formats."""
        files = self.request.files(nuclei.name)
        for done, (name, file) in enumerate(files.items()):

            def share(part: float, done: int = done) -> None:
                tell((done + part) / len(files))

            if name in FORMATS:
                FORMATS[name].write(self.out / file, nuclei, share)
            else:
                region, size = pipeline.config.region, nuclei.pixel_size
                entropy_tiff.write(self.out / file, region, pipeline.entropy, pixel_size=size, observe=share)
