"""A model and image files -> label images, tables and overlays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nucleate.errors import DatasetError, ImageError, NucleateError, OutputError
from nucleate.images.intensity import normalise, pick
from nucleate.images.nuclei import MemoryNuclei
from nucleate.images.outputs import FORMATS
from nucleate.images.reader import name_of, read_image
from nucleate.images.record import Record, record_file, write_record
from nucleate.images.writer import write_overlay
from nucleate.model import Model
from nucleate.networks.precision import keep_memory
from nucleate.objects.grouping import Grouped, group
from nucleate.prediction.engine import TorchEngine
from nucleate.types import Image, Nucleus, Segmentation

LARGEST = 4096
"""Pixels; the longest side of an image that is segmented in one piece."""


class Predictor:
    """Segments images with one model, one after the other; `smallest` overrides the model's smallest area."""

    def __init__(self, model: Model, *, smallest: int | None = None, bfloat16: bool | None = None) -> None:
        self.model = model
        self.engine = TorchEngine(model.network, bfloat16=bfloat16)
        self.thresholds = model.thresholds if smallest is None else replace(model.thresholds, smallest=smallest)

    def segment(self, image: Image) -> Segmentation:
        """The nuclei of an image; none where the image is constant."""
        height, width = image.pixels.shape[:2]
        if max(height, width) > LARGEST:
            raise ImageError(
                f"{image.path or image.name} is {height} x {width} pixels, more than {LARGEST} on a side: "
                "cut it into parts."
            )
        image = self._chosen(image)
        if np.array_equal(image.pixels, np.broadcast_to(image.pixels[:1, :1], image.pixels.shape)):
            return Segmentation(np.zeros((height, width), dtype=np.int32))
        values = normalise(image, self.model.manifest.architecture.channels, self.model.normalisation)
        grouped = group(self.engine(values), self.thresholds)
        return Segmentation(grouped.labels, measure(grouped, image.pixels))

    def _chosen(self, image: Image) -> Image:
        """Of several channels the one that the model was trained on, where the image has one of that name."""
        trained = self.model.manifest.data.channels
        if len(image.channels) > 1 and len(trained) == 1 and trained[0] in image.channels:
            return pick(image, trained[0])
        return image


def measure(grouped: Grouped, pixels: NDArray[np.generic]) -> tuple[Nucleus, ...]:
    """One row for each nucleus 1..N: centroid, area, equivalent diameter 2 sqrt(area / pi), mean over its pixels and
    all channels of the image's own values, and the heat at its centre as score."""
    count = len(grouped.centre)
    if count == 0:
        return ()
    flat = np.flatnonzero(grouped.labels)
    ids = grouped.labels.reshape(-1)[flat]
    y, x = np.divmod(flat, grouped.labels.shape[1])
    area = np.bincount(ids, minlength=count + 1)[1:]
    values = pixels.reshape(-1, pixels.shape[2])[flat].mean(axis=1, dtype=np.float64)
    columns = (np.bincount(ids, weights=w, minlength=count + 1)[1:] / area for w in (y, x, values))
    rows = zip(*columns, area, grouped.score, strict=True)
    return tuple(
        Nucleus(
            id=number,
            y=round(float(cy), 3),
            x=round(float(cx), 3),
            area=int(size),
            diameter=round(float(2 * np.sqrt(size / np.pi)), 3),
            mean_intensity=round(float(mean), 4),
            score=round(float(score), 4),
        )
        for number, (cy, cx, mean, size, score) in enumerate(rows, start=1)
    )


@dataclass(slots=True)
class Summary:
    """What `predict` did: nuclei by image, and one sentence for each image that could not be done."""

    nuclei: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def predict(
    predictor: Predictor,
    images: Sequence[Path],
    out: Path,
    *,
    overlay: bool = False,
    observe: Callable[[Path], None] | None = None,
) -> Summary:
    """Segment each image into `out`: NAME_labels.tif, NAME.csv, NAME.json, which says what they are of, and, on
    request, NAME_overlay.png.

    An image that cannot be used is noted and the others are done; an output that cannot be written ends the run.
    Of many images, as many are in work at once as the network has threads, each on one of them.
    """
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
    keep_memory()
    summary = Summary()
    threads = torch.get_num_threads()
    workers = threads if len(images) > threads else 1
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
            work = [pool.submit(_predict_one, predictor, path, out / name_of(path), overlay) for path in images]
            try:
                for path, done in zip(images, work, strict=True):
                    result = done.result()
                    if isinstance(result, str):
                        summary.failed.append(result)
                    else:
                        summary.nuclei[name_of(path)] = result
                    if observe is not None:
                        observe(path)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
    return summary


def _predict_one(predictor: Predictor, path: Path, stem: Path, overlay: bool) -> int | str:
    """The number of nuclei, or why the image could not be done."""
    try:
        image = read_image(path)
        found = predictor.segment(image)
    except OutputError:
        raise
    except NucleateError as error:
        return str(error)
    nuclei = MemoryNuclei(stem.name, found.labels, found.nuclei, pixel_size=image.pixel_size)
    files = {name: FORMATS[name].file(stem.name) for name in ("tif", "csv")}
    for name, file in files.items():
        FORMATS[name].write(stem.with_name(file), nuclei)
    write_record(stem.with_name(record_file(stem.name)), Record.of(nuclei, path, 0, files))
    if overlay:
        write_overlay(stem.with_name(f"{stem.name}_overlay.png"), image, found.labels)
    return len(found.nuclei)
