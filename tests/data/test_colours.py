"""What red, green and blue show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.data.colours import SAMPLE, has_several, is_table, of_colours, sample
from nucleate.data.synthetic import STYLES, fluorescence
from nucleate.io.base import MemoryReader
from nucleate.types import Image


def grey(seed):
    return fluorescence(seed=seed, height=80, width=90)[0].pixels[..., 0]


@given(st.integers(0, 2), st.integers(0, 50))
def test_of_one_colour_the_others_may_hold_noise(place, seed):
    pixels = np.random.default_rng(seed).integers(0, 4, (80, 90, 3)).astype(np.uint8)
    pixels[..., place] = grey(1)
    assert of_colours(pixels) == (place,)


@given(st.permutations([1.0, 0.8, 0.5]))
def test_one_picture_in_any_tint_is_one_picture(tint):
    assert of_colours((grey(2)[..., None] * np.array(tint)).astype(np.uint8)) == (0, 1, 2)


@given(st.permutations([0, 1, 2]))
def test_stains_on_a_dark_ground_are_for_a_person_to_choose(order):
    red = np.random.default_rng(0).normal(20, 6, (80, 90)).clip(0, 255).astype(np.uint8)
    composite = np.stack([red, grey(3), grey(4)], axis=2)[..., order]
    assert of_colours(composite) is None and not is_table(composite)


@pytest.mark.parametrize("seed", range(4))
def test_stained_tissue_is_one_picture(seed):
    assert of_colours(STYLES["tissue"](seed, height=100, width=120)[0].pixels) == (0, 1, 2)


def test_a_table_of_colours_is_told_from_stains():
    table = np.stack([np.arange(256), np.clip(2 * np.arange(256) - 255, 0, 255), np.zeros(256)], 1).astype(np.uint8)
    assert of_colours(table[grey(5)]) is None and is_table(table[grey(5)])


def test_a_sample_is_all_of_a_small_image_and_a_part_of_a_large_one():
    small = MemoryReader(Image("small", grey(6)[..., None].repeat(3, 2), ("red", "green", "blue")))
    np.testing.assert_array_equal(sample(small)[:, 0].reshape(80, 90, 3), small.image.pixels)
    large = MemoryReader(Image("large", np.zeros((3000, 3000, 1), np.uint8), ("grey",)))
    assert SAMPLE // 2 < len(sample(large)) <= SAMPLE


def test_grey_stored_as_colours_has_one_channel():
    grey_image = Image("a", grey(7)[..., None].repeat(3, 2), ("red", "green", "blue"))
    assert not has_several(MemoryReader(grey_image))
    assert has_several(MemoryReader(Image("a", grey_image.pixels, ("A", "B", "C"))))


def test_one_colour_throughout_is_one_picture():
    assert of_colours(np.full((9, 9, 3), (10, 20, 30), np.uint8)) == (0, 1, 2)


def test_a_hot_pixel_makes_no_dark_ground():
    pixels = STYLES["tissue"](1, height=100, width=120)[0].pixels.astype(np.uint16) * 8
    pixels[3, 3] = 65535
    assert of_colours(pixels) == (0, 1, 2)
