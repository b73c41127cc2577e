"""The compiled steps of grouping equal the plain ones, and neither keeps the other waiting."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn.functional import interpolate

from nucleate.inference.tiling import taps
from nucleate.postprocess import plain_steps, steps


@pytest.fixture(scope="module")
def kernels():
    assert steps.prepare()
    return steps.fastest(0)


def shapes(side=24):
    return hnp.array_shapes(min_dims=2, max_dims=2, max_side=side)


def arrays(dtype, shape, values):
    return hnp.arrays(dtype, shape, elements=values)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_resample(kernels, data):
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    planes, shape, out = data.draw(st.integers(1, 3)), data.draw(shapes()), data.draw(shapes(40))
    x = random.normal(size=(planes, *shape)).astype(np.float32)
    axes = []
    for of, length in zip(shape, out, strict=True):
        low, high, part = taps(0, length, out=length, of=of)
        axes.append((low, high, part.astype(np.float32)))
    found, plain = kernels.resample(x, *axes), plain_steps.resample(x, *axes)
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found, plain)
    whole = torch.from_numpy(x.astype(np.float64))[None]
    expected = interpolate(whole, out, mode="bilinear", align_corners=False)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_peaks(kernels, data):
    # Few values, so that plateaus are met; and one that is no number.
    values = st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.75, 1.0, np.nan])
    heat = data.draw(arrays(np.float32, data.draw(shapes()), values.map(np.float32)))
    top, left = (data.draw(st.integers(0, side - 1)) for side in heat.shape)
    height, width = (data.draw(st.integers(1, n - begin)) for n, begin in zip(heat.shape, (top, left), strict=True))
    where = heat, top, left, height, width, np.float32(data.draw(st.sampled_from([0.0, 0.3, 0.5])))
    found, plain = kernels.peaks(*where), plain_steps.peaks(*where)
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found, plain)


def test_more_peaks_than_fit_at_first(kernels):
    where = np.ones((40, 50), np.float32), 3, 2, 30, 41, np.float32(0.5)
    assert len(kernels.peaks(*where)) == 30 * 41
    np.testing.assert_array_equal(kernels.peaks(*where), plain_steps.peaks(*where))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_select(kernels, data):
    count = data.draw(st.integers(0, 60))
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    places = np.sort(random.choice(900, count, replace=False))
    position = np.stack(np.divmod(places, 30), axis=1)
    heat = random.choice(np.array([0.5, 0.6, 0.7], np.float32), count)
    squared = random.choice([4.0, 5.5, 25.0, 4096.0], count)
    np.testing.assert_array_equal(kernels.select(position, heat, squared), plain_steps.select(position, heat, squared))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_follow(kernels, data):
    shape, random = data.draw(shapes()), np.random.default_rng(data.draw(st.integers(0, 10**6)))
    points = random.integers(-12, 13, (2, *shape)).astype(np.int8)
    points[:, random.random(shape) < 0.3] = plain_steps.NOTHING
    count = data.draw(st.integers(0, 9))
    centre = random.integers(-3, 28, (count, 2))
    squared = random.choice([4.0, 10.5, 100.0, 4096.0], count)
    found, plain = (one.follow(points, centre, squared) for one in (kernels, plain_steps))
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found, plain)


@settings(deadline=None, max_examples=300)
@given(labels=shapes().flatmap(lambda s: arrays(np.int32, s, st.integers(0, 3))), smallest=st.integers(0, 8))
def test_tidy(kernels, labels, smallest):
    before = labels.copy()
    found, plain = kernels.tidy(labels, smallest), plain_steps.tidy(labels, smallest)
    np.testing.assert_array_equal(labels, before)
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found, plain)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10**6), share=st.floats(0.3, 0.9), smallest=st.integers(0, 30))
def test_tidy_of_large_pieces_with_holes(kernels, seed, share, smallest):
    random = np.random.default_rng(seed)
    labels = np.kron(random.integers(1, 5, (5, 6)), np.ones((9, 8))).astype(np.int32)
    labels[random.random(labels.shape) > share] = 0
    found, plain = kernels.tidy(labels, smallest), plain_steps.tidy(labels, smallest)
    np.testing.assert_array_equal(found, plain)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_point(kernels, data):
    shape, random = data.draw(shapes()), np.random.default_rng(data.draw(st.integers(0, 10**6)))
    corner = data.draw(st.tuples(st.integers(0, 20), st.integers(0, 20)))
    whole = tuple(begin + n + data.draw(st.integers(0, 9)) for begin, n in zip(corner, shape, strict=True))
    foreground = random.choice(np.array([0.0, 0.55, 1.0], np.float32), shape)
    # Halves, which are rounded to even, and values beyond every bound.
    offset = (random.integers(-60, 61, (2, *shape)) / 2).astype(np.float32)
    offset[random.random(offset.shape) < 0.1] = data.draw(st.sampled_from([-np.inf, np.inf, 1e30]))
    where = foreground, offset, corner, whole, np.float32(0.55), data.draw(st.sampled_from([5, 64]))
    found, plain = kernels.point(*where), plain_steps.point(*where)
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found, plain)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_measures_masks_and_their_painting(kernels, data):
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    labels = data.draw(arrays(np.int32, data.draw(shapes()), st.integers(0, 5)))
    chosen = random.random(data.draw(st.integers(5, 8))) < 0.7
    columns = random.normal(size=(data.draw(st.integers(1, 3)), *labels.shape))
    totals = [one.total(labels, chosen, columns) for one in (kernels, plain_steps)]
    for found, plain in zip(*totals, strict=True):
        assert found.dtype == plain.dtype
        np.testing.assert_array_equal(found, plain)
    area, _, edges = totals[0]
    there = np.flatnonzero(area)
    packed = kernels.pack(labels, there, edges)
    np.testing.assert_array_equal(packed, plain_steps.pack(labels, there, edges))
    sides = edges[there, 2:] - edges[there, :2]
    length = (sides[:, 0] * sides[:, 1] + 7) // 8
    packed.flags.writeable = False  # as what a file holds
    for dy, dx in ((0, 0), (data.draw(st.integers(-9, 9)), data.draw(st.integers(-9, 9)))):
        moved = edges[there] + (dy, dx, dy, dx)
        painted = []
        for one in (kernels, plain_steps):
            out = np.full(labels.shape, 9, np.uint32)
            one.paint(out[:, : labels.shape[1]], packed, np.cumsum(length) - length, moved, there + 10)
            painted.append(out)
        np.testing.assert_array_equal(*painted)
        if dy == dx == 0:
            own = np.concatenate([[False], np.isin(np.arange(8), there)])[labels]
            np.testing.assert_array_equal(painted[0], np.where(own, labels + 9, 9))


def test_the_plain_ones_work_until_there_is_much_to_do():
    script = (
        "import sys\nfrom nucleate.postprocess import steps, plain_steps\n"
        "assert steps.fastest(2**19) is plain_steps and not steps._started\n"
        "steps.fastest(2**19)\nassert steps._started\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("error", [ImportError, RuntimeError])
def test_without_numba_the_plain_ones_do_all_the_work(monkeypatch, error):
    def refuse(name):
        raise error(name)

    monkeypatch.setattr(steps, "_ready", None)
    monkeypatch.setattr(importlib, "import_module", refuse)
    assert not steps.prepare()
    assert steps.fastest(0) is plain_steps
