"""An image by blocks and tiles: the nuclei of the whole, whatever the tiles, the region, or the interruptions."""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nucleate.data.normalization import Statistics
from nucleate.errors import ImageError, OutputError
from nucleate.inference import scheduler
from nucleate.inference.block_store import FolderBlockStore, MemoryBlockStore
from nucleate.inference.measurements import measure
from nucleate.inference.pipeline import Pipeline, PipelineConfig
from nucleate.inference.scheduler import thread_pool
from nucleate.inference.sliding_window import SlidingWindow
from nucleate.io.reader import MemoryReader
from nucleate.networks.decode import to_entropy, to_maps
from nucleate.networks.unet import UNIT, Architecture
from nucleate.postprocess.instances_from_maps import MAX_DISTANCE, instances_from_maps
from nucleate.types import Box, Image, Thresholds

THRESHOLDS = Thresholds(
    foreground=0.5, peak_threshold=0.5, nms_radius=0.8, assign_radius=0.9, min_area=6, seed_foreground=0.0
)


class Painted:
    """Stands for a network: its outputs are the image's own channels, so that any maps can be put before it."""

    def __init__(self, radius=2.5, offset=6.0):
        self.architecture = Architecture(channels=5, widths=(8, 8))
        self.reach, self.radius, self.offset, self.calls = 0, radius, offset, 0

    def expect(self, height, width):
        """All sizes are the same to it."""

    def raw(self, image):
        self.calls += 1
        foreground, heat, y, x, radius = (image - 0.5).unbind(1)
        log_radius = math.log(self.radius / UNIT) + 0.4 * radius
        step = self.offset / UNIT
        return torch.stack([-5 * foreground, 5 * foreground, 8 * heat, step * y, step * x, log_radius], dim=1)


def fields(seed, shape, dtype=np.float32):
    """Five smooth random channels."""
    rng = np.random.default_rng(seed)
    channels = [ndimage.gaussian_filter(rng.normal(size=shape), sigma) for sigma in (1.5, 1.2, 2.0, 2.0, 2.0)]
    pixels = np.stack([0.5 + one / (4 * one.std() + 1e-9) for one in channels], axis=2)
    if dtype == np.uint8:
        return np.clip(pixels * 255, 0, 255).astype(np.uint8)
    return pixels.astype(dtype)


def reader_of(pixels, name="painted"):
    return MemoryReader(Image(name, pixels, tuple(f"channel {n}" for n in range(pixels.shape[2]))))


def segmented(reader, config, *, store=None, network=None, thresholds=THRESHOLDS, pool=None):
    """The labels and the table."""
    statistics = Statistics.of(reader, 5)
    pipeline = Pipeline(network or Painted(), reader, statistics, thresholds, store or MemoryBlockStore(), config)
    pipeline.run(pool)
    nuclei = pipeline.instances("painted")
    labels = nuclei.read(Box(0, 0, *nuclei.shape))
    found = list(nuclei)
    assert len(found) == nuclei.count
    assert [one.nucleus for one in found] == list(nuclei.measurements())
    again = np.zeros_like(labels)
    for one in found:
        again[one.box.y : one.box.bottom, one.box.x : one.box.right][one.mask] = one.nucleus.id
        assert one.mask.sum() == one.nucleus.area
        assert all(edge.any() for edge in (one.mask[0], one.mask[-1], one.mask[:, 0], one.mask[:, -1]))
    np.testing.assert_array_equal(again, labels)
    return labels, [one.nucleus for one in found], pipeline


