"""A model and image files -> label images, tables, outlines and overlays."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nucleate.errors import InputError, NucleateError, OutputError
from nucleate.inference import hints
from nucleate.inference.block_store import MemoryBlockStore
from nucleate.inference.earlier import Earlier, examine, too_long_name
from nucleate.inference.image_input import OpenImage, Selection, open_image
from nucleate.inference.instances import StoredInstances
from nucleate.inference.pipeline import Pipeline
from nucleate.inference.predictor import Predictor
from nucleate.inference.resume import (
    begin_writing,
    digest,
    end_work,
    fingerprint,
    is_writing,
    open_work,
    refuse_unfinished,
    written_digest,
)
from nucleate.inference.scheduler import as_completed, thread_pool
from nucleate.inference.sources import Source, sources
from nucleate.inference.summary import Failed, ImageResult, Segmented, Skipped, Summary
from nucleate.io.files import reading
from nucleate.io.formats import FORMATS, entropy_tiff
from nucleate.io.formats.progress import Observe as ObserveShare
from nucleate.io.prediction_json import PredictionRecord, record_file, relative_to, write_record
from nucleate.networks.runtime import keep_memory
from nucleate.report import overlay
from nucleate.sentences import command
from nucleate.types import Box, Image

SMALLEST_TILE, LARGEST_TILE = 64, 4096
"""Pixels; the side of a tile."""

DRAWN = 4096
"""Pixels; an overlay is drawn of images whose longest side is no longer."""

_SEGMENTED = 0.9  # of the work on an image, where writing begins

Observe = Callable[[str, float, float], None]
"""Is told of an image, by the name of its results, which share of the work is done, and how many megapixels it has."""


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
        overwrite: replace files of the results' names that no earlier run wrote.
        channel: which of several channels is segmented, by its name or its number from 1.

    Raises:
        InputError: for a tile out of range and for an unknown format.
    """

    selection: Selection = field(default_factory=Selection)
    tile: int = 1024
    formats: tuple[str, ...] = ("tif", "csv")
    overlay: bool = False
    entropy: bool = False
    resume: bool = False
    overwrite: bool = False
    channel: str | None = None

    def __post_init__(self) -> None:
        if not SMALLEST_TILE <= self.tile <= LARGEST_TILE:
            raise InputError(f"--tile is {self.tile}: give pixels, from {SMALLEST_TILE} to {LARGEST_TILE}.")
        for name in self.formats:
            if name not in FORMATS:
                raise InputError(f"There is no --format {name}: choose from {', '.join(FORMATS)}, with commas between.")
        if not self.formats:
            raise InputError(f"--format is empty: choose from {', '.join(FORMATS)}, with commas between.")

    def identity(self) -> dict[str, Any]:
        """What the nuclei and their files depend on, for JSON."""
        region = self.selection.region
        return {
            "level": self.selection.level,
            "pixel size": self.selection.pixel_size,
            "region": None if region is None else asdict(region),
            "entropy": self.entropy,
            "channel": self.channel,
        }

    def files(self, name: str, *, drawn: bool = True) -> dict[str, str]:
        """The files to write for an image of this name, by format; an overlay of those that are `drawn`."""
        files = {one: FORMATS[one].file(name) for one in FORMATS if one in self.formats}
        files |= {"entropy": name + entropy_tiff.ENDING} if self.entropy else {}
        return files | ({"overlay": name + overlay.ENDING} if self.overlay and drawn else {})


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
    .NAME.work of `out` until it is done. Of a file that holds several images each is segmented. Where images have one
    name, their results keep the folder or the ending (`sources.unique_names`).

    Args:
        predictor: what segments.
        images: the files.
        out: the folder that is given, for each image, the files of `request.formats`, NAME.json, which describes them,
            and, on request, NAME_entropy.tif and NAME_overlay.png.
        request: what is asked of each image.
        observe: is told of each image before any is segmented, then how far the work on each is.

    Returns:
        What became of each image; one that cannot be used is noted, and the others are done.

    Raises:
        OutputError: for an output that cannot be written, and before anything is computed where one would replace an
            image, or what is no result of an earlier run; it ends the run.
    """
    request = request or Request()
    found, said = sources(images)
    too_long = {one.name: too_long_name(one, request.files(one.stem).values()) for one in found}
    results: dict[str, ImageResult] = {name: Failed(why) for name, why in too_long.items() if why is not None}
    wanted = [one for one in found if one.name not in results]
    earlier = _prepare(wanted, images, out, request)
    if observe is not None:
        for one in found:
            observe(one.name, float(one.name in results), 0.0)
    keep_memory()
    with closing(_Run(predictor, out, request, earlier, observe).results(wanted)) as finished:
        for source, result in finished:
            results[source.name] = result
            if observe is not None:
                observe(source.name, 1.0, 0.0 if isinstance(result, Failed) else result.megapixels)
    return Summary({one.name: results[one.name] for one in found}, tuple(said))


def _prepare(found: Sequence[Source], images: Sequence[Path], out: Path, request: Request) -> dict[str, Earlier]:
    """What earlier runs left of each image, once it is sure that nothing else is replaced; makes the folders."""
    if not request.resume:
        for one in found:
            refuse_unfinished(one.folder(out), one.stem)
    files = {one: [*request.files(one.stem).values(), record_file(one.stem)] for one in found}
    earlier = examine(files, out, images, resume=request.resume, overwrite=request.overwrite)
    for folder in {out, *(one.folder(out) for one in found)}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made ({error.strerror}): choose another --out.") from error
    return earlier


class _Run:
    """One call of `predict`. Every image is opened once."""

    def __init__(
        self,
        predictor: Predictor,
        out: Path,
        request: Request,
        earlier: Mapping[str, Earlier],
        observe: Observe | None,
    ) -> None:
        self.predictor, self.out, self.request, self.earlier, self.observe = predictor, out, request, earlier, observe
        self.fingerprints: dict[Path, str] = {}
        self.lock = threading.Lock()
        self.environment = predictor.environment()  # here, as the threads of the pool have fewer

    def results(self, images: Sequence[Source]) -> Generator[tuple[Source, ImageResult], None, None]:
        """Each image and what became of it, as they are done.

        Images are opened in order, and small ones segmented at once. Large ones wait, open, until those in work are
        done, and no others are opened meanwhile: so few are open at a time.
        """
        threads, waiting = torch.get_num_threads(), deque(images)
        count, each = (threads + 1, 1) if len(images) > threads else (1, threads)
        large = deque[tuple[Source, OpenImage]]()
        try:
            while waiting:
                with thread_pool(count, each) as pool:
                    for source, result in as_completed(pool, self._starts(waiting, large), count + 1):
                        if isinstance(result, OpenImage):
                            large.append((source, result))
                        else:
                            yield source, result
                while large:
                    source, image = large.popleft()
                    tell = None if self.observe is None else partial(self._tell, self.observe, source, image.megapixels)
                    yield source, self._finish(source, image, tell)
        finally:
            for _, image in large:
                image.close()

    def _starts(
        self, waiting: deque[Source], large: deque[tuple[Source, OpenImage]]
    ) -> Iterator[Callable[[], tuple[Source, ImageResult | OpenImage]]]:
        while waiting and not large:
            yield partial(self._start, waiting.popleft())

    def _start(self, source: Source) -> tuple[Source, ImageResult | OpenImage]:
        """Open an image, and segment it if it is small."""
        try:
            with reading(source.path):
                image = open_image(source.path, self.request.selection, source.series)
        except NucleateError as error:
            return source, Failed(str(error))
        return source, self._finish(source, image) if self.predictor.is_small(image.reader) else image

    def _finish(self, source: Source, image: OpenImage, tell: ObserveShare | None = None) -> ImageResult:
        """Segment an open image and close it."""
        try:
            with reading(source.path), closing(image):
                return self._segment(source, image, tell or (lambda share: None))
        except OutputError:
            raise
        except NucleateError as error:
            return Failed(str(error))

    @staticmethod
    def _tell(observe: Observe, source: Source, megapixels: float, share: float) -> None:
        observe(source.name, share, megapixels)

    def _segment(self, source: Source, image: OpenImage, tell: ObserveShare) -> Segmented | Skipped:
        request, reader, earlier = self.request, image.reader, self.earlier[source.name]
        folder, stem = source.folder(self.out), source.stem
        drawn = max(image.region.shape) <= DRAWN
        identity = self._identity(source)
        files = request.files(stem, drawn=drawn)
        if request.resume and earlier.is_finished(digest(identity), files):
            assert earlier.record is not None  # as it is finished
            if is_writing(folder, stem):  # the earlier run ended when it had written all
                end_work(folder, stem)
            return Skipped(earlier.record.count, image.megapixels)
        small = self.predictor.is_small(reader)
        pipeline = self.predictor.run(
            reader,
            MemoryBlockStore() if small else open_work(folder, stem, {**identity, "tile": request.tile}),
            region=image.region,
            tile=max(reader.shape) if small else request.tile,
            entropy=request.entropy,
            channel=request.channel,
            observe=lambda share: tell(_SEGMENTED * share),
        )
        nuclei = pipeline.instances(
            source.name, downsample=reader.levels[reader.level].downsample, pixel_size=image.pixel_size
        )
        remarks = (*pipeline.notes, *hints.remarks(pipeline, self.predictor.model.manifest, nuclei.count))
        begin_writing(folder, stem)
        notes = [*([image.note] if image.note else []), *earlier.set_aside(files)]
        self._write(
            image,
            {name: folder / file for name, file in files.items()},
            pipeline,
            nuclei,
            lambda share: tell(_SEGMENTED + (1 - _SEGMENTED) * share),
        )
        removed = self._record(source, reader.level, nuclei, files, digest(identity), remarks)
        if request.overlay and not drawn:
            notes.append(f"{source.path} is too large for an overlay. To look at it: {command('view', self.out)}")
        end_work(folder, stem)
        return Segmented(nuclei.count, image.megapixels, nuclei.bounded(), tuple(notes), tuple(removed), remarks)

    def _identity(self, source: Source) -> dict[str, Any]:
        """What the results for an image depend on, for JSON."""
        if source.series is None:
            image = fingerprint(source.path)
        else:
            with self.lock:  # the other images of the file wait until it is read, once for all
                if source.path not in self.fingerprints:
                    self.fingerprints[source.path] = fingerprint(source.path)
            image = f"{self.fingerprints[source.path]} {source.series}"
        return {
            "image": image,
            **self.predictor.identity(),
            **{key.replace("_", " "): value for key, value in asdict(self.environment).items()},
            **self.request.identity(),
        }

    def _write(
        self,
        image: OpenImage,
        files: Mapping[str, Path],
        pipeline: Pipeline,
        nuclei: StoredInstances,
        tell: ObserveShare,
    ) -> None:
        """Write the files of all formats."""
        for done, (name, path) in enumerate(files.items()):

            def share(part: float, done: int = done) -> None:
                tell((done + part) / len(files))

            if name in FORMATS:
                FORMATS[name].write(path, nuclei, share)
            elif name == "entropy":
                size = nuclei.pixel_size
                entropy_tiff.write(path, image.region, pipeline.entropy, pixel_size=size, observe=share)
            else:
                pixels = Image(nuclei.name, image.reader.read(image.region), image.reader.channels)
                overlay.write_overlay(path, pixels, nuclei.read(Box(0, 0, *nuclei.shape)).astype("int32"))

    def _record(
        self,
        source: Source,
        level: int,
        nuclei: StoredInstances,
        files: Mapping[str, str],
        mark: str,
        remarks: tuple[str, ...],
    ) -> list[str]:
        """Say in NAME.json what lies there of these nuclei; remove what an earlier run wrote of others, and name it."""
        folder, earlier = source.folder(self.out), self.earlier[source.name]
        beside = earlier.valid_beside(mark, files)
        kept = {**files, **beside}
        removed = earlier.remove_others(kept)
        record = PredictionRecord.of(
            nuclei,
            source.path,
            level,
            kept,
            mark,
            self.environment,
            digests={name: written_digest(folder / file) for name, file in kept.items()},
            relative=relative_to(folder, source.path),
            series=source.series,
            notes=remarks,
        )
        write_record(folder / record_file(source.stem), record)
        return removed
