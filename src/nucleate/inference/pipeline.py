"""An image of any size -> its nuclei, by blocks of the network and tiles of nuclei, in bounded memory.

1. Each block goes through the network; what is left of its output are its votes.
2. A tile is done once the blocks around it are: its votes, and as many around it as any of its nuclei depends on, are
   joined. A nucleus belongs to the tile that its centre lies in, and is whole there, whatever tiles its pixels lie in.
3. Row by row of tiles the nuclei are numbered in the order of their centres.

Blocks depend on the image alone and nuclei on the votes alone, so that the result is the same for all tiles, and for a
region that of the whole image, cut out.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from nucleate.data.normalization import Statistics
from nucleate.inference.block_store import Arrays, Spool
from nucleate.inference.instances import SpooledNuclei, number
from nucleate.inference.measurements import NUCLEUS, Measured, measure, names, reaches_bound
from nucleate.inference.repeats import Repeats
from nucleate.inference.sliding_window import SIDE, Block, Network, Passage
from nucleate.inference.tiling import tiles
from nucleate.io.formats.progress import Observe
from nucleate.io.reader import Reader
from nucleate.networks.decode import to_entropy, to_maps
from nucleate.networks.runtime import return_memory
from nucleate.postprocess.instances_from_maps import BOUND, Candidates, Extent, Votes, join, vote
from nucleate.types import Box, Thresholds

DEPENDS = Extent().context + Extent().nucleus
"""Pixels; the label of a pixel depends on no votes further away."""

LOOKED_AT = DEPENDS + 2 * BOUND
"""Pixels; how far votes around a tile may reach, and so how much of them it depends on, is known from those within."""

_SUBMITTED = 16  # pieces of work, several for each thread of the pool; after as many, freed memory is given back
_KEPT = 12  # blocks that are kept decoded: a tile and what it depends on meet nine, its neighbour six of them


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of one image: the part `region` of it, in tiles of `tile` pixels a side; `entropy` also keeps the
    predictive entropy of every pixel; `side` is that of the network's blocks."""

    region: Box
    tile: int
    entropy: bool = False
    side: int = SIDE


