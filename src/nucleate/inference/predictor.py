"""A model, ready to segment images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from nucleate.data.statistics import Statistics
from nucleate.inference.block_store import MemorySpool, Spool
from nucleate.inference.image_input import chosen
from nucleate.inference.pipeline import Plan, Stream
from nucleate.inference.select import choose
from nucleate.inference.sliding_window import WHOLE, Network
from nucleate.inference.tta import Views
from nucleate.io.formats.progress import Observe
from nucleate.io.reader import MemoryReader, Reader
from nucleate.networks.runtime import one_heap
from nucleate.networks.store import Model
from nucleate.types import Image, Segmentation

WORKERS = 2
"""Blocks that are in work at once: while one is with the network, the other may be read, grouped or written."""

_STATISTICS = 0.05  # of the work on an image


class Predictor:
    """Segments images with one model. `smallest` overrides the model's smallest area; `engine` runs the network, by
    default the one that is done first with about so many `megapixels`; see `choice.choose`. The network sees so many
    `views` of each image; see `views.Views`."""

    def __init__(
        self,
        model: Model,
        *,
        smallest: int | None = None,
        engine: str = "auto",
        megapixels: float = 0.0,
        views: int = 1,
        bfloat16: bool | None = None,
    ) -> None:
        one_heap()
        self.model, self.views = model, views
        self.engine = choose(model, engine, bfloat16=bfloat16)
        self.network: Network = self.engine if views == 1 else Views(self.engine, views)
        self.thresholds = model.thresholds if smallest is None else replace(model.thresholds, min_area=smallest)

    def identity(self) -> dict[str, Any]:
        """What its results depend on, for JSON."""
        return {
            "model": self.model.manifest.weights_sha256,
            "engine": type(self.engine).__name__,
            "views": self.views,
            "thresholds": asdict(self.thresholds),
            "normalisation": asdict(self.model.normalisation),
        }

    def segment(self, image: Image) -> Segmentation:
        """The nuclei of an image in memory; none where the image is constant."""
        reader = MemoryReader(image)
        stream = self.stream(reader, MemorySpool(), Plan(reader.box, max(reader.shape)))
        nuclei = stream.nuclei(image.name)
        labels = nuclei.read(reader.box).astype(np.int32)
        return Segmentation(labels, tuple(found.nucleus for found in nuclei))

    def stream(self, reader: Reader, spool: Spool, plan: Plan, observe: Observe | None = None) -> Stream:
        """Find the nuclei of an image; small ones in the calling thread."""
        reader = chosen(reader, self.model.manifest.data.channels)
        statistics = self._statistics(reader, spool, observe)
        stream = Stream(self.network, reader, statistics, self.thresholds, spool, plan)
        told = None if observe is None else (lambda share: observe(_STATISTICS + (1 - _STATISTICS) * share))
        if is_small(reader):
            stream.run(None, told)
        else:
            with workers() as pool:
                stream.run(pool, told)
        return stream

    def _statistics(self, reader: Reader, spool: Spool, observe: Observe | None) -> Statistics:
        channels = self.model.manifest.architecture.channels
        kept = spool.get("statistics")
        if kept is not None:
            return Statistics(channels, float(kept["low"]), float(kept["high"]), bool(kept["constant"]))
        told = None if observe is None else (lambda share: observe(_STATISTICS * share))
        found = Statistics.of(reader, channels, self.model.normalisation, told)
        values = {"low": found.low, "high": found.high, "constant": found.constant}
        spool.put("statistics", {name: np.array(value) for name, value in values.items()})
        return found


def is_small(reader: Reader) -> bool:
    """Whether an image is about one block of the network, and so done in one piece."""
    return reader.shape[0] * reader.shape[1] <= WHOLE**2


@contextmanager
def workers() -> Iterator[Executor]:
    """Threads that share those of the network; an error, or Ctrl-C, waits only for what has begun."""
    threads = torch.get_num_threads()
    each = max(1, threads // WORKERS)
    pool = ThreadPoolExecutor(min(WORKERS, threads), initializer=torch.set_num_threads, initargs=(each,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