def in_one_piece(reader, network, thresholds, side):
    """The same as from one array, without blocks of votes or tiles."""
    statistics = Statistics.of(reader, 5)

    def read(box):
        return torch.from_numpy(statistics.normalise(reader.read(box), reader.channels))[None]

    raw = SlidingWindow.plan(network, reader.shape, read, side=side).whole(read)
    return instances_from_maps(to_maps(raw, 2), thresholds), raw


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    tile=st.integers(20, 200),
    side=st.integers(24, 90),
    radius=st.sampled_from([2.5, 4.0, 12.0]),
    smallest=st.integers(0, 30),
    certainty=st.sampled_from([0.0, 0.6, 0.8]),
    dtype=st.sampled_from([np.float32, np.uint8]),
)
def test_tiles_give_the_nuclei_of_the_whole(seed, shape, tile, side, radius, smallest, certainty, dtype):
    reader = reader_of(fields(seed, shape, dtype))
    thresholds = replace(THRESHOLDS, min_area=smallest, seed_foreground=certainty)
    assume(not Statistics.of(reader, 5).constant)  # such as one pixel, which holds nothing for a pipeline
    network = Painted(radius)
    labels, table, _ = segmented(
        reader, PipelineConfig(reader.box, tile, side=side), network=network, thresholds=thresholds
    )
    grouped, _ = in_one_piece(reader, network, thresholds, side)
    np.testing.assert_array_equal(labels, grouped.labels)
    assert [row.id for row in table] == list(range(1, len(grouped.centre) + 1))
    assert [row.score for row in table] == [round(float(score), 4) for score in grouped.score]
    # To the last digit, also of float images, whose sums depend on the order.
    assert (
        table
        == segmented(reader, PipelineConfig(reader.box, 1000, side=side), network=network, thresholds=thresholds)[1]
    )


def test_there_are_nuclei_across_the_borders_of_tiles():
    reader = reader_of(fields(0, (150, 150)))
    labels = segmented(reader, PipelineConfig(reader.box, 40))[0]
    assert labels.max() > 60
    across = (labels[39::40][:3] == labels[40::40][:3]) & (labels[39::40][:3] > 0)
    assert across.sum() > 10


def test_a_tile_sees_what_a_hole_in_its_nuclei_depends_on():
    """A ring; in its hole two pixels of another nucleus, of which a larger piece lies as far away as pixels can."""
    shape, ring, other = (61, 144), (30, 60), (30, 82)
    from_ring = np.stack(np.indices(shape)) - np.reshape(ring, (2, 1, 1))
    raw = np.zeros((6, *shape), np.float32)
    raw[0], raw[2] = 5, -5  # background everywhere, centres nowhere
    owners = dict.fromkeys(zip(*np.nonzero(np.abs(np.hypot(*from_ring) - 11.2) < 0.8), strict=True), ring)
    owners |= dict.fromkeys([(29, 70), (30, 70), (29, 94), (30, 94), (31, 94)], other)
    for (y, x), owner in owners.items():
        raw[:2, y, x] = -5, 5
        raw[3:5, y, x] = np.clip(np.subtract(owner, (y, x)), -10, 10) / UNIT
    for y, x in (ring, other):
        raw[2, y, x] = 5
    raw[5] = math.log(12 / UNIT)  # no nuclei that would be resized

    class Said(Painted):
        def raw(self, image):
            return torch.from_numpy(raw)[None]

    thresholds = Thresholds(nms_radius=1.9 / 12, assign_radius=1.9 / 12, min_area=1, seed_foreground=0.0)
    reader = reader_of(fields(0, shape))
    whole = instances_from_maps(to_maps(torch.from_numpy(raw)[None], 2), thresholds)
    assert len(whole.centre) == 2 and (whole.labels[29:31, 70] == whole.labels[30, 50]).all() and whole.labels[30, 60]
    labels, _, pipeline = segmented(reader, PipelineConfig(reader.box, 72), network=Said(), thresholds=thresholds)
    assert len(pipeline._rows[0]) == 2, "the ring lies in one tile, the other nucleus in the next"
    np.testing.assert_array_equal(labels, whole.labels)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), tile=st.integers(30, 90), data=st.data(), offset=st.sampled_from([2.0, 12.0]))
