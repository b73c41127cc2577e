"""An image of any size -> its nuclei, in bounded memory.

1. Each block goes through the network; what is kept of its output are its votes.
2. A tile is segmented once the votes around it are there, as many as any of its nuclei depends on. A nucleus belongs to
   the tile that its centre lies in, and is whole there, whatever tiles its pixels lie in.
3. Row by row of tiles the nuclei are numbered in the order of their centres.

Blocks depend on the image alone and nuclei on the votes alone. So the result is the same for all tiles, and that of a
region is that of the whole image, cut out.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nucleate.data.normalization import Statistics
from nucleate.inference.block_store import Arrays, BlockStore
from nucleate.inference.instances import FURTHEST, StoredInstances, relabel_sequential
from nucleate.inference.measurements import Measured, measure, names, nucleus_type, reaches_bound
from nucleate.inference.reduced import ReducedReader, coarse, enlarge, fine, suitable_factor
from nucleate.inference.scheduler import WORKERS, Schedule, ScheduleQueue, do_all
from nucleate.inference.sliding_window import SIDE, BlankCache, ForwardPass, SlidingWindow
from nucleate.inference.tiling import tiles
from nucleate.io.cache import Cache
from nucleate.io.formats.progress import Observe
from nucleate.io.reader import Reader
from nucleate.networks.decode import to_entropy, to_maps
from nucleate.parallel import Communicator, SingleProcess
from nucleate.parallel.deal import deal
from nucleate.postprocess.instances_from_maps import (
    MAX_DISTANCE,
    Candidates,
    Extent,
    Votes,
    cast_votes,
    instances_from_votes,
)
from nucleate.types import Box, Labels, Thresholds

DEPENDS = Extent().context + Extent().nucleus
"""Pixels; the label of a pixel depends on no votes further away."""

EXAMINED = DEPENDS + 2 * MAX_DISTANCE
"""Pixels; the votes within this distance of a tile tell how far votes reach, and so on how many the tile depends."""

DECODED = 12
"""Blocks that are kept decoded: a tile and what it depends on meet nine, its neighbour six of them."""


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """What is asked of one image.

    Args:
        region: the part that is segmented, in pixels.
        tile: pixels; the side of a tile. No result depends on it.
        entropy: also keep the predictive entropy of every pixel.
        side: pixels; the longest side of the network's blocks.
        reduce: reduce an image whose nuclei are too large for the network.
    """

    region: Box
    tile: int
    entropy: bool = False
    side: int = SIDE
    reduce: bool = True


class Pipeline:
    """The segmentation of one image: `run` does it, `instances` and `entropy` give the results.

    Args:
        network: what runs the network.
        reader: the image.
        statistics: those of the whole image, whatever the region.
        thresholds: what turns the network's maps into nuclei.
        store: keeps all that is computed; what it holds already is not computed again.
        config: what is asked for.
        every: the image with all its channels, where nuclei are measured in each of several.
    """

    def __init__(
        self,
        network: ForwardPass,
        reader: Reader,
        statistics: Statistics,
        thresholds: Thresholds,
        store: BlockStore,
        config: PipelineConfig,
        every: Reader | None = None,
    ) -> None:
        self.network, self.reader, self.statistics = network, reader, statistics
        self.thresholds, self.store, self.config, self.every = thresholds, store, config, every
        self.seen: Reader = reader  # until `run` reduces it, where nuclei are very large
        self.window = SlidingWindow(network, reader.shape, 1.0, reader.shape, ())  # until `run` plans it
        self.notes: list[str] = []  # what a person should know of the result
        self._extents: dict[int, Extent] = {}
        self._decoded = Cache[Arrays](0, at_least=DECODED)
        self._lock = threading.Lock()
        region = config.region
        rows, columns = (tiles(length, config.tile) for length in region.shape)
        self._borders = [region.y + begin for begin, _ in rows] + [region.bottom]
        self._rows = [[f"tile-{i}-{j}" for j in range(len(columns))] for i in range(len(rows))]
        self._tiles = {
            f"tile-{i}-{j}": Box(region.y + y, region.x + x, bottom - y, right - x)
            for i, (y, bottom) in enumerate(rows)
            for j, (x, right) in enumerate(columns)
        }

    def run(
        self, pool: Executor | None = None, observe: Observe | None = None, ranks: Communicator | None = None
    ) -> None:
        """Segment every tile.

        Args:
            pool: its threads do it; by default the calling one.
            observe: is told the share that is done.
            ranks: the processes that share the work, each with a pool of its own, and a store that all of them see.
        """
        ranks = ranks or SingleProcess()
        if not self.statistics.constant:
            network = BlankCache(self.network)
            self.seen = self._reduced(network, ranks)
            self.window = SlidingWindow.plan(network, self.seen.shape, self.read_seen, side=self.config.side)
        if ranks.size > 1:
            assert pool is not None
            self._run_over(ranks, pool, observe)
            return
        needs, missing = self._plan()
        schedule = Schedule(needs, missing)

        def finish(tile: str) -> None:
            self._segment_tile(tile, self._extent(needs[tile]))
            for block in schedule.tile_done(tile):
                self.store.drop(f"votes-{block}")

        def step(block: int) -> None:
            self._keep_extent(block, self._run_block(block))
            for tile in schedule.block_done(block):
                finish(tile)

        work = [*(partial(finish, tile) for tile in schedule.ready()), *(partial(step, block) for block in missing)]
        do_all(work, pool, observe)

    def _run_over(self, ranks: Communicator, pool: Executor, observe: Observe | None) -> None:
        """The same by all ranks: the first deals out blocks, and tiles as soon as their blocks are done."""

        def extent_of(tile: str) -> list[int] | None:
            extent = self._extent(needs[tile])
            return None if extent is None else [extent.vote, extent.assign, extent.nms]

        def done(item: list[Any], result: list[int] | None) -> None:
            kind, which = item[:2]
            if kind == "block":
                self._keep_extent(which, Extent(*(result or ())))
            else:
                for block in queue.schedule.tile_done(which):
                    self.store.drop(f"votes-{block}")

        def work(item: list[Any]) -> list[int] | None:
            kind, which, *more = item
            if kind == "tile":
                self._segment_tile(which, None if more[0] is None else Extent(*more[0]))
                return None
            extent = self._run_block(which)
            return [extent.vote, extent.assign, extent.nms]

        needs, missing = self._plan() if ranks.rank == 0 else ({}, [])
        queue = ScheduleQueue(Schedule(needs, missing), missing, len(needs), extent_of, done, observe)
        deal(ranks, queue, work, pool, min(WORKERS, torch.get_num_threads()))

    def _plan(self) -> tuple[dict[str, list[int]], list[int]]:
        """The tiles that are not done, with the blocks that each needs; and those of these blocks that are not."""
        needs = {
            tile: self.window.meeting(coarse(box, self.reduction).grown(EXAMINED, within=self.seen.shape))
            for tile, box in self._tiles.items()
            if self.store.get(tile) is None
        }
        return needs, self._missing({block for blocks in needs.values() for block in blocks})

    def instances(
        self,
        name: str,
        *,
        downsample: float = 1.0,
        pixel_size: float | None = None,
        novelty: float | None = None,
        ranks: Communicator | None = None,
    ) -> StoredInstances:
        """The nuclei, numbered, once `run` has returned; the arguments are as in `io.instances`, and `ranks` number
        them together."""
        counts = relabel_sequential(self.store, self._rows, ranks)
        region = self.config.region
        return StoredInstances(
            name,
            self.store,
            counts,
            self._borders,
            region,
            downsample=downsample,
            pixel_size=pixel_size,
            channels=self.channels,
            novelty=novelty,
            furthest=FURTHEST * self.reduction,
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Those in which each nucleus is measured, where there are several."""
        return self.every.channels if self.every is not None else ()

    def entropy(self, box: Box) -> NDArray[np.float16]:
        """The predictive entropy in bits of the pixels in a box of the image; 0 in a constant image."""
        seen = coarse(box, self.reduction)
        found = np.zeros(seen.shape, dtype=np.float16)
        for block in self.window.meeting(seen):
            region = self.window.blocks[block].write_region
            common = region.common(seen)
            assert common is not None  # as they meet
            found[common.within(seen)] = self._decode(f"entropy-{block}")["bits"][common.within(region)]
        return self._repeated(found, seen, box)

    @property
    def reduction(self) -> int:
        """The whole factor by which the image is reduced before all else; 1 but where nuclei are very large."""
        return self.seen.factor if isinstance(self.seen, ReducedReader) else 1

    def _reduced(self, network: ForwardPass, ranks: Communicator) -> Reader:
        """The image, reduced where its nuclei are too large for the network."""

        def suitable() -> int:
            kept = self.store.get("reduction")
            if kept is not None:
                return int(kept["factor"])
            if not self.config.reduce:
                return 1
            found = suitable_factor(network, self.reader, self.statistics)
            self.store.put("reduction", {"factor": np.array(found)})
            return found

        factor = ranks.by_first(suitable)
        return ReducedReader(self.reader, factor) if factor > 1 else self.reader

    def read_seen(self, box: Box) -> torch.Tensor:
        """The image as the network sees it, (1, channels, H, W)."""
        return torch.from_numpy(self.statistics.normalise(self.seen.read(box), self.seen.channels))[None]

    def _repeated(self, values: NDArray[Any], seen: Box, box: Box) -> NDArray[Any]:
        """What is known of the pixels of a box of the reduced image, for those of a box that it covers."""
        if self.reduction == 1:
            return values
        wide = values.repeat(self.reduction, axis=0).repeat(self.reduction, axis=1)
        return wide[box.within(Box(seen.y * self.reduction, seen.x * self.reduction, *wide.shape))]

    def _missing(self, wanted: Collection[int]) -> list[int]:
        """The blocks to compute: those of which a tile wants votes, and all of the region where entropy is kept."""
        missing, region = [], coarse(self.config.region, self.reduction)
        for index, block in enumerate(self.window.blocks):
            votes = self.store.get(f"votes-{index}") if index in wanted else None
            if votes is not None:
                self._extents[index] = Extent(*votes["extent"].tolist())
            if (index in wanted and votes is None) or (
                self.config.entropy
                and (index in wanted or block.write_region.common(region) is not None)
                and self.store.get(f"entropy-{index}") is None
            ):
                missing.append(index)
        return missing

    def _run_block(self, index: int) -> Extent:
        """Run the network on a block, keep its votes and entropy, and give how far they reach."""
        block, classes = self.window.blocks[index], self.network.architecture.classes
        region, context = block.write_region, block.context
        raw = self.window.forward(block, self.read_seen(block.read_region))
        votes = cast_votes(to_maps(raw, classes), self.thresholds, context, region, self.seen.shape)
        extent = Extent.of(votes, self.thresholds)
        if self.config.entropy:
            bits = to_entropy(raw[..., *region.within(context)], classes).astype(np.float16)
            self.store.put(f"entropy-{index}", {"bits": bits})
        candidates = votes.candidates
        self.store.put(
            f"votes-{index}",
            {
                "points": votes.points,
                "position": candidates.position,
                "heat": candidates.heat,
                "radius": candidates.radius,
                "extent": np.array([extent.vote, extent.assign, extent.nms]),
            },
        )
        return extent

    def _keep_extent(self, block: int, extent: Extent) -> None:
        with self._lock:
            self._extents[block] = extent

    def _extent(self, blocks: Sequence[int]) -> Extent | None:
        """How far the votes of these blocks reach; None of no block."""
        return reduce(operator.or_, (self._extents[block] for block in blocks)) if blocks else None

    def _segment_tile(self, name: str, reaching: Extent | None) -> None:
        """Turn the votes around a tile, which reach so far, into its nuclei, and keep them."""
        tile, factor, shape = self._tiles[name], self.reduction, self.seen.shape
        seen = coarse(tile, factor)
        extent = reaching or Extent(0, 0, 0)
        box = seen.grown(extent.context + extent.nucleus + (factor > 1), within=shape)
        votes = None if reaching is None else self._votes(box)  # there are none in a constant image
        done = Measured(np.zeros(0, dtype=nucleus_type(len(self.channels))), np.zeros(0, dtype=np.uint8))
        if votes is not None and len(votes.candidates.position):
            wide = seen.grown(extent.nucleus, within=shape)
            area = fine(wide, factor, self.reader.shape).common(self.config.region)
            assert area is not None  # it holds the tile
            labels, found = instances_from_votes(votes, box, self._scaled)
            centres = Candidates(found.position * factor + factor // 2, found.heat, found.radius * factor)
            own = self._own(centres.position, tile)
            at_bound = reaches_bound(votes, box, wide) if extent.vote == MAX_DISTANCE else None
            at_bound = None if at_bound is None else self._repeated(at_bound, wide, area)
            bits = self.entropy(area) if self.config.entropy else None
            cut = self._enlarged(labels, box, wide, area)
            every = self.every.read(area) if self.every is not None else None
            done = measure(cut, area, centres, own, self.reader.read(area), bits, at_bound, every)
            wide_ones = names(centres.position[self.thresholds.assign_radius * found.radius >= MAX_DISTANCE])
            done.rows["bounded"] |= np.isin(done.rows["name"], wide_ones)
        self.store.put(name, {"rows": done.rows, "masks": done.masks})

    @property
    def _scaled(self) -> Thresholds:
        """The thresholds for the reduced image."""
        return replace(self.thresholds, min_area=-(-self.thresholds.min_area // self.reduction**2))

    def _enlarged(self, labels: Labels, held: Box, seen: Box, box: Box) -> Labels:
        """The labels in `box`, which `seen` covers in the reduced image, of those of the box `held`."""
        if self.reduction == 1:
            return np.ascontiguousarray(labels[box.within(held)])
        around = seen.grown(1, within=self.seen.shape)
        missing = [(seen.y - around.y, around.bottom - seen.bottom), (seen.x - around.x, around.right - seen.right)]
        framed = np.pad(labels[around.within(held)], [(1 - low, 1 - high) for low, high in missing], mode="edge")
        whole = Box(seen.y * self.reduction, seen.x * self.reduction, *(self.reduction * side for side in seen.shape))
        return np.ascontiguousarray(enlarge(framed, self.reduction)[box.within(whole)])

    def _own(self, position: NDArray[np.int64], tile: Box) -> NDArray[np.bool_]:
        """Which centres are the tile's: those in it, and those outside the region that it is nearest to."""
        region = self.config.region
        y = np.clip(position[:, 0], region.y, region.bottom - 1)
        x = np.clip(position[:, 1], region.x, region.right - 1)
        return np.asarray((y >= tile.y) & (y < tile.bottom) & (x >= tile.x) & (x < tile.right))

    def _votes(self, box: Box) -> Votes:
        """All votes in a box, put together from those of the blocks."""
        points = np.empty((2, *box.shape), dtype=np.int8)
        parts = []
        for block in self.window.meeting(box):
            region, kept = self.window.blocks[block].write_region, self._decode(f"votes-{block}")
            common = region.common(box)
            assert common is not None  # as they meet
            points[:, *common.within(box)] = kept["points"][:, *common.within(region)]
            y, x = kept["position"].T
            inside = (y >= box.y) & (y < box.bottom) & (x >= box.x) & (x < box.right)
            parts.append(Candidates(kept["position"], kept["heat"], kept["radius"])[inside])
        position = np.concatenate([part.position for part in parts])
        order = np.lexsort((position[:, 1], position[:, 0]))
        heat, radius = (np.concatenate([getattr(part, what) for part in parts])[order] for what in ("heat", "radius"))
        return Votes(points, Candidates(position[order], heat, radius))

    def _decode(self, name: str) -> Arrays:
        return self._decoded.get(name, 0, lambda: self.store[name])
