"""Laws of streamed statistics: they are those of the whole array, and a normalised box is a box of the normalised."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleate.data.normalization import Normalisation, normalise, percentiles, with_channels
from nucleate.data.statistics import Statistics, passes, select
from nucleate.errors import ImageError
from nucleate.io.reader import MemoryReader
from nucleate.types import Box, Image

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