def test_a_region_is_the_whole_cut_out(seed, tile, data, offset):
    shape = (130, 110)
    reader, network = reader_of(fields(seed, shape)), Painted(4.0, offset)
    y, x = data.draw(st.integers(0, 129)), data.draw(st.integers(0, 109))
    region = Box(y, x, data.draw(st.integers(1, 130 - y)), data.draw(st.integers(1, 110 - x)))
    whole = segmented(reader, PipelineConfig(reader.box, 64, side=48), network=network)
    part = segmented(reader, PipelineConfig(region, tile, side=48), network=network)
    cut = whole[0][y : region.bottom, x : region.right]
    present = np.unique(cut[cut > 0])
    number = np.zeros(whole[0].max() + 1, dtype=np.uint32)
    number[present] = np.arange(1, len(present) + 1)
    np.testing.assert_array_equal(part[0], number[cut])
    # A nucleus that the region does not cut is measured as in the whole.
    for old in present:
        row, areas = part[1][number[old] - 1], whole[1][old - 1].area
        if row.area == areas:
            moved = replace(whole[1][old - 1], id=row.id, y=round(row.y + y, 3), x=round(row.x + x, 3))
            assert replace(row, y=moved.y, x=moved.x) == moved
            assert moved == replace(whole[1][old - 1], id=row.id)


def test_a_region_uses_no_more_of_the_network_than_what_it_depends_on():
    pixels = np.tile(fields(0, (64, 64)), (4, 40, 1))
    network = Painted()
    pipeline = segmented(reader_of(pixels), PipelineConfig(Box(10, 10, 20, 20), 64, side=64), network=network)[2]
    assert network.calls < len(pipeline.window.blocks) / 2


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6), tile=st.integers(20, 70))
def test_entropy_is_that_of_the_whole(seed, tile):
    reader, network = reader_of(fields(seed, (100, 90))), Painted()
    config = PipelineConfig(reader.box, tile, entropy=True, side=48)
    labels, table, pipeline = segmented(reader, config, network=network)
    grouped, raw = in_one_piece(reader, network, THRESHOLDS, 48)
    bits = to_entropy(raw, 2)
    # Vectors and single numbers may differ in their last bit, and where float16 rounds, that shows.
    np.testing.assert_allclose(pipeline.entropy(reader.box).astype(np.float32), bits, rtol=1e-3, atol=1e-6)
    for row in table:
        assert row.entropy == pytest.approx(float(bits[labels == row.id].mean()), abs=2e-3)
    assert segmented(reader, replace(config, entropy=False), network=network)[1] == [
        replace(row, entropy=None) for row in table
    ]
    assert len(grouped.centre) == len(table)


class Broken(Exception):
    pass


class Interrupted(FolderBlockStore):
    """Breaks off at one of its writes."""

    def __init__(self, folder, left):
        super().__init__(folder)
        self.left = left

    def put(self, name, arrays):
        if self.left == 0:
            raise Broken
        self.left -= 1
        super().put(name, arrays)


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.integers(0, 70), second=st.integers(0, 40), threads=st.booleans(), entropy=st.booleans())
def test_what_was_interrupted_is_resumed_to_the_same_bytes(tmp_path_factory, first, second, threads, entropy):
    reader = reader_of(fields(3, (150, 130)))
    config = PipelineConfig(reader.box, 50, entropy=entropy, side=48)
    expected = tmp_path_factory.mktemp("expected")
    segmented(reader, config, store=FolderBlockStore(expected))
    folder, network = tmp_path_factory.mktemp("store"), Painted()
    for left in (first, second):
        with suppress(Broken):
            segmented(reader, config, store=Interrupted(folder, left), network=network)
    if threads:
        with thread_pool(2, 1) as pool:
            segmented(reader, config, store=FolderBlockStore(folder), network=network, pool=pool)
    else:
        segmented(reader, config, store=FolderBlockStore(folder), network=network)
    found, wanted = ({path.name: path.read_bytes() for path in one.iterdir()} for one in (folder, expected))
    assert found == wanted


