"""Blocks cover an image: each pixel once, with all around it that the network sees; interpolation by global places."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nucleate.inference.tiling import cover, owned, taps, tiles


@st.composite
def covers(draw):
    """Length, stride, halo, and spans that cover the length."""
    stride = draw(st.sampled_from([1, 2, 4, 8, 16, 32]))
    halo = draw(st.integers(0, 5 * stride))
    length = draw(st.integers(1, 4000))
    least = 2 * -(-halo // stride) * stride + stride
    longest = draw(st.integers(least, least + 1000))
    return length, longest, halo, stride


@settings(deadline=None, max_examples=300)
@given(covers())
def test_laws_of_a_cover(case):
    length, longest, halo, stride = case
    padded = -(-length // stride) * stride
    spans = cover(length, longest, halo=halo, stride=stride)
    # Every pixel is written once, in order.
    assert [spans[0].first, *(span.last for span in spans)] == [*(span.first for span in spans), length]
    assert all(span.first < span.last for span in spans)
    # One shape, on the stride, inside the image made up to the stride.
    assert {span.end - span.begin for span in spans} == {spans[0].end}
    assert spans[0].end <= longest
    assert all(span.begin % stride == 0 and span.end % stride == 0 for span in spans)
    assert spans[0].begin == 0 and spans[-1].end == padded
    # What is written has its halo around it, or ends with the image.
    for span in spans:
        assert span.begin <= max(0, span.first - halo) and span.end >= min(padded, span.last + halo)


@settings(deadline=None, max_examples=100)
@given(covers())
def test_no_fewer_blocks_would_do(case):
    length, longest, halo, stride = case
    halo, longest = -(-halo // stride) * stride, longest // stride * stride
    padded, count = -(-length // stride) * stride, len(cover(length, longest, halo=halo, stride=stride))
    # Together, n blocks write all that they read but for the halos between them.
    assert count == 1 or (count - 1) * (longest - 2 * halo) + 2 * halo < padded


def test_blocks_too_small_for_their_halo_are_refused():
    with pytest.raises(ValueError, match="64 pixels leave nothing between two halos of 32"):
        cover(1000, 64, halo=20, stride=16)
    assert len(cover(64, 64, halo=20, stride=16)) == 1


@given(st.integers(1, 3000), st.integers(1, 500))
def test_tiles_hold_each_pixel_once(length, tile):
    parts = tiles(length, tile)
    assert [p for part in parts for p in range(*part)] == list(range(length))
    assert all(end - begin == tile for begin, end in parts[:-1])


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 60), st.integers(1, 150), st.data())
def test_interpolation_is_that_of_the_whole_line(of, out, data):
    begin = data.draw(st.integers(0, out - 1))
    end = data.draw(st.integers(begin + 1, out))
    low, high, part = taps(begin, end, out=out, of=of)
    line = torch.linspace(-1, 1, of).square()[None, None]
    expected = F.interpolate(line, size=out, mode="linear", align_corners=False)[0, 0, begin:end]
    values = line[0, 0].double().numpy()
    np.testing.assert_allclose((1 - part) * values[low] + part * values[high], expected, atol=1e-5)
    # Any part of the line is that part, to the last bit.
    for part_of, whole in zip((low, high, part), taps(0, out, out=out, of=of), strict=True):
        np.testing.assert_array_equal(part_of, whole[begin:end])


def test_places_are_exact_a_million_pixels_from_the_first():
    low, _, part = taps(2_500_000 - 5, 2_500_000, out=2_500_000, of=1_000_000)
    assert low[-1] == 999_999 and part.tolist()[:2] == [0.7, 0.1]


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 300), st.integers(1, 800), st.lists(st.integers(0, 800), max_size=6))
def test_each_pixel_has_one_owner(length, resized, cuts):
    cuts = sorted({0, resized, *(cut for cut in cuts if cut < resized)})
    ranges = [owned(a, b, length=length, resized=resized) for a, b in itertools.pairwise(cuts)]
    assert [p for part in ranges for p in range(*part)] == list(range(length))
    low = taps(0, length, out=length, of=resized)[0]
    for (begin, end), (a, b) in zip(ranges, itertools.pairwise(cuts), strict=True):
        assert all(a <= place < b for place in low[begin:end])
