"""TIFF by boxes: any box of a file equals that box of the whole, however it is stored; hostile files get a sentence."""

import numpy as np
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.images.tiled_tiff import TiffReader
from nucleate.types import Box

RNG = np.random.default_rng(7)
HEIGHT, WIDTH = 75, 90
LOSSLESS = [None, "lzw", "zlib", "zstd", "packbits", "lzma"]


def drawn(dtype, count=1):
    """Smooth pixels with a little noise, so that every codec has something to do."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([(y * (k + 2) + x * 3) % 251 for k in range(count)], axis=2) + RNG.integers(
        0, 4, (HEIGHT, WIDTH, count)
    )
    return (pixels * (1 if dtype == np.uint8 else 250)).astype(dtype)


PIXELS = {(dtype, count): drawn(dtype, count) for dtype in (np.uint8, np.uint16, np.float32) for count in (1, 3)}


@st.composite
def boxes(draw, shape=(HEIGHT, WIDTH)):
    y, x = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
    return Box(y, x, draw(st.integers(1, shape[0] - y)), draw(st.integers(1, shape[1] - x)))


@st.composite
def layouts(draw):
    """How `tifffile.imwrite` is to store an image, and the image."""
    dtype, count = draw(st.sampled_from(sorted(PIXELS, key=str)))
    options = {
        "compression": draw(st.sampled_from([*LOSSLESS, *([] if dtype == np.float32 else ["jpeg2000"])])),
        "bigtiff": draw(st.booleans()),
        "byteorder": draw(st.sampled_from("<>")),
        **draw(st.sampled_from([{"tile": (16, 16)}, {"tile": (32, 48)}, {"rowsperstrip": 1}, {"rowsperstrip": 7}, {}])),
    }
    if options["compression"] in ("lzw", "zlib", "zstd"):
        options["predictor"] = draw(st.booleans())
    planar = count > 1 and draw(st.booleans())
    options["photometric"] = "minisblack" if count == 1 else "rgb"
    if count > 1:
        options["planarconfig"] = "separate" if planar else "contig"
    pixels = PIXELS[dtype, count]
    return (np.moveaxis(pixels, 2, 0) if planar else pixels[..., 0] if count == 1 else pixels), options, pixels


@settings(deadline=None, max_examples=150)
@given(layout=layouts(), data=st.data())
def test_a_box_of_a_file_is_the_box_of_the_whole(tmp_path_factory, layout, data):
    stored, options, pixels = layout
    path = tmp_path_factory.getbasetemp() / "law.tif"
    tifffile.imwrite(path, stored, **options)
    with TiffReader(path) as reader:
        assert (reader.shape, reader.dtype) == ((HEIGHT, WIDTH), pixels.dtype)
        for box in data.draw(st.lists(boxes(), min_size=1, max_size=4)):
            found = reader.read(box)
            assert found.dtype == pixels.dtype and found.dtype.isnative
            np.testing.assert_array_equal(found, pixels[box.y : box.bottom, box.x : box.right])
