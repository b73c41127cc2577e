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
from nucleate.inference.summary import Failed, ImageResult, Segmented, Skipped, Summary, from_json, to_json
from nucleate.io.files import reading
from nucleate.io.formats import FORMATS, entropy_tiff
from nucleate.io.formats.progress import Observe as ObserveShare
from nucleate.io.prediction_json import PredictionRecord, record_file, relative_to, write_record
from nucleate.networks.runtime import keep_memory
from nucleate.parallel import Communicator, RanksLost, SingleProcess
from nucleate.parallel.deal import InOrder, deal
from nucleate.parallel.launch import require_shared, without_lost
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
    ranks: Communicator | None = None,
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
        ranks: the processes that share the work, by default this one alone. All call this with the same arguments and
            see the same folders: small images are dealt out, a large one is done by all. Where the MPI can go on
            without a rank that ended (ULFM), the others do its work.

    Returns:
        What became of each image; one that cannot be used is noted, and the others are done.

    Raises:
        OutputError: for an output that cannot be written, and before anything is computed where one would replace an
            image, or what is no result of an earlier run; it ends the run.
    """
    request, ranks = request or Request(), ranks or SingleProcess()
    found, said = sources(images)
    too_long = {one.name: too_long_name(one, request.files(one.stem).values()) for one in found}
    results: dict[str, ImageResult] = {name: Failed(why) for name, why in too_long.items() if why is not None}
    wanted = [one for one in found if one.name not in results]
    earlier = ranks.together(partial(_earlier, wanted, images, out, request))
    ranks.by_first(partial(_make_folders, wanted, out))
    require_shared(ranks, out)
    if observe is not None:
        for one in found:
            observe(one.name, float(one.name in results), 0.0)
    keep_memory()
    run = _Run(predictor, out, request, earlier, observe)
    if ranks.size == 1:
        with closing(run.results(wanted)) as finished:
            for source, result in finished:
                results[source.name] = result
                run.told(source, result)
    else:
        results |= _SharedRun(run, wanted).results(ranks)
    return Summary({one.name: results[one.name] for one in found}, tuple(said))


def _earlier(found: Sequence[Source], images: Sequence[Path], out: Path, request: Request) -> dict[str, Earlier]:
    """What earlier runs left of each image, once it is sure that nothing else is replaced."""
    if not request.resume:
        for one in found:
            refuse_unfinished(one.folder(out), one.stem)
    files = {one: [*request.files(one.stem).values(), record_file(one.stem)] for one in found}
    return examine(files, out, images, resume=request.resume, overwrite=request.overwrite)


def _make_folders(found: Sequence[Source], out: Path) -> None:
    for folder in {out, *(one.folder(out) for one in found)}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made ({error.strerror}): choose another --out.") from error


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
        self.environment = predictor.environment()

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
                    yield source, self.finish(source, image)
        finally:
            for _, image in large:
                image.close()

    def _starts(
        self, waiting: deque[Source], large: deque[tuple[Source, OpenImage]]
    ) -> Iterator[Callable[[], tuple[Source, ImageResult | OpenImage]]]:
        while waiting and not large:
            yield partial(self.start, waiting.popleft())

    def open(self, source: Source) -> OpenImage:
        """Open an image."""
        with reading(source.path):
            return open_image(source.path, self.request.selection, source.series)

    def start(self, source: Source) -> tuple[Source, ImageResult | OpenImage]:
        """Open an image, and segment it if it is small."""
        try:
            image = self.open(source)
        except NucleateError as error:
            return source, Failed(str(error))
        return source, self.finish(source, image) if self.predictor.is_small(image.reader) else image

    def told(self, source: Source, result: ImageResult) -> None:
        """Say that an image is done."""
        if self.observe is not None:
            self.observe(source.name, 1.0, 0.0 if isinstance(result, Failed) else result.megapixels)

    def finish(self, source: Source, image: OpenImage, ranks: Communicator | None = None) -> ImageResult:
        """Segment an open image, with `ranks` that opened it, too, and close it."""

        def tell(share: float) -> None:
            if self.observe is not None and not self.predictor.is_small(image.reader):
                self.observe(source.name, share, image.megapixels)

        try:
            with reading(source.path), closing(image):
                return self._segment(source, image, tell, ranks or SingleProcess())
        except (OutputError, RanksLost):
            raise
        except NucleateError as error:
            return Failed(str(error))

    def _segment(
        self, source: Source, image: OpenImage, tell: ObserveShare, ranks: Communicator
    ) -> Segmented | Skipped:
        request, reader, earlier = self.request, image.reader, self.earlier[source.name]
        folder, stem = source.folder(self.out), source.stem
        drawn = max(image.region.shape) <= DRAWN
        identity = ranks.by_first(partial(self._identity, source))
        files = request.files(stem, drawn=drawn)
        if request.resume and ranks.agree(earlier.is_finished(digest(identity), files)):
            assert earlier.record is not None  # as it is finished
            if ranks.rank == 0 and is_writing(folder, stem):  # the earlier run ended when it had written all
                end_work(folder, stem)
            return Skipped(earlier.record.count, image.megapixels)
        small = self.predictor.is_small(reader)
        pipeline = self.predictor.run(
            reader,
            MemoryBlockStore() if small else open_work(folder, stem, {**identity, "tile": request.tile}, ranks),
            region=image.region,
            tile=max(reader.shape) if small else request.tile,
            entropy=request.entropy,
            channel=request.channel,
            observe=lambda share: tell(_SEGMENTED * share),
            ranks=ranks,
        )
        nuclei = pipeline.instances(
            source.name, downsample=reader.levels[reader.level].downsample, pixel_size=image.pixel_size, ranks=ranks
        )

        def begin() -> list[str]:
            begin_writing(folder, stem)
            return [*([image.note] if image.note else []), *earlier.set_aside(files)]

        def end() -> dict[str, Any]:
            remarks = (*pipeline.notes, *hints.remarks(pipeline, self.predictor.model.manifest, nuclei.count))
            removed = self._record(source, reader.level, nuclei, files, digest(identity), remarks)
            if request.overlay and not drawn:
                notes.append(f"{source.path} is too large for an overlay. To look at it: {command('view', self.out)}")
            bounded = nuclei.bounded()
            end_work(folder, stem)
            return to_json(Segmented(nuclei.count, image.megapixels, bounded, tuple(notes), tuple(removed), remarks))

        notes = ranks.by_first(begin)
        self._write(
            image,
            {name: folder / file for name, file in files.items()},
            pipeline,
            nuclei,
            lambda share: tell(_SEGMENTED + (1 - _SEGMENTED) * share),
            ranks,
        )
        done = from_json(ranks.by_first(end))
        assert isinstance(done, Segmented)
        return done

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
        ranks: Communicator,
    ) -> None:
        """Write the files of all formats, which are dealt out to `ranks`."""

        def write(name: str, observe: ObserveShare | None = None) -> None:
            path = files[name]
            if name in FORMATS:
                FORMATS[name].write(path, nuclei, observe)
            elif name == "entropy":
                size = nuclei.pixel_size
                entropy_tiff.write(path, image.region, pipeline.entropy, pixel_size=size, observe=observe)
            else:
                pixels = Image(nuclei.name, image.reader.read(image.region), image.reader.channels)
                overlay.write_overlay(path, pixels, nuclei.read(Box(0, 0, *nuclei.shape)).astype("int32"))

        if ranks.size > 1:
            with thread_pool(1, torch.get_num_threads()) as pool:
                deal(ranks, InOrder([*files]), write, pool, 0)
            return
        for done, name in enumerate(files):

            def share(part: float, done: int = done) -> None:
                tell((done + part) / len(files))

            write(name, share)

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


class _SharedRun:
    """One call of `predict` by several ranks: small images are dealt out, then each large one is done by all."""

    def __init__(self, run: _Run, images: Sequence[Source]) -> None:
        self._run, self._images = run, {one.name: one for one in images}
        self._known: dict[str, Any] = {}  # what this rank knows to be done, by name, as JSON; None of a large image

    def results(self, ranks: Communicator) -> dict[str, ImageResult]:
        """What became of each image, on every rank."""
        while True:
            try:
                self._small(ranks)
                for name in [name for name in self._images if self._known[name] is None]:
                    self._known[name] = to_json(self._large(ranks, self._images[name]))
                ranks.barrier()
                return {name: from_json(one) for name, one in self._known.items()}
            except RanksLost:
                ranks = without_lost(ranks)

    def _small(self, ranks: Communicator) -> None:
        """Segment what is small, and note what is large."""
        self._share(ranks)
        left = [name for name in self._images if name not in self._known]

        def done(name: str, result: Any) -> None:
            if result is not None:
                self._run.told(self._images[name], from_json(result))

        threads = torch.get_num_threads()
        with thread_pool(threads, 1) as pool:
            deal(ranks, InOrder(left, done), self._try, pool, threads)
        self._share(ranks)

    def _share(self, ranks: Communicator) -> None:
        """What any rank knows is known to all."""
        for known in ranks.all(self._known):
            self._known |= known

    def _try(self, name: str) -> Any:
        _, result = self._run.start(self._images[name])
        if isinstance(result, OpenImage):
            result.close()
            self._known[name] = None
        else:
            self._known[name] = to_json(result)
        return self._known[name]

    def _large(self, ranks: Communicator, source: Source) -> ImageResult:
        try:
            image = ranks.together(partial(self._run.open, source))
        except RanksLost:
            raise
        except NucleateError as error:
            return Failed(str(error))
        result = self._run.finish(source, image, ranks)
        if ranks.rank == 0:
            self._run.told(source, result)
        return result
