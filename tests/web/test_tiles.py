"""Tiles put together are the slide, and its labels, at every level; each nucleus has its row of the table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.errors import InputError
from nucleate.io.cache import Cache
from nucleate.io.reader import Level, MemoryReader, Reader
from nucleate.types import Box, Image
from nucleate.web.tiles import Contrast, ImageTiles, LabelTiles, _sample

RGB = ("red", "green", "blue")


class Stored(Reader):
    """One level of a pyramid that is in memory; remembers what was read."""

    def __init__(self, levels, level, asked):
        width = levels[0].shape[1]
        self.name, self.path, self.pixel_size, self.level = "stored", None, None, level
        self.levels = tuple(Level(one.shape[:2], width / one.shape[1]) for one in levels)
        self.channels = RGB if levels[0].shape[2] == 3 else ("grey",)
        self.dtype, self.pixels, self.asked, self.closed = levels[0].dtype, levels[level], asked, False

    def read(self, box):
        self.check_inside(box)
        self.asked.append((self.level, box))
        return self.pixels[box.y : box.bottom, box.x : box.right]

    def close(self):
        self.closed = True


def of(pixels, channels=RGB, **options):
    return ImageTiles(lambda level: MemoryReader(Image("x", pixels, channels)), tile=8, **options)


def whole(tiles, level):
    """All tiles of a level, put together."""
    height, width = (-(-side >> level) for side in tiles.shape)
    rows, columns = -(-height // 8), -(-width // 8)
    return np.block([[[tiles.tile(level, row, column)] for column in range(columns)] for row in range(rows)])


def halved(colours):
    """The mean of 2 x 2, halves rounded up; an odd last one counts twice."""
    height, width = colours.shape[:2]
    rows, columns = (np.minimum(np.arange(-(-side // 2) * 2), side - 1) for side in (height, width))
    even = colours[np.ix_(rows, columns)].astype(int)
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) // 4


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 40), width=st.integers(1, 40), cached=st.sampled_from([1, 10**6]))
def test_tiles_are_the_slide_and_its_halves(height, width, cached):
    pixels = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tiles = of(pixels, cache=Cache(cached))
    assert max(height, width) <= 8 * 2**tiles.depth and (tiles.depth == 0 or max(height, width) > 4 * 2**tiles.depth)
    expected = pixels
    for level in range(tiles.depth + 1):
        np.testing.assert_array_equal(whole(tiles, level), expected)
        expected = halved(expected)


def test_what_the_file_has_is_read_from_it_in_small_boxes_and_the_rest_is_made():
    rng = np.random.default_rng(0)
    levels = [rng.integers(0, 256, (256 // f, 192 // f, 3), dtype=np.uint8) for f in (1, 4, 16)]
    asked = []
    tiles = ImageTiles(lambda level: Stored(levels, level, asked), tile=8)
    for level, stored in ((0, 0), (2, 1), (4, 2)):
        np.testing.assert_array_equal(whole(tiles, level), levels[stored])
    np.testing.assert_array_equal(whole(tiles, 1), halved(levels[0]))
    np.testing.assert_array_equal(whole(tiles, 3), halved(levels[1]))
    np.testing.assert_array_equal(whole(tiles, 5), halved(levels[2]))
    assert max(box.height * box.width for _, box in asked) <= 12 * 12


@pytest.mark.parametrize("factor", [1.9, 2.05, 2.7, 4.001])
def test_a_level_of_any_size_lies_where_it_belongs(factor):
    """The value of each pixel is its own place; a tile's pixel shows the file's pixel that its middle lies in."""
    height, width = 90, 250
    levels = [
        np.zeros((height, width, 3), np.uint8),
        np.zeros((round(height / factor), round(width / factor), 3), np.uint8),
    ]
    for one in levels:
        one[:] = ((np.arange(one.shape[1]) + 0.5) * width / one.shape[1])[None, :, None]
    asked = []
    tiles = ImageTiles(lambda level: Stored(levels, level, asked), tile=8)
    level = 1 if factor < 2.8 else 2
    seen = whole(tiles, level)[0, :, 0] + 0.5
    middle = (np.arange(seen.size) + 0.5) * 2**level
    inside = middle < width
    assert {stored for stored, _ in asked} == {1}
    assert np.abs(seen - middle)[inside].max() <= width / levels[1].shape[1] / 2 + 0.5


@pytest.mark.parametrize(
    ("level", "row", "column"), [(0, 3, 0), (0, 0, 2), (-1, 0, 0), (3, 0, 0), (0, -1, 0), (2, 1, 0)]
)
def test_there_are_no_other_tiles(level, row, column):
    tiles = of(np.zeros((20, 16, 3), np.uint8))
    with pytest.raises(InputError, match=f"no tile in row {row} and column {column} of level {level}"):
        tiles.tile(level, row, column)


def test_the_contrast_is_that_of_the_slide_not_of_the_tile():
    pixels = np.tile(np.arange(100, dtype=np.uint16)[:, None, None] * 100, (1, 60, 1))
    shown = whole(of(pixels, ("grey",)), 0)
    low, high = np.percentile(pixels, (0.5, 99.8))
    expected = np.rint(255 * np.clip((pixels - low) / (high - low), 0, 1))
    np.testing.assert_allclose(shown, np.repeat(expected, 3, axis=2), atol=1)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_each_channel_has_its_own_contrast_and_the_first_three_are_shown(channels):
    rng = np.random.default_rng(0)
    pixels = rng.random((40, 40, channels)).astype(np.float32) * 10.0 ** np.arange(channels, dtype=np.float32)
    shown = whole(of(pixels, tuple(f"channel {number}" for number in range(channels))), 0)
    for channel in range(3):
        source = 0 if channels == 1 else channel
        if source >= channels:
            assert (shown[..., channel] == 0).all()
        else:
            assert shown[..., channel].min() == 0 and shown[..., channel].max() == 255
            assert np.corrcoef(shown[..., channel].ravel(), pixels[..., source].ravel())[0, 1] > 0.99


def test_a_constant_slide_can_be_shown():
    assert whole(of(np.full((9, 9, 1), 7, np.uint16), ("grey",)), 0).shape == (9, 9, 3)


def test_of_a_large_level_some_spots_make_the_contrast():
    asked = []
    sample = _sample(Stored([np.zeros((30, 3, 1), np.uint16)], 0, asked), whole=100, spot=4)
    assert sample.shape == (1, 30 * 3, 1)
    asked.clear()
    sample = _sample(Stored([np.zeros((300, 200, 1), np.uint16)], 0, asked), whole=100, spot=4)
    assert sample.shape == (1, 16 * 16, 1)
    boxes = [box for _, box in asked]
    assert Box(0, 0, 4, 4) in boxes and Box(296, 196, 4, 4) in boxes


def test_colour_is_shown_as_it_is_but_16_bits_are_not():
    colour = MemoryReader(Image("x", np.zeros((1, 1, 3), np.uint8), RGB))
    assert Contrast.of(colour).ends is None
    deep = MemoryReader(Image("x", np.zeros((1, 1, 3), np.uint16), RGB))
    assert Contrast.of(deep).ends == ((0.0, 0.0),) * 3


def test_closing_closes_every_level():
    levels = [np.zeros((64 // f, 64 // f, 3), np.uint8) for f in (1, 2)]
    opened = []
    tiles = ImageTiles(lambda level: opened.append(Stored(levels, level, [])) or opened[-1], tile=8)
    tiles.tile(0, 0, 0), tiles.tile(1, 0, 0)
    tiles.close()
    assert len(opened) == 2 and all(reader.closed for reader in opened)


def of_labels(labels, **options):
    return LabelTiles(MemoryReader(Image("labels", labels[..., None], ("grey",))), **options)


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 70), width=st.integers(1, 70), level=st.integers(0, 3))
def test_tiles_and_their_margins_are_the_labels(height, width, level):
    labels = np.random.default_rng(0).integers(0, 2**16, (height, width), dtype=np.uint16)
    thin = labels[:: 2**level, :: 2**level]
    around = np.pad(thin, ((1, 9), (1, 9)))
    tiles = of_labels(labels, tile=8)
    for row in range(-(-thin.shape[0] // 8)):
        for column in range(-(-thin.shape[1] // 8)):
            tile = tiles.tile(level, row, column)
            expected = around[8 * row : 8 * row + 10, 8 * column : 8 * column + 10]
            np.testing.assert_array_equal(tile, np.pad(expected, [(0, 10 - side) for side in expected.shape]))
            assert tile.dtype == np.uint32


@pytest.mark.parametrize(
    ("level", "row", "column"),
    [(4, 0, 0), (3_000_000_000, 0, 0), (-1, 0, 0), (0, 2, 0), (0, 0, 1), (0, -1, 0), (1, 1, 0)],
)
def test_there_are_no_other_tiles_of_labels(level, row, column):
    with pytest.raises(InputError, match="no tile in row"):
        of_labels(np.zeros((300, 200), np.uint8)).tile(level, row, column)


def test_a_pyramid_of_hundreds_of_levels_opens_few_of_them():
    levels = [np.arange(900 * 800, dtype=np.uint16).reshape(900, 800, 1)]
    levels += [np.zeros((1, 1, 1), np.uint16)] * 500
    opened = []
    tiles = ImageTiles(lambda level: opened.append(level) or Stored(levels, level, []))
    assert tiles.tile(0, 3, 3).shape == (132, 32, 3) and tiles.tile(tiles.depth, 0, 0).any()
    assert opened == [0]
