"""Intensity laws: percentiles equal numpy's; the result ignores scale, offset and the type that holds the image;
streamed statistics are those of the whole array."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleate.data.normalization import (
    HIGHEST,
    LOWEST,
    Normalisation,
    Statistics,
    normalise,
    passes,
    percentiles,
    select,
    stretch,
    with_channels,
)
from nucleate.errors import ImageError
from nucleate.io.reader import MemoryReader
from nucleate.types import Box, Image

RGB = ("red", "green", "blue")
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(1))
INTEGERS = hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.uint32]), SHAPES)
PERCENT = st.floats(0, 100)


def image(pixels, channels=("grey",)):
    return Image("cells", np.asarray(pixels), tuple(channels))


@settings(deadline=None)
@given(pixels=INTEGERS, q=st.lists(PERCENT, min_size=1, max_size=4))
def test_counted_percentiles_equal_sorted_ones(pixels, q):
    np.testing.assert_allclose(percentiles(pixels, q), np.percentile(pixels, q), rtol=1e-13, atol=1e-9)


@settings(deadline=None)
@given(pixels=hnp.arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32)), q=PERCENT)
def test_percentiles_of_floats(pixels, q):
    np.testing.assert_allclose(percentiles(pixels, [q]), [np.percentile(pixels.astype(float), q)], rtol=1e-12)


@settings(deadline=None)
@given(pixels=hnp.arrays(np.uint8, SHAPES), low=st.floats(0, 49), high=st.floats(50, 100))
def test_normalise_is_its_formula(pixels, low, high):
    p_low, p_high = np.percentile(pixels, (low, high))
    result = normalise(image(pixels), 1, Normalisation(low, high))
    assert result.dtype == np.float32 and result.flags.c_contiguous and result.flags.writeable
    assert result.shape == (1, *pixels.shape[:2])
    if p_high - p_low > 1e-6:
        expected = np.clip((pixels[..., 0] - p_low) / (p_high - p_low), LOWEST, HIGHEST)
        np.testing.assert_allclose(result[0], expected, atol=1e-5)


@settings(deadline=None)
@given(pixels=hnp.arrays(np.uint8, SHAPES), gain=st.integers(1, 200), offset=st.integers(0, 5000))
def test_gain_offset_and_type_do_not_matter(pixels, gain, offset):
    expected = normalise(image(pixels), 1)
    for dtype in (np.uint16, np.float32):
        changed = (pixels.astype(np.int64) * gain + offset).astype(dtype)
        np.testing.assert_allclose(normalise(image(changed), 1), expected, atol=1e-4)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_constant_image_gives_zeros(value, dtype, channels):
    result = normalise(image(np.full((5, 4, 1), value, dtype)), channels)
    np.testing.assert_array_equal(result, np.zeros((channels, 5, 4)))


def test_a_single_bright_pixel_is_the_highest():
    pixels = np.zeros((50, 50, 1), np.uint8)
    pixels[3, 4] = 9
    result = normalise(image(pixels), 1)[0]
    assert result[3, 4] == HIGHEST and result.sum() == HIGHEST


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_one_channel_from_colour_is_the_mean(dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(dtype)
    mean = pixels.mean(axis=2, keepdims=True).astype(np.float32)
    np.testing.assert_allclose(normalise(image(pixels, RGB), 1), normalise(image(mean), 1), atol=1e-5)


def test_the_mean_of_16_bit_colour_does_not_overflow():
    pixels = np.array([[[1000] * 3, [21_000] * 3, [41_000] * 3]], np.uint16)
    result = normalise(image(pixels, RGB), 1, Normalisation(0, 100))
    np.testing.assert_allclose(result, [[[0, 0.5, 1]]], atol=1e-6)


def test_three_channels_from_grey_are_copies():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 1), dtype=np.uint8)
    result = normalise(image(pixels), 3)
    assert result.shape == (3, 20, 30)
    np.testing.assert_array_equal(result, np.repeat(normalise(image(pixels), 1), 3, axis=0))
    result[0] = 5
    assert result[1].max() < 5, "copies share no memory"


def test_channels_of_colour_share_their_statistics():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    low, high = np.percentile(pixels, (1, 99.8))
    expected = np.clip((np.moveaxis(pixels, 2, 0) - low) / (high - low), LOWEST, HIGHEST)
    np.testing.assert_allclose(normalise(image(pixels, RGB), 3), expected, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(pixels=hnp.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_any_finite_image_gives_finite_values_in_range(pixels):
    result = normalise(image(pixels), 1)
    assert np.isfinite(result).all() and result.min() >= LOWEST and result.max() <= HIGHEST


def test_channels_that_mean_something_else_are_not_mixed():
    pixels = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ImageError, match=r"cells has 3 channels \(DAPI, GFP, Actin\) where 1 are needed"):
        normalise(image(pixels, ("DAPI", "GFP", "Actin")), 1)
    with pytest.raises(ImageError, match="where 3 are needed"):
        normalise(image(pixels[..., :2], ("DAPI", "GFP")), 3)


@pytest.mark.parametrize(("low", "high"), [(-1, 99), (1, 101), (50, 50), (99, 1), (float("nan"), 99)])
def test_percentiles_that_are_no_range_are_refused(low, high):
    with pytest.raises(ImageError, match="no range"):
        Normalisation(low, high)


@settings(deadline=None)
@given(pixels=hnp.arrays(np.uint16, SHAPES), low=st.floats(0, 1000), width=st.floats(1, 60000))
def test_stretch_gives_the_same_for_integers_and_floats(pixels, low, width):
    table, direct = (stretch(p, low, low + width, 0, 1) for p in (pixels, pixels.astype(np.float64)))
    np.testing.assert_array_equal(table, direct)


NAMES = {1: ("grey",), 2: ("DAPI", "GFP"), 3: ("red", "green", "blue")}
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
TAKEN = {1: (1, 3), 2: (2,), 3: (1, 3)}
"""Channels of an image: those that a network may want of it."""


@st.composite
def images(draw):
    count = draw(st.sampled_from(sorted(NAMES)))
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14), st.just(count)))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    few = st.sampled_from([0, 1, 200] if dtype != np.float32 else [-1.5, -0.0, 0.0, 3e38, 1e-45])
    pixels = draw(
        hnp.arrays(dtype, shape, elements=draw(st.sampled_from([few, FINITE if dtype == np.float32 else None])))
    )
    return Image("cells", pixels, NAMES[count])


@st.composite
def ranges(draw):
    low, high = sorted(draw(st.lists(st.floats(0, 100), min_size=2, max_size=2, unique=True)))
    return Normalisation(low, high)


class InPieces(MemoryReader):
    """An image that says that it is stored in pieces, and lets few of them be read at once."""

    def __init__(self, image, piece, most=16):
        super().__init__(image)
        self.piece, self.most = piece, most

    def pieces(self, most=None):
        return super().pieces(self.most)


PIECES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None)
@given(image=images(), piece=PIECES, normalisation=ranges(), data=st.data())
def test_streamed_statistics_are_those_of_the_whole(image, piece, normalisation, data):
    channels = data.draw(st.sampled_from(TAKEN[image.pixels.shape[2]]))
    found = Statistics.of(InPieces(image, piece), channels, normalisation)
    mixed = with_channels(image.pixels, image.channels, channels, "cells")
    expected = percentiles(mixed, (normalisation.low, normalisation.high))
    assert [found.low, found.high] == expected.tolist()
    assert found.constant == (len(np.unique(image.pixels.reshape(-1, image.pixels.shape[2]), axis=0)) == 1)


@settings(deadline=None)
@given(image=images(), normalisation=ranges(), data=st.data())
def test_a_normalised_box_is_a_box_of_the_normalised_image(image, normalisation, data):
    channels = data.draw(st.sampled_from(TAKEN[image.pixels.shape[2]]))
    reader = MemoryReader(image)
    found = Statistics.of(reader, channels, normalisation)
    height, width = reader.shape
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(y, x, data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x)))
    whole = normalise(image, channels, normalisation)
    part = found.normalise(reader.read(box), reader.channels)
    assert part.dtype == np.float32 and part.flags.c_contiguous
    np.testing.assert_array_equal(part.view(np.uint32), whole[:, *box.within(reader.box)].view(np.uint32))


@settings(deadline=None)
@given(
    values=st.sampled_from([np.uint8, np.uint16, np.uint32, np.float32, np.float64]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.integers(1, 40), elements={"allow_nan": False, "allow_infinity": False})
    ),
    cut=st.integers(0, 40),
    data=st.data(),
)
def test_selection_is_sorting(values, cut, data):
    wanted = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=5)))
    found = select(lambda: iter([values[:cut], values[cut:]]), wanted, values.dtype, 8 * values.itemsize)
    assert found.tolist() == np.sort(values)[wanted].tolist()


def test_a_highest_digit_of_0_is_a_digit_like_others():
    values = np.array([0, 0, 65536, 1], np.uint32)
    found = select(lambda: iter([values]), np.arange(4), values.dtype, 32)
    assert found.tolist() == [0, 0, 1, 65536]


@pytest.mark.parametrize(("bits", "count"), [(8, 1), (16, 1), (18, 1), (32, 2), (64, 4)])
def test_one_pass_for_integers_two_for_floats(bits, count):
    assert passes(bits) == count


@pytest.mark.parametrize(("dtype", "steps"), [(np.uint8, 4), (np.float32, 8)])
def test_what_is_done_is_told_after_each_piece(dtype, steps):
    image = Image("cells", np.ones((8, 8, 1), dtype), ("grey",))
    told = []
    Statistics.of(InPieces(image, (4, 4)), 1, observe=told.append)
    assert told == [(k + 1) / steps for k in range(steps)]


def test_channels_that_do_not_fit_are_refused_before_the_image_is_read():
    class Once(InPieces):
        reads = 0

        def read(self, box):
            self.reads += 1
            return super().read(box)

    reader = Once(Image("cells", np.zeros((8, 8, 2), np.uint8), ("DAPI", "GFP")), (2, 2))
    with pytest.raises(ImageError, match=r"cells has 2 channels \(DAPI, GFP\) where 3 are needed"):
        Statistics.of(reader, 3)
    assert reader.reads == 1
