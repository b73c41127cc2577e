"""Maps to nuclei: against slow references, and the laws that let tiles be cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from nucleate.postprocess.instances_from_maps import (
    MAX_DISTANCE,
    Candidates,
    Extent,
    Votes,
    assign_pixels,
    cast_votes,
    instances_from_maps,
    instances_from_votes,
    keep_largest_component,
    non_maximum_suppression,
)
from nucleate.postprocess.kernels import BACKGROUND
from nucleate.types import Box, Maps, Thresholds


def votes_of(maps, thresholds):
    shape = maps.heat.shape
    return cast_votes(maps, thresholds, Box(0, 0, *shape), Box(0, 0, *shape), shape)


def find_centres(maps, thresholds):
    candidates = votes_of(maps, thresholds).candidates
    return candidates.position[non_maximum_suppression(candidates, thresholds.nms_radius)]


def assign(maps, centre, thresholds):
    y, x = centre.T
    given_centres = Candidates(centre, maps.heat[y, x], maps.radius[y, x])
    box = Box(0, 0, *maps.heat.shape)
    return assign_pixels(votes_of(maps, thresholds).points, box, given_centres, thresholds.assign_radius)


def steps(low, high, unit):
    """Multiples of `unit`: exact in float32, and often equal to each other, so that ties are met."""
    return st.integers(round(low / unit), round(high / unit)).map(lambda k: np.float32(k * unit))


THRESHOLDS = st.builds(
    Thresholds,
    foreground=st.sampled_from([0.25, 0.5, 0.75]),
    peak_threshold=st.sampled_from([0.25, 0.5]),
    nms_radius=st.sampled_from([0.5, 1.0]),
    assign_radius=st.sampled_from([0.5, 1.0]),
    min_area=st.integers(0, 6),
    seed_foreground=st.sampled_from([0.0, 0.4, 0.5, 0.6]),
)


@st.composite
def small_maps(draw):
    """Random maps. Radii are 4 to 6 pixels, so that no distance is rounded up to the least one."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=14))
    values = (steps(0, 1, 0.25), steps(0, 1, 0.125), steps(-5, 5, 0.25), steps(4, 6, 0.5))
    shapes = (shape, shape, (2, *shape), shape)
    return Maps(*(draw(hnp.arrays(np.float32, s, elements=v)) for s, v in zip(shapes, values, strict=True)))