class Stream:
    """One image on its way. `statistics` are those of the whole image, whatever the region."""

    def __init__(
        self,
        network: Network,
        reader: Reader,
        statistics: Statistics,
        thresholds: Thresholds,
        spool: Spool,
        plan: Plan,
    ) -> None:
        self.reader, self.statistics, self.thresholds = reader, statistics, thresholds
        self.spool, self.plan = spool, plan
        self.classes = network.architecture.classes
        self.seconds_in_network = 0.0
        self._lock = threading.Lock()
        self._decoded: OrderedDict[str, Arrays] = OrderedDict()
        rows, columns = (tiles(length, plan.tile) for length in plan.region.shape)
        self.borders = [plan.region.y + begin for begin, _ in rows] + [plan.region.bottom]
        self.rows = [[f"tile-{i}-{j}" for j in range(len(columns))] for i in range(len(rows))]
        self._tiles = {
            f"tile-{i}-{j}": Box(plan.region.y + y, plan.region.x + x, bottom - y, right - x)
            for i, (y, bottom) in enumerate(rows)
            for j, (x, right) in enumerate(columns)
        }
        if statistics.constant:
            self.blocks: tuple[Block, ...] = ()
        else:
            begin = time.perf_counter()
            self.passage = Passage(Repeats(network), reader.shape, self._read, side=plan.side)
            self.seconds_in_network += time.perf_counter() - begin
            self.blocks = self.passage.blocks
        places = [(b.writes.y, b.writes.x, b.writes.bottom, b.writes.right) for b in self.blocks]
        self._places = np.array(places, dtype=np.int64).reshape(-1, 4)
        self._extents: dict[int, Extent] = {}

    def _read(self, box: Box) -> torch.Tensor:
        """The image as the network sees it."""
        return torch.from_numpy(self.statistics.normalise(self.reader.read(box), self.reader.channels))[None]

    def run(self, pool: Executor | None = None, observe: Observe | None = None) -> None:
        """Find the nuclei of every tile; what the spool holds already is kept. With a pool, its threads do it."""
        needs, missing = self._open()
        waits: dict[int, list[str]] = {block: [] for block in missing}
        left: dict[str, int] = {}
        for tile, blocks in needs.items():
            left[tile] = sum(block in waits for block in blocks)
            for block in blocks:
                if block in waits:
                    waits[block].append(tile)
        users = Counter(block for blocks in needs.values() for block in blocks)

        def finish(tile: str) -> None:
            self._do_tile(tile, needs[tile])
            with self._lock:
                for block in needs[tile]:
                    users[block] -= 1
                over = [block for block in needs[tile] if not users[block]]
            for block in over:  # no tile that is still to come depends on it
                self.spool.drop(f"votes-{block}")

        def step(block: int) -> None:
            self._do_block(block)
            with self._lock:
                for tile in waits[block]:
                    left[tile] -= 1
                ready = [tile for tile in waits[block] if not left[tile]]
            for tile in ready:
                finish(tile)

        at_once = [tile for tile, count in left.items() if not count]
        _do([*(partial(finish, tile) for tile in at_once), *(partial(step, block) for block in missing)], pool, observe)

    def nuclei(self, name: str, *, downsample: float = 1.0, pixel_size: float | None = None) -> SpooledNuclei:
        """The nuclei, numbered, once `run` is done."""
        counts = number(self.spool, self.rows)
        region = self.plan.region
        return SpooledNuclei(
            name, self.spool, counts, self.borders, region, downsample=downsample, pixel_size=pixel_size
        )

    def entropy(self, box: Box) -> NDArray[np.float16]:
        """Of the pixels in a box of the image the predictive entropy in bits; 0 in a constant image."""
        found = np.zeros(box.shape, dtype=np.float16)
        for block in self._meeting(box):
            writes = self.blocks[block].writes
            common = writes.common(box)
            assert common is not None  # as they meet
            found[common.within(box)] = self._decode(f"entropy-{block}")["bits"][common.within(writes)]
        return found

    def _open(self) -> tuple[dict[str, list[int]], list[int]]:
        """The blocks that each tile needs which is not done, and which of them are to be computed."""
        needs: dict[str, list[int]] = {}
        for tile, box in self._tiles.items():
            if self.spool.get(tile) is None:
                needs[tile] = self._meeting(box.grown(LOOKED_AT, within=self.reader.shape))
        wanted = {block for blocks in needs.values() for block in blocks}
        missing = []
        for block in range(len(self.blocks)):
            if block in wanted:
                votes = self.spool.get(f"votes-{block}")
                if votes is not None and (not self.plan.entropy or self.spool.get(f"entropy-{block}") is not None):
                    self._extents[block] = Extent(*votes["extent"].tolist())
                    continue
            elif not self.plan.entropy or not self._in_region(block) or self.spool.get(f"entropy-{block}") is not None:
                continue
            missing.append(block)
        return needs, missing

    def _in_region(self, block: int) -> bool:
        return self.blocks[block].writes.common(self.plan.region) is not None

    def _meeting(self, box: Box) -> list[int]:
        """The blocks that write a pixel of a box, in order."""
        top, left, bottom, right = self._places.T
        meets = (top < box.bottom) & (bottom > box.y) & (left < box.right) & (right > box.x)
        found: list[int] = np.flatnonzero(meets).tolist()
        return found

    def _do_block(self, index: int) -> None:
        block = self.blocks[index]
        pixels = self._read(block.needs)
        begin = time.perf_counter()
        raw = self.passage.run(block, pixels)
        spent = time.perf_counter() - begin
        votes = vote(to_maps(raw, self.classes), self.thresholds, block.gives, block.writes, self.reader.shape)
        extent = Extent.of(votes, self.thresholds)
        if self.plan.entropy:
            inner = block.writes.within(block.gives)
            self.spool.put(f"entropy-{index}", {"bits": to_entropy(raw[..., *inner], self.classes).astype(np.float16)})
        candidates = votes.candidates
        self.spool.put(
            f"votes-{index}",
            {
                "points": votes.points,
                "position": candidates.position,
                "heat": candidates.heat,
                "radius": candidates.radius,
                "extent": np.array([extent.points, extent.reach, extent.separation]),
            },
        )
        with self._lock:
            self._extents[index] = extent
            self.seconds_in_network += spent

    def _do_tile(self, name: str, blocks: Sequence[int]) -> None:
        tile, shape = self._tiles[name], self.reader.shape
        extent = Extent(0, 0, 0)
        for block in blocks:
            extent |= self._extents[block]
        box = tile.grown(extent.context + extent.nucleus, within=shape)
        votes = self._votes(box) if blocks else None  # there are none in a constant image
        done = Measured(np.zeros(0, dtype=NUCLEUS), np.zeros(0, dtype=np.uint8))
        if votes is not None and len(votes.candidates.position):
            area = tile.grown(extent.nucleus, within=shape).common(self.plan.region)
            assert area is not None  # it holds the tile
            labels, centres = join(votes, box, self.thresholds)
            own = self._own(centres.position, tile)
            at_bound = reaches_bound(votes, box, area) if extent.points == BOUND else None
            bits = self.entropy(area) if self.plan.entropy else None
            cut = np.ascontiguousarray(labels[area.within(box)])
            done = measure(cut, area, centres, own, self.reader.read(area), bits, at_bound)
            wide = names(centres.position[self.thresholds.reach * centres.radius >= BOUND])
            done.rows["bounded"] |= np.isin(done.rows["name"], wide)
        self.spool.put(name, {"rows": done.rows, "masks": done.masks})

    def _own(self, position: NDArray[np.int64], tile: Box) -> NDArray[np.bool_]:
        """Which centres are the tile's: those in it, and those outside the region that it is nearest to."""
        region = self.plan.region
        y = np.clip(position[:, 0], region.y, region.bottom - 1)
        x = np.clip(position[:, 1], region.x, region.right - 1)
        return np.asarray((y >= tile.y) & (y < tile.bottom) & (x >= tile.x) & (x < tile.right))

    def _votes(self, box: Box) -> Votes:
        """All votes in a box, put together from those of the blocks."""
        points = np.empty((2, *box.shape), dtype=np.int8)
        parts = []
        for block in self._meeting(box):
            writes, kept = self.blocks[block].writes, self._decode(f"votes-{block}")
            common = writes.common(box)
            assert common is not None  # as they meet
            points[:, *common.within(box)] = kept["points"][:, *common.within(writes)]
            y, x = kept["position"].T
            inside = (y >= box.y) & (y < box.bottom) & (x >= box.x) & (x < box.right)
            parts.append(Candidates(kept["position"], kept["heat"], kept["radius"])[inside])
        position = np.concatenate([part.position for part in parts])
        order = np.lexsort((position[:, 1], position[:, 0]))
        heat, radius = (np.concatenate([getattr(part, what) for part in parts])[order] for what in ("heat", "radius"))
        return Votes(points, Candidates(position[order], heat, radius))

    def _decode(self, name: str) -> Arrays:
        with self._lock:
            if name in self._decoded:
                self._decoded.move_to_end(name)
                return self._decoded[name]
        found = self.spool[name]
        with self._lock:
            self._decoded[name] = found
            while len(self._decoded) > _KEPT:
                self._decoded.popitem(last=False)
        return found


def _do(work: Sequence[Callable[[], None]], pool: Executor | None, observe: Observe | None) -> None:
    """All of it, in order, by the threads of a pool or by this one.

    Only as much is submitted as keeps the pool busy: what waits takes memory, and a slide has tens of thousands of
    blocks.
    """
    left, running, done = iter(work), set[Future[None]](), 0
    try:
        while done < len(work):
            if pool is None:
                next(left)()
                ended = 1
            else:
                running.update(pool.submit(one) for one in islice(left, _SUBMITTED - len(running)))
                over, running = wait(running, return_when=FIRST_COMPLETED)
                for future in over:
                    future.result()
                ended = len(over)
            done += ended
            if done % _SUBMITTED < ended:
                return_memory()
            if observe is not None:
                observe(done / len(work))
    except BaseException:
        for future in running:
            future.cancel()
        raise