def test_what_is_done_is_not_done_again(tmp_path):
    reader = reader_of(fields(3, (150, 130)))
    config = PipelineConfig(reader.box, 50, side=48)
    whole, once, twice = Painted(), Painted(), Painted()
    segmented(reader, config, network=whole)
    with pytest.raises(Broken):
        segmented(reader, config, store=Interrupted(tmp_path, 6), network=once)
    segmented(reader, config, store=FolderBlockStore(tmp_path), network=twice)
    assert once.calls < whole.calls and twice.calls < whole.calls
    # A block that was interrupted is computed twice, and the size of nuclei is judged in each run.
    assert once.calls + twice.calls <= whole.calls + 2


def test_a_damaged_file_of_the_work_folder_is_made_again(tmp_path):
    reader = reader_of(fields(3, (150, 130)))
    config = PipelineConfig(reader.box, 50, side=48)
    expected = segmented(reader, config)[:2]
    with pytest.raises(Broken):
        segmented(reader, config, store=Interrupted(tmp_path, 12))
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if number % 2 else content[:-1] + bytes([content[-1] ^ 1]))
    found = segmented(reader, config, store=FolderBlockStore(tmp_path))
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]


@pytest.mark.parametrize("threads", [False, True])
def test_an_error_in_a_block_is_raised(threads):
    class Cut(MemoryReader):
        def read(self, box):
            if box.y > 60:
                raise ImageError("It ended while it was read.")
            return super().read(box)

    whole = reader_of(fields(0, (200, 60)))
    reader = Cut(whole.image)
    pipeline = Pipeline(
        Painted(),
        reader,
        Statistics.of(whole, 5),
        THRESHOLDS,
        MemoryBlockStore(),
        PipelineConfig(reader.box, 64, side=48),
    )
    with pytest.raises(ImageError, match="ended"):
        if threads:
            with thread_pool(2, 1) as pool:
                pipeline.run(pool)
        else:
            pipeline.run()


def test_threads_change_nothing():
    reader = reader_of(fields(5, (180, 150)))
    config = PipelineConfig(reader.box, 60, side=48)
    expected = segmented(reader, config)
    shares = []
    with thread_pool(2, 1) as pool:
        pipeline = Pipeline(Painted(), reader, Statistics.of(reader, 5), THRESHOLDS, MemoryBlockStore(), config)
        pipeline.run(pool, shares.append)
    nuclei = pipeline.instances("painted")
    np.testing.assert_array_equal(nuclei.read(reader.box), expected[0])
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_empty_parts_go_through_the_network_once():
    pixels = np.full((400, 400, 5), 0.2, dtype=np.float32)
    pixels[:60, :60] = fields(0, (60, 60))
    network = Painted(radius=12.0)
    labels, _, pipeline = segmented(
        reader_of(pixels), PipelineConfig(Box(0, 0, 400, 400), 100, side=48), network=network
    )
    assert labels.any() and len(pipeline.window.blocks) > 60
    assert network.calls < 15
    slow = Painted(radius=12.0)
    grouped, _ = in_one_piece(reader_of(pixels), slow, THRESHOLDS, 48)
    np.testing.assert_array_equal(labels, grouped.labels)
    assert slow.calls > 60


def test_a_constant_image_holds_nothing():
    reader, network = reader_of(np.full((50, 40, 5), 3, np.uint8)), Painted()
    labels, table, pipeline = segmented(reader, PipelineConfig(reader.box, 20, entropy=True), network=network)
    assert not labels.any() and table == [] and network.calls == 0
    assert not pipeline.entropy(reader.box).any()


@pytest.mark.parametrize(("radius", "offset", "bounded"), [(20.0, 4.0, 0), (90.0, 4.0, 1), (20.0, 200.0, 1)])
def test_nuclei_that_reach_the_bound_are_counted(radius, offset, bounded):
    pixels = np.full((200, 200, 5), 0.5, dtype=np.float32)
    pixels[..., 0] = 0.0
    pixels[90:110, 90:110, 0] = 1.0
    # A cone, as an image of large nuclei is reduced.
    pixels[..., 1] = np.clip(1 - np.hypot(*(np.indices((200, 200)) - 100)) / 10, 0, 1)
    pixels[140:180, 85:115, 0] = 1.0
    pixels[140:180, 85:115, 2] = 0.0  # these point up
    network = Painted(radius, offset)
    pipeline = segmented(reader_of(pixels), PipelineConfig(Box(0, 0, 200, 200), 100), network=network)[2]
    assert pipeline.instances("painted").count == 1
    assert pipeline.instances("painted").bounded() == bounded
    assert MAX_DISTANCE == 64