def slow_centres(maps, thresholds):
    height, width = maps.heat.shape
    candidates = []
    for y in range(height):
        for x in range(width):
            window = maps.heat[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
            sure = [
                float(maps.foreground[min(max(q, 0), height - 1), min(max(r, 0), width - 1)])
                for q in (y - 1, y, y + 1)
                for r in (x - 1, x, x + 1)
            ]
            if maps.heat[y, x] < thresholds.peak_threshold or sum(sure) / 9 < thresholds.seed_foreground:
                continue
            if maps.heat[y, x] == window.max():
                candidates.append((y, x))
    found = []
    for y, x in candidates:
        apart = thresholds.nms_radius * float(maps.radius[y, x])
        better = [
            (q, r)
            for q, r in candidates
            if (q - y) ** 2 + (r - x) ** 2 <= apart**2
            and (maps.heat[q, r] > maps.heat[y, x] or (maps.heat[q, r] == maps.heat[y, x] and (q, r) < (y, x)))
        ]
        if not better:
            found.append([y, x])
    return found


def slow_assign(maps, centre, thresholds):
    height, width = maps.heat.shape
    labels = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            if maps.foreground[y, x] < thresholds.foreground:
                continue
            py = min(max(y + round(float(maps.offset[0, y, x])), 0), height - 1)
            px = min(max(x + round(float(maps.offset[1, y, x])), 0), width - 1)
            best = None
            for number, (cy, cx) in enumerate(centre, start=1):
                squared = (cy - py) ** 2 + (cx - px) ** 2
                if squared <= (thresholds.assign_radius * float(maps.radius[cy, cx])) ** 2 and (
                    best is None or squared < best
                ):
                    best, labels[y, x] = squared, number
    return labels


@settings(deadline=None, max_examples=150)
@given(maps=small_maps(), thresholds=THRESHOLDS)
def test_centres_equal_the_slow_reference(maps, thresholds):
    assert find_centres(maps, thresholds).tolist() == slow_centres(maps, thresholds)


@settings(deadline=None, max_examples=150)
@given(maps=small_maps(), thresholds=THRESHOLDS)
def test_assignment_equals_the_slow_reference(maps, thresholds):
    centre = find_centres(maps, thresholds)
    np.testing.assert_array_equal(assign(maps, centre, thresholds), slow_assign(maps, centre.tolist(), thresholds))


@settings(deadline=None, max_examples=40)
@given(maps=small_maps(), thresholds=THRESHOLDS, data=st.data())
def test_assignment_to_any_centres_equals_the_slow_reference(maps, thresholds, data):
    flat = data.draw(st.lists(st.integers(0, maps.heat.size - 1), unique=True, max_size=8).map(sorted))
    centre = np.stack(np.divmod(np.array(flat, np.int64), maps.heat.shape[1]), axis=1)
    np.testing.assert_array_equal(assign(maps, centre, thresholds), slow_assign(maps, centre.tolist(), thresholds))


@settings(deadline=None, max_examples=100)
@given(maps=small_maps(), thresholds=THRESHOLDS)
def test_laws_of_every_grouping(maps, thresholds):
    found = instances_from_maps(maps, thresholds)
    count = len(found.centre)
    assert found.labels.dtype == np.int32 and found.labels.shape == maps.heat.shape
    assert np.unique(found.labels[found.labels > 0]).tolist() == list(range(1, count + 1))
    assert found.centre.tolist() == sorted(found.centre.tolist())
    assert found.score.tolist() == [maps.heat[y, x] for y, x in found.centre]
    assert (found.score >= thresholds.peak_threshold).all()
    every = find_centres(maps, thresholds).tolist()
    assert all(centre in every for centre in found.centre.tolist())
    for label in range(1, count + 1):
        own = found.labels == label
        assert own.sum() >= thresholds.min_area
        assert ndimage.label(own)[1] == 1
    assert_no_holes(found.labels)
    again = instances_from_maps(maps, thresholds)
    assert np.array_equal(again.labels, found.labels) and np.array_equal(again.centre, found.centre)


def assert_no_holes(labels):
    """Every piece of background reaches the border or lies between two nuclei or more."""
    pieces, count = ndimage.label(labels == 0)
    for piece in range(1, count + 1):
        around = ndimage.binary_dilation(np.pad(pieces == piece, 1))
        assert (
            around[0].any()
            or around[-1].any()
            or around[:, 0].any()
            or around[:, -1].any()
            or (len(np.unique(labels[around[1:-1, 1:-1] & (labels > 0)])) > 1)
        )


def scene(seed, height, width, largest=4.0):
    """Smooth maps of about the same statistics everywhere, radii of at most `largest`, offsets of at most 4 pixels."""
    rng = np.random.default_rng(seed)

    def smooth(sigma, shape=(height, width)):
        field = ndimage.gaussian_filter(rng.normal(size=shape), (0,) * (len(shape) - 2) + (sigma, sigma))
        return (field / field.std()).astype(np.float32)

    return Maps(
        foreground=1 / (1 + np.exp(-3 * smooth(1.5))),
        heat=1 / (1 + np.exp(-2 * smooth(1.2))),
        offset=np.clip(2 * smooth(2, (2, height, width)), -4, 4),
        radius=np.clip(3 + smooth(2), 1, largest),
    )


def cut(maps, box):
    return Maps(maps.foreground[box], maps.heat[box], maps.offset[(slice(None), *box)], maps.radius[box])


def nuclei(grouped, corner, keep):
    """The pixels of each nucleus by the coordinates of its centre in the whole image."""
    named = {}
    for number, centre in enumerate(grouped.centre, start=1):
        name = tuple(int(c) for c in centre + corner)
        if keep(name):
            named[name] = {tuple(p) for p in np.argwhere(grouped.labels == number) + corner}
    return named


SCENE = Thresholds(
    foreground=0.5, peak_threshold=0.5, nms_radius=0.8, assign_radius=0.9, min_area=4, seed_foreground=0.0
)
MARGIN = 32
"""Pixels: more than offset + reach + nms_radius + window of `scene`, and a neighbour's nucleus on top of it."""


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_a_window_gives_the_nuclei_of_the_whole(seed, data):
    size = 120
    maps = scene(seed, size, size)
    spans = []
    for _ in range(2):
        start = data.draw(st.integers(0, 30))
        spans.append((start, data.draw(st.integers(start + 2 * MARGIN + 5, size))))
    corner = np.array([start for start, _ in spans])
    window = cut(maps, tuple(slice(*span) for span in spans))

    def inside(centre):
        return all(start + MARGIN <= c < stop - MARGIN for c, (start, stop) in zip(centre, spans, strict=True))

    assert nuclei(instances_from_maps(window, SCENE), corner, inside) == nuclei(
        instances_from_maps(maps, SCENE), np.zeros(2, int), inside
    )


def test_the_scenes_hold_nuclei():
    found = [instances_from_maps(scene(seed, 120, 120), SCENE) for seed in range(3)]
    assert all(len(one.centre) > 50 for one in found)
    assert all(max(np.ptp(np.argwhere(one.labels == k), axis=0).max() for k in range(1, 50)) < 32 for one in found)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), dy=st.integers(0, 24), dx=st.integers(0, 24))
