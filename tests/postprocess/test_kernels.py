"""The compiled loops of post-processing equal the plain ones to the last bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba import njit
from numba.core import caching
from tests.postprocess import reference
from torch.nn.functional import interpolate

from nucleate.inference.tiling import taps
from nucleate.postprocess import kernels


def shapes(side=24):
    return hnp.array_shapes(min_dims=2, max_dims=2, max_side=side)


def arrays(dtype, shape, values):
    return hnp.arrays(dtype, shape, elements=values)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_resample_bilinear(data):
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    planes, shape, out = data.draw(st.integers(1, 3)), data.draw(shapes()), data.draw(shapes(40))
    x = random.normal(size=(planes, *shape)).astype(np.float32)
    axes = []
    for of, length in zip(shape, out, strict=True):
        low, high, part = taps(0, length, out=length, of=of)
        axes.append((low, high, part.astype(np.float32)))
    found, plain = kernels.resample_bilinear(x, *axes), reference.resample_bilinear(x, *axes)
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found, plain)
    whole = torch.from_numpy(x.astype(np.float64))[None]
    expected = interpolate(whole, out, mode="bilinear", align_corners=False)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_local_maxima(data):
    # Few values, so that plateaus are met; and one that is no number.
    values = st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.75, 1.0, np.nan])
    heat = data.draw(arrays(np.float32, data.draw(shapes()), values.map(np.float32)))
    top, left = (data.draw(st.integers(0, side - 1)) for side in heat.shape)
    height, width = (data.draw(st.integers(1, n - begin)) for n, begin in zip(heat.shape, (top, left), strict=True))
    where = heat, top, left, height, width, np.float32(data.draw(st.sampled_from([0.0, 0.3, 0.5])))
    found, plain = kernels.local_maxima(*where), reference.local_maxima(*where)
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found, plain)


def test_more_peaks_than_fit_at_first():
    where = np.ones((40, 50), np.float32), 3, 2, 30, 41, np.float32(0.5)
    assert len(kernels.local_maxima(*where)) == 30 * 41
    np.testing.assert_array_equal(kernels.local_maxima(*where), reference.local_maxima(*where))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_non_maximum_suppression(data):
    count = data.draw(st.integers(0, 60))
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    places = np.sort(random.choice(900, count, replace=False))
    position = np.stack(np.divmod(places, 30), axis=1)
    heat = random.choice(np.array([0.5, 0.6, 0.7], np.float32), count)
    squared = random.choice([4.0, 5.5, 25.0, 4096.0], count)
    np.testing.assert_array_equal(
        kernels.non_maximum_suppression(position, heat, squared),
        reference.non_maximum_suppression(position, heat, squared),
    )


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_assign_pixels(data):
    shape, random = data.draw(shapes()), np.random.default_rng(data.draw(st.integers(0, 10**6)))
    points = random.integers(-12, 13, (2, *shape)).astype(np.int8)
    points[:, random.random(shape) < 0.3] = kernels.BACKGROUND
    count = data.draw(st.integers(0, 9))
    centre = random.integers(-3, 28, (count, 2))
    squared = random.choice([4.0, 10.5, 100.0, 4096.0], count)
    found, plain = (one.assign_pixels(points, centre, squared) for one in (kernels, reference))
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found, plain)


@settings(deadline=None, max_examples=300)
@given(labels=shapes().flatmap(lambda s: arrays(np.int32, s, st.integers(0, 3))), smallest=st.integers(0, 8))
def test_keep_largest_component(labels, smallest):
    before = labels.copy()
    found, plain = kernels.keep_largest_component(labels, smallest), reference.keep_largest_component(labels, smallest)
    np.testing.assert_array_equal(labels, before)
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found, plain)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10**6), share=st.floats(0.3, 0.9), smallest=st.integers(0, 30))
def test_tidy_of_large_pieces_with_holes(seed, share, smallest):
    random = np.random.default_rng(seed)
    labels = np.kron(random.integers(1, 5, (5, 6)), np.ones((9, 8))).astype(np.int32)
    labels[random.random(labels.shape) > share] = 0
    found, plain = kernels.keep_largest_component(labels, smallest), reference.keep_largest_component(labels, smallest)
    np.testing.assert_array_equal(found, plain)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_vote_targets(data):
    shape, random = data.draw(shapes()), np.random.default_rng(data.draw(st.integers(0, 10**6)))
    corner = data.draw(st.tuples(st.integers(0, 20), st.integers(0, 20)))
    whole = tuple(begin + n + data.draw(st.integers(0, 9)) for begin, n in zip(corner, shape, strict=True))
    foreground = random.choice(np.array([0.0, 0.55, 1.0], np.float32), shape)
    # Halves, which are rounded to even, and values beyond every bound.
    offset = (random.integers(-60, 61, (2, *shape)) / 2).astype(np.float32)
    offset[random.random(offset.shape) < 0.1] = data.draw(st.sampled_from([-np.inf, np.inf, 1e30]))
    where = foreground, offset, corner, whole, np.float32(0.55), data.draw(st.sampled_from([5, 64]))
    found, plain = kernels.vote_targets(*where), reference.vote_targets(*where)
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found, plain)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_measures_masks_and_their_painting(data):
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    labels = data.draw(arrays(np.int32, data.draw(shapes()), st.integers(0, 5)))
    chosen = random.random(data.draw(st.integers(5, 8))) < 0.7
    columns = random.normal(size=(data.draw(st.integers(1, 3)), *labels.shape))
    totals = [one.accumulate(labels, chosen, columns) for one in (kernels, reference)]
    for found, plain in zip(*totals, strict=True):
        assert found.dtype == plain.dtype
        np.testing.assert_array_equal(found, plain)
    area, _, edges = totals[0]
    there = np.flatnonzero(area)
    packed = kernels.pack_masks(labels, there, edges)
    np.testing.assert_array_equal(packed, reference.pack_masks(labels, there, edges))
    sides = edges[there, 2:] - edges[there, :2]
    length = (sides[:, 0] * sides[:, 1] + 7) // 8
    packed.flags.writeable = False  # as what a file holds
    for dy, dx in ((0, 0), (data.draw(st.integers(-9, 9)), data.draw(st.integers(-9, 9)))):
        moved = edges[there] + (dy, dx, dy, dx)
        painted = []
        for one in (kernels, reference):
            out = np.full(labels.shape, 9, np.uint32)
            one.paint_masks(out[:, : labels.shape[1]], packed, np.cumsum(length) - length, moved, there + 10)
            painted.append(out)
        np.testing.assert_array_equal(*painted)
        if dy == dx == 0:
            own = np.concatenate([[False], np.isin(np.arange(8), there)])[labels]
            np.testing.assert_array_equal(painted[0], np.where(own, labels + 9, 9))


def test_without_a_folder_for_the_cache_they_are_compiled_all_the_same(monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError):
        njit("int64(int64)", cache=True)(_doubled)
    assert kernels.kernel("int64(int64)")(_doubled)(21) == 42


def _doubled(x):
    return 2 * x