def test_measures_need_no_pixels_where_there_is_no_nucleus():
    labels = np.zeros((4, 5), np.int32)
    pipeline = segmented(reader_of(fields(0, (30, 30))), PipelineConfig(Box(0, 0, 30, 30), 30))[2]
    candidates = pipeline._votes(Box(0, 0, 30, 30)).candidates[:0]
    none = np.zeros(0, dtype=np.bool_)
    assert len(measure(labels, Box(0, 0, 4, 5), candidates, none, np.zeros((4, 5, 1), np.uint8)).rows) == 0


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_work_is_done_in_order_a_few_pieces_at_a_time(threads, monkeypatch):
    begun, waiting, most, told, returned = [], 0, 0, [], []
    monkeypatch.setattr(scheduler, "return_memory", lambda: returned.append(True))

    class Counting(ThreadPoolExecutor):
        def submit(self, one):
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            future = super().submit(one)
            future.add_done_callback(ended)
            return future

    def ended(future):
        nonlocal waiting
        waiting -= 1

    work = [partial(begun.append, number) for number in range(200)]
    with ExitStack() as stack:
        scheduler.do_all(work, threads and stack.enter_context(Counting(threads)), told.append)
    assert sorted(begun) == list(range(200)) and (threads == 3 or begun == sorted(begun))
    assert len(returned) == 200 // scheduler.SUBMITTED
    assert most <= scheduler.SUBMITTED and told == sorted(told) and told[-1] == 1.0


def test_after_an_error_nothing_more_begins():
    begun = []

    def work(number):
        begun.append(number)
        if number == 3:
            raise OutputError("the disk is full")

    with ThreadPoolExecutor(1) as pool, pytest.raises(OutputError):
        scheduler.do_all([partial(work, number) for number in range(200)], pool, None)
    assert len(begun) <= 4 + scheduler.SUBMITTED


def test_making_a_pipeline_runs_nothing():
    reader, network, store = reader_of(fields(0, (60, 50))), Painted(), MemoryBlockStore()
    pipeline = Pipeline(network, reader, Statistics.of(reader, 5), THRESHOLDS, store, PipelineConfig(reader.box, 20))
    assert network.calls == 0 and pipeline.window.blocks == () and store._kept == {}


@settings(deadline=None, max_examples=60)
@given(data=st.data(), tiles=st.integers(1, 8), blocks=st.integers(1, 8))
def test_tiles_are_ready_with_their_blocks_and_blocks_are_needed_until_their_last_tile(data, tiles, blocks):
    needs = {f"{n}": sorted(data.draw(st.sets(st.integers(0, blocks - 1), min_size=n % 2))) for n in range(tiles)}
    missing = data.draw(st.permutations(range(blocks)))[: data.draw(st.integers(0, blocks))]
    schedule = scheduler.Schedule(needs, missing)
    there, finished, dropped = set(range(blocks)) - set(missing), [], []

    def finish(ready):
        for tile in ready:
            assert there.issuperset(needs[tile])
            finished.append(tile)
            dropped.extend(schedule.tile_done(tile))
            left = {block for other in needs.keys() - set(finished) for block in needs[other]}
            assert left.isdisjoint(dropped)

    finish(schedule.ready())
    for block in missing:
        there.add(block)
        finish(schedule.block_done(block))
        assert set(finished) == {tile for tile, wanted in needs.items() if there.issuperset(wanted)}
    assert sorted(finished) == sorted(needs)
    assert sorted(dropped) == sorted({block for wanted in needs.values() for block in wanted})