def test_moving_the_maps_moves_the_nuclei(seed, dy, dx):
    maps = scene(seed, 40, 40)
    found = []
    for y, x in ((12, 12), (12 + dy, 12 + dx)):
        rest = (88 - 40 - y, 88 - 40 - x)
        pads = ((y, rest[0]), (x, rest[1]))
        parts = (maps.foreground, maps.heat, maps.radius)
        foreground, heat, radius = (np.pad(part, pads) for part in parts)
        found.append(instances_from_maps(Maps(foreground, heat, np.pad(maps.offset, ((0, 0), *pads)), radius), SCENE))
    here, there = found
    np.testing.assert_array_equal(there.centre, here.centre + np.array([dy, dx]))
    np.testing.assert_array_equal(there.score, here.score)
    np.testing.assert_array_equal(there.labels, np.roll(here.labels, (dy, dx), (0, 1)))


def flat(shape, foreground=1.0, heat=0.0, radius=5.0):
    return Maps(
        *(np.full(shape, value, np.float32) for value in (foreground, heat)),
        np.zeros((2, *shape), np.float32),
        np.full(shape, radius, np.float32),
    )


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 9), width=st.integers(1, 9), value=st.sampled_from([0.5, 1.0]))
def test_of_a_plateau_the_first_pixel_is_the_centre(height, width, value):
    maps = flat((40, 24))
    maps.heat[3 : 3 + height, 4 : 4 + width] = value
    maps.heat[28:31, 6:9] = value
    assert find_centres(maps, Thresholds(peak_threshold=0.3, nms_radius=0.6)).tolist() == [[3, 4], [28, 6]]


def test_of_two_centres_too_near_the_higher_stays():
    maps = flat((20, 30))
    for height, row in ((0.9, 4), (0.8, 12)):
        maps.heat[row, 5], maps.heat[row, 8] = 0.85, height
    assert find_centres(maps, Thresholds(peak_threshold=0.3, nms_radius=0.8)).tolist() == [[4, 8], [12, 5]]
    assert len(find_centres(maps, Thresholds(peak_threshold=0.3, nms_radius=0.5))) == 4


def test_a_centre_is_compared_with_those_that_are_none_themselves():
    # a < b < c in heat, each within the radius of the next and a far from c: only c stays.
    maps = flat((9, 30))
    maps.heat[4, [5, 8, 11]] = 0.5, 0.6, 0.7
    assert find_centres(maps, Thresholds(peak_threshold=0.3, nms_radius=0.8)).tolist() == [[4, 11]]


def test_many_centres_are_compared_in_blocks():
    maps = flat((400, 400), radius=4.0)
    maps.heat[::4, ::4] = np.linspace(0.5, 0.9, 10_000, dtype=np.float32).reshape(100, 100)
    found = find_centres(maps, Thresholds(peak_threshold=0.3, nms_radius=0.9))
    assert found.tolist() == [[y, x] for y in range(0, 400, 4) for x in range(0, 400, 4)]
    # Each has a higher one to its right or, in the last column, below; only the very last has none.
    assert find_centres(maps, Thresholds(peak_threshold=0.3, nms_radius=1.0)).tolist() == [[396, 396]]


