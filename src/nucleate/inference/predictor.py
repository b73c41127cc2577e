"""A model, ready to segment images of any size."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from nucleate import __version__
from nucleate.data.channels import choose_channels
from nucleate.data.colours import has_several
from nucleate.data.normalization import Statistics
from nucleate.inference.block_store import BlockStore, MemoryBlockStore
from nucleate.inference.image_input import ChannelReader
from nucleate.inference.pipeline import Pipeline, PipelineConfig
from nucleate.inference.reduced import is_reduced
from nucleate.inference.scheduler import WORKERS, thread_pool
from nucleate.inference.select import choose
from nucleate.inference.sliding_window import SIDE, ForwardPass, whole_pixels
from nucleate.inference.tta import TestTimeAugmentation
from nucleate.io.formats.progress import Observe
from nucleate.io.prediction_json import Environment
from nucleate.io.reader import MemoryReader, Reader
from nucleate.networks.runtime import one_heap
from nucleate.networks.store import Model
from nucleate.parallel import Communicator, SingleProcess
from nucleate.types import Box, Image, Segmentation

_STATISTICS = 0.05  # of the work on an image


class Predictor:
    """Segments images with one model.

    Args:
        model: what is segmented with.
        min_area: pixels; smaller nuclei are left out. By default what the model says.
        engine: the backend that runs the network; see `select.choose`.
        tta: test-time augmentation, over 1, 2 or 4 images; see `tta.TestTimeAugmentation`.
        bfloat16: the number format; by default what suits the processor.
        side: pixels; the longest side of the network's blocks.
    """

    def __init__(
        self,
        model: Model,
        *,
        min_area: int | None = None,
        engine: str = "auto",
        tta: int = 1,
        bfloat16: bool | None = None,
        side: int = SIDE,
    ) -> None:
        one_heap()
        self.model, self.tta, self.side = model, tta, side
        self.engine = choose(model, engine, bfloat16=bfloat16)
        self.network: ForwardPass = self.engine if tta == 1 else TestTimeAugmentation(self.engine, tta)
        self.thresholds = model.thresholds if min_area is None else replace(model.thresholds, min_area=min_area)

    def identity(self) -> dict[str, Any]:
        """What its results depend on besides `environment`, for JSON."""
        known = self.model.manifest.prototypes_sha256
        return {
            "model": self.model.manifest.weights_sha256,
            **({} if known is None else {"prototypes": known}),
            "test-time augmentation": self.tta,
            "thresholds": asdict(self.thresholds),
            "normalisation": asdict(self.model.normalisation),
            "block": self.side,
        }

    def environment(self) -> Environment:
        """With what it computes."""
        return Environment(**self.engine.describe(), versions=versions())

    def segment(self, image: Image) -> Segmentation:
        """The nuclei of an image in memory; none where the image is constant."""
        reader = MemoryReader(image)
        pipeline = self.run(reader, MemoryBlockStore(), region=reader.box, tile=max(reader.shape))
        nuclei = pipeline.instances(image.name)
        labels = nuclei.read(reader.box).astype(np.int32)
        return Segmentation(labels, tuple(found.nucleus for found in nuclei))

    def run(
        self,
        reader: Reader,
        store: BlockStore,
        *,
        region: Box,
        tile: int,
        entropy: bool = False,
        channel: str | int | None = None,
        observe: Observe | None = None,
        ranks: Communicator | None = None,
    ) -> Pipeline:
        """Segment an image; a small one in the calling thread.

        Args:
            reader: the image.
            store: keeps what is computed.
            region, tile, entropy: as in `PipelineConfig`.
            channel: which of several is segmented; see `data.channels.choose_channels`.
            observe: is told the share that is done.
            ranks: the processes that share the work, each of which calls this with the same image, and a store that
                all of them see; by default this one alone.

        Returns:
            The pipeline, which has run and gives the results.
        """
        manifest = self.model.manifest
        places, note = choose_channels(reader, manifest.data.channels, manifest.architecture.channels, channel)
        every = reader if has_several(reader) else None
        if places != tuple(range(len(reader.channels))):
            reader = ChannelReader(reader, places)
        ranks = ranks or SingleProcess()
        corrections = manifest.corrections
        statistics = self._statistics(reader, store, observe, ranks)
        statistics = statistics.seen_by(None if corrections is None else corrections.levels)
        config = PipelineConfig(region, tile, entropy, self.side, is_reduced(manifest))
        pipeline = Pipeline(self.network, reader, statistics, self.thresholds, store, config, every)
        pipeline.notes += [note] if note else []
        told = None if observe is None else (lambda share: observe(_STATISTICS + (1 - _STATISTICS) * share))
        threads = torch.get_num_threads()
        workers: AbstractContextManager[Executor | None] = (
            nullcontext()
            if self.is_small(reader) and ranks.size == 1
            else thread_pool(min(WORKERS, threads), max(1, threads // WORKERS))
        )
        with workers as pool:
            pipeline.run(pool, told, ranks)
        return pipeline

    def is_small(self, reader: Reader) -> bool:
        """Whether an image is about one block of the network, and so done in one piece."""
        return reader.shape[0] * reader.shape[1] <= whole_pixels(self.side)

    def _statistics(
        self, reader: Reader, store: BlockStore, observe: Observe | None, ranks: Communicator
    ) -> Statistics:
        channels = self.model.manifest.architecture.channels

        def kept() -> tuple[float, float, float, bool] | None:
            found = store.get("statistics")
            if found is None:
                return None
            return float(found["low"]), float(found["high"]), float(found["median"]), bool(found["constant"])

        before = ranks.by_first(kept)
        if before is not None:
            return Statistics(channels, *before)
        told = None if observe is None else (lambda share: observe(_STATISTICS * share))
        found = Statistics.of(reader, channels, self.model.normalisation, told, ranks)
        if ranks.rank == 0:
            values = {"low": found.low, "high": found.high, "median": found.median, "constant": found.constant}
            store.put("statistics", {name: np.array(value) for name, value in values.items()})
        return found


def versions() -> dict[str, str]:
    """Those of the packages that results depend on, of those that are installed."""
    found = {"nucleate": __version__}
    for package in ("torch", "openvino", "numpy"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
