"""What a prediction does with each image: open, segment, write, record."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nucleate.errors import NucleateError, OutputError
from nucleate.inference import hints
from nucleate.inference.block_store import MemoryBlockStore
from nucleate.inference.cellprofiler import CellProfilerMeasurements
from nucleate.inference.earlier import Earlier
from nucleate.inference.image_input import OpenImage, open_image
from nucleate.inference.instances import StoredInstances
from nucleate.inference.novelty import novelty_of, remark
from nucleate.inference.pipeline import Pipeline
from nucleate.inference.predictor import Predictor
from nucleate.inference.region_measurements import RegionMeasurements
from nucleate.inference.request import Observe, Request
from nucleate.inference.resume import (
    begin_writing,
    digest,
    end_work,
    fingerprint,
    is_writing,
    open_work,
    written_digest,
)
from nucleate.inference.scheduler import as_completed, thread_pool
from nucleate.inference.sources import Source
from nucleate.inference.summary import Failed, ImageResult, Segmented, Skipped, from_json, to_json
from nucleate.io.files import reading
from nucleate.io.formats import FORMATS, entropy_tiff
from nucleate.io.formats.progress import Observe as ObserveShare
from nucleate.io.prediction_json import PredictionRecord, record_file, relative_to, write_record
from nucleate.parallel import Communicator, RanksLost, SingleProcess
from nucleate.parallel.deal import InOrder, deal
from nucleate.report import overlay
from nucleate.sentences import command
from nucleate.types import Box, Image, Plane

DRAWN = 4096
"""Pixels; an overlay is drawn of images whose longest side is no longer."""

_SEGMENTED = 0.9  # of the work on an image, where writing begins


class Run:
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
            return open_image(source.path, self.request.selection, source.plane)

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
            return Skipped(earlier.record.count, image.megapixels, earlier.record.novelty)
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
        model = self.predictor.model
        nuclei = pipeline.instances(
            source.name,
            downsample=reader.levels[reader.level].downsample,
            pixel_size=image.pixel_size,
            novelty=ranks.by_first(partial(novelty_of, pipeline, model)),
            ranks=ranks,
        )

        if request.measure == "all":
            nuclei.further = RegionMeasurements(reader, nuclei.origin, image.pixel_size)
        if "cellprofiler" in request.formats:
            nuclei.cellprofiler = CellProfilerMeasurements(reader, nuclei.origin)

        def begin() -> list[str]:
            begin_writing(folder, stem)
            return [*([image.note] if image.note else []), *earlier.set_aside(files)]

        def end() -> dict[str, Any]:
            remarks = (*pipeline.notes, *hints.remarks(pipeline, model.manifest, nuclei.count))
            removed = self._record(source, image, nuclei, files, digest(identity), (*remarks, *remark(nuclei.novelty)))
            if request.overlay and not drawn:
                notes.append(f"{source.path} is too large for an overlay. To look at it: {command('view', self.out)}")
            bounded = nuclei.bounded()
            end_work(folder, stem)
            said = tuple(notes), tuple(removed), remarks
            return to_json(Segmented(nuclei.count, image.megapixels, bounded, *said, nuclei.novelty))

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
        if source.plane.series is None and source.stack is None:
            image = fingerprint(source.path)
        else:
            with self.lock:  # the other images of the file wait until it is read, once for all
                if source.path not in self.fingerprints:
                    self.fingerprints[source.path] = fingerprint(source.path)
            image = self.fingerprints[source.path]
        if source.plane.series is not None:
            image += f" {source.plane.series}"
        plane = {"z": source.plane.z, "t": source.plane.t}
        return {
            "image": image,
            **({"plane": plane} if any(plane.values()) else {}),
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
        image: OpenImage,
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
            image.reader.level,
            kept,
            mark,
            self.environment,
            digests={name: written_digest(folder / file) for name, file in kept.items()},
            relative=relative_to(folder, source.path),
            plane=Plane(source.plane.series, image.plane.z, image.plane.t),
            notes=remarks,
        )
        write_record(folder / record_file(source.stem), record)
        return removed