def test_no_distance_goes_beyond_the_bound():
    maps = flat((4 * MAX_DISTANCE, 3), radius=1e6)
    maps.heat[0, 1] = 0.9
    labels = assign(maps, np.array([[0, 1]]), Thresholds(assign_radius=1.0))
    assert labels[: MAX_DISTANCE - 1].all() and not labels[MAX_DISTANCE + 1 :].any()
    maps.offset[0] = -1e6
    assert not assign(maps, np.array([[0, 1]]), Thresholds(assign_radius=1.0))[2 * MAX_DISTANCE + 1 :].any()


def test_largest_piece_stays_and_holes_are_filled():
    labels = np.zeros((9, 20), np.int32)
    labels[1:8, 1:8] = 1
    labels[3, 4] = 0
    labels[5, 3] = 2
    labels[1:3, 10] = 1
    labels[7, 18] = labels[6, 17] = 3
    tidied = keep_largest_component(labels, 1)
    assert (tidied[1:8, 1:8] == 1).sum() == 48 and tidied[3, 4] == 1
    assert tidied[5, 3] == 2 and not tidied[:, 10].any()
    # Pieces that meet at a corner are two; of equal ones the first in reading order stays.
    assert tidied[6, 17] == 3 and tidied[7, 18] == 0
    np.testing.assert_array_equal(keep_largest_component(tidied, 1), tidied)


@settings(deadline=None, max_examples=100)
@given(
    labels=hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)),
    smallest=st.integers(0, 8),
)
def test_keep_largest_component_drops_the_small_and_changes_nothing_else(labels, smallest):
    before = labels.copy()
    tidied = keep_largest_component(labels, smallest)
    np.testing.assert_array_equal(labels, before)
    for label in range(1, 4):
        own, kept = labels == label, tidied == label
        pieces, count = ndimage.label(own)
        areas = np.bincount(pieces.ravel(), minlength=2)[1:] if count else np.array([0])
        largest = pieces == 1 + np.argmax(areas)
        if areas.max() < max(smallest, 1):
            assert not kept.any()
        else:
            assert kept[largest].all()
            assert not (kept & ~ndimage.binary_fill_holes(largest)).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (33, 20)])
def test_nothing_gives_zeros(shape):
    for maps in (flat(shape, foreground=0.0, heat=0.9), flat(shape, foreground=1.0, heat=0.0)):
        found = instances_from_maps(maps, Thresholds())
        assert found.labels.shape == shape and not found.labels.any()
        assert found.centre.shape == (0, 2) and found.score.shape == (0,)


def test_one_pixel_can_be_a_nucleus():
    found = instances_from_maps(flat((1, 1), heat=0.9), Thresholds(min_area=1))
    assert found.labels.tolist() == [[1]] and found.centre.tolist() == [[0, 0]]


@st.composite
def cut_maps(draw):
    """Random maps larger than the context of a tile, with nuclei of a few pixels, many of them touching."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    shape = height, width
    foreground, heat = (ndimage.gaussian_filter(rng.random(shape), 1.0).astype(np.float32) for _ in range(2))
    spread = draw(st.sampled_from([0.5, 2.0, 5.0]))
    offset = ndimage.gaussian_filter(rng.normal(0, 4 * spread, (2, *shape)), (0, 1, 1)).astype(np.float32)
    radius = rng.uniform(1, draw(st.sampled_from([2.0, 6.0])), shape).astype(np.float32)
    return Maps(foreground, heat, offset, radius)


@given(points=hnp.arrays(np.int8, st.tuples(st.just(2), st.integers(0, 4), st.integers(0, 4))))
def test_the_extent_of_points_counts_no_background(points):
    nothing = Candidates(np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))
    far = np.abs(np.where(points == BACKGROUND, 0, points).astype(int)).max(initial=0)
    assert Extent.of(Votes(points, nothing), Thresholds()).vote == far


@settings(deadline=None, max_examples=60)
@given(maps=cut_maps(), smallest=st.integers(0, 12), certainty=st.sampled_from([0.0, 0.5, 0.55]), data=st.data())
def test_a_tile_with_its_context_gives_the_nuclei_of_the_whole_image(maps, smallest, certainty, data):
    thresholds = Thresholds(
        0.45, peak_threshold=0.5, nms_radius=1.0, assign_radius=1.0, min_area=smallest, seed_foreground=certainty
    )
    shape = maps.heat.shape
    whole = instances_from_maps(maps, thresholds)
    extent = Extent.of(votes_of(maps, thresholds), thresholds)
    assert extent.context <= Extent().context == 4 * 128 + 1 + 64
    tile = data.draw(st.integers(1, 40))
    y, x = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    core = Box(y, x, min(tile, shape[0] - y), min(tile, shape[1] - x))
    box = core.grown(extent.context, within=shape)
    read = box.grown(2, within=shape)
    window = (slice(read.y, read.bottom), slice(read.x, read.right))
    cut = Maps(maps.foreground[window], maps.heat[window], maps.offset[:, *window], maps.radius[window])
    assert named(
        instances_from_votes(cast_votes(cut, thresholds, read, box, shape), box, thresholds), box, core
    ) == named((whole.labels, Candidates(whole.centre, whole.score, whole.score)), Box(0, 0, *shape), core)


def test_only_where_the_foreground_is_sure_is_a_centre():
    heat, foreground = np.zeros((9, 20), np.float32), np.full((9, 20), 0.6, np.float32)
    heat[4, [4, 14]] = 0.9
    foreground[3:6, 3:6] = 0.9
    maps = Maps(foreground, heat, np.zeros((2, 9, 20), np.float32), np.full((9, 20), 3.0, np.float32))
    both = Thresholds(min_area=1, seed_foreground=0.6)
    assert find_centres(maps, both).tolist() == [[4, 4], [4, 14]]
    assert find_centres(maps, Thresholds(min_area=1, seed_foreground=0.85)).tolist() == [[4, 4]]
    assert find_centres(maps, Thresholds(min_area=1, seed_foreground=0.95)).tolist() == []


def named(joined, box, core):
    """The pixels of each nucleus whose centre lies in `core`, by that centre; in coordinates of the whole image."""
    labels, centres = joined
    found = {}
    for number, (y, x) in enumerate(centres.position.tolist(), start=1):
        pixels = np.argwhere(labels == number) + np.array([box.y, box.x])
        if core.y <= y < core.bottom and core.x <= x < core.right and len(pixels):
            found[y, x] = {tuple(pixel) for pixel in pixels.tolist()}
    return found


def test_a_hole_may_depend_on_a_nucleus_that_lies_beyond_it():
    """A ring; in its hole two pixels of another nucleus, whose larger piece is as far away as pixels can be."""
    shape, centre, other = (61, 120), (30, 60), (30, 82)
    thresholds = Thresholds(nms_radius=1.0, assign_radius=1.0, min_area=1)
    points = np.full((2, *shape), -128, np.int8)

    def point(y, x, to):
        points[:, y, x] = [np.clip(t - p, -10, 10) for p, t in zip((y, x), to, strict=True)]

    for y, x in np.argwhere(np.abs(np.hypot(*(np.indices(shape) - np.reshape(centre, (2, 1, 1)))) - 11.2) < 0.8):
        point(y, x, centre)
    for y, x in ((30, 70), (29, 70), (29, 94), (30, 94), (31, 94)):
        point(y, x, other)
    two = np.full(2, 2, np.float32)
    votes = Votes(points, Candidates(np.array([centre, other]), two, two))
    extent = Extent.of(votes, thresholds)
    whole = named(instances_from_votes(votes, Box(0, 0, *shape), thresholds), Box(0, 0, *shape), Box(*centre, 1, 1))
    assert {(30, 50), centre, (29, 70), (30, 70)} <= whole[centre]
    for context, same in ((extent.context, True), (94 - 60 - 1, False)):
        box = Box(*centre, 1, 1).grown(context, within=shape)
        cut = Votes(points[:, *box.within(Box(0, 0, *shape))], votes.candidates)
        assert (named(instances_from_votes(cut, box, thresholds), box, Box(*centre, 1, 1)) == whole) == same
