"""TIFF by boxes: any box of a file equals that box of the whole, however it is stored; hostile files get a sentence."""

import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.errors import ImageError
from nucleate.io.base import downsample
from nucleate.io.stack import Scene
from nucleate.io.tiff_reader import TiffReader, scenes
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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.tif"


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
    if options["compression"] == "jpeg2000":  # tifffile writes its 16 bits the wrong way round in the other order
        options["byteorder"] = "<"
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


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "zlib"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 16}])
def test_tiles_and_the_whole_are_decoded_alike(path, compression, count, layout):
    options = {"compression": compression, "photometric": "rgb" if count == 3 else "minisblack", **layout}
    options |= {"compressionargs": {"level": 80}} if compression.startswith("jpeg") else {}
    tifffile.imwrite(path, np.squeeze(PIXELS[np.uint8, count]), **options)
    expected = whole(path)
    with TiffReader(path) as reader:
        names = ("red", "green", "blue") if count == 3 else ("grey",)
        assert (reader.channels, reader.dtype, reader.name) == (names, np.uint8, "image")
        for box in (reader.box, Box(31, 47, 2, 2), Box(70, 80, 5, 10)):
            np.testing.assert_array_equal(reader.read(box), expected[box.within(reader.box)])


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": {"axes": "CYX"}, "photometric": "minisblack"},
        {"metadata": {"axes": "CYX"}, "photometric": "minisblack", "planarconfig": "separate", "tile": (16, 16)},
        {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": list("abc")}}, "photometric": "minisblack"},
        {"ome": True, "metadata": {"axes": "CYX"}, "photometric": "minisblack", "tile": (32, 32), "compression": "lzw"},
        {"imagej": True, "metadata": {"axes": "CYX", "Labels": list("abc")}},
        {"imagej": True, "metadata": {"axes": "CYX", "truncate": True}},
        {"metadata": {"axes": "CYX", "truncate": True}, "photometric": "minisblack"},
        {"metadata": {"axes": "CYX"}, "photometric": "minisblack", "contiguous": False, "rowsperstrip": 8},
    ],
    ids=lambda options: " ".join(f"{key}={value}" for key, value in options.items()),
)
def test_channels_are_planes_wherever_they_lie(path, options):
    if options.pop("contiguous", True) is False:
        options["compression"] = "zlib"
    tifffile.imwrite(path, np.moveaxis(PIXELS[np.uint16, 3], 2, 0), **options)
    named = "Name" in str(options) or "Labels" in str(options)
    with TiffReader(path) as reader:
        assert reader.channels == (tuple("abc") if named else ("channel 1", "channel 2", "channel 3"))
        for box in (reader.box, Box(13, 17, 40, 50)):
            np.testing.assert_array_equal(reader.read(box), PIXELS[np.uint16, 3][box.within(reader.box)])


KINDS = {
    "bilevel": (PIXELS[np.uint8, 1][..., 0] > 99, {}),
    "12 bit": (PIXELS[np.uint16, 1][..., 0] >> 4, {"bitspersample": 12, "compression": None}),
    "palette": (
        PIXELS[np.uint8, 1][..., 0],
        {"photometric": "palette", "colormap": RNG.integers(0, 65535, (3, 256), np.uint16)},
    ),
    "white is 0": (PIXELS[np.uint8, 1][..., 0], {"photometric": "miniswhite"}),
    "alpha": (
        np.dstack([PIXELS[np.uint8, 3], PIXELS[np.uint8, 1]]),
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    ),
    "float64": (PIXELS[np.float32, 1][..., 0].astype(np.float64), {"predictor": True, "compression": "zlib"}),
    "int16": (PIXELS[np.uint16, 1][..., 0].astype(np.int16), {}),
    "float16": (PIXELS[np.float32, 1][..., 0].astype(np.float16), {}),
}


SHOWN = {
    "bilevel": lambda values: values.astype(np.uint8) * np.uint8(255),
    "12 bit": lambda values: values,
    "palette": lambda values: (KINDS["palette"][1]["colormap"] >> 8).astype(np.uint8).T[values[..., 0]],
    "white is 0": lambda values: 255 - values,
    "alpha": lambda values: values[..., :3],
    **dict.fromkeys(("float64", "int16", "float16"), lambda values: values.astype(np.float32)),
}
"""What each is as an image, of the values that are stored."""

NAMES = {"palette": ("channel 1", "channel 2", "channel 3"), "alpha": ("red", "green", "blue")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", [None, (32, 48)])
def test_every_kind_of_pixel_is_what_it_is_in_the_whole(path, kind, tile):
    pixels, options = KINDS[kind]
    tifffile.imwrite(path, pixels, tile=tile, **options)
    expected = SHOWN[kind](whole(path))
    with TiffReader(path) as reader, TiffReader(path, labels=True) as stored:
        assert reader.dtype == expected.dtype
        assert reader.channels == NAMES.get(kind, ("grey",))
        for box in (reader.box, Box(13, 17, 40, 50)):
            np.testing.assert_array_equal(reader.read(box), expected[box.within(reader.box)])
            values = stored.read(box)
            assert values.dtype == stored.dtype == pixels.dtype
            if kind != "alpha":
                np.testing.assert_array_equal(values[..., 0], pixels[box.within(reader.box)])


def whole(path):
    """The largest image of a file as tifffile reads all of it at once: (height, width, samples)."""
    with tifffile.TiffFile(path) as tiff:
        series = max(tiff.series, key=lambda series: series.size)
        values, axes = series.asarray(), series.axes
    return np.moveaxis(values, 0, 2) if axes in ("CYX", "SYX") else values.reshape(*values.shape[:2], -1)


def pyramid(pixels, count):
    return [pixels[:: 2**k, :: 2**k] for k in range(count)]


def write_pyramid(path, levels, kind):
    """Levels as tifffile and QuPath keep them (SubIFDs), or as libvips does (pages marked as reduced)."""
    sub = {"subifds": len(levels) - 1} if kind != "pages" else {}
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25} if kind == "ome" else None
    with tifffile.TiffWriter(path, bigtiff=True, ome=kind == "ome") as file:
        for number, level in enumerate(levels):
            options = {"photometric": "rgb", "tile": (16, 16), "compression": "zlib"}
            if number == 0:
                file.write(level, metadata=metadata, resolution=(40000, 40000), resolutionunit=3, **sub, **options)
            else:
                file.write(level, subfiletype=1, metadata=None, **options)


@pytest.mark.parametrize("kind", ["ome", "subifds", "pages"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_of_a_pyramid(path, kind, level):
    levels = pyramid(PIXELS[np.uint8, 3], 3)
    write_pyramid(path, levels, kind)
    with TiffReader(path, level) as reader:
        assert [one.shape for one in reader.levels] == [one.shape[:2] for one in levels]
        assert [one.downsample for one in reader.levels] == [1, 2, 4]
        assert reader.pixel_size == pytest.approx(0.25 * 2**level)
        np.testing.assert_array_equal(reader.read(reader.box), levels[level])
        np.testing.assert_array_equal(reader.read(Box(3, 5, 12, 14)), levels[level][3:15, 5:19])


@pytest.mark.parametrize("level", [3, -1])
def test_a_level_that_is_not_there(path, level):
    write_pyramid(path, pyramid(PIXELS[np.uint8, 3], 3), "ome")
    with pytest.raises(
        ImageError, match=rf"no level {level}: its levels are 0 \(75 x 90\), 1 \(38 x 45\), 2 \(19 x 23\)"
    ):
        TiffReader(path, level)


@settings(deadline=None)
@given(whole=st.tuples(st.integers(64, 9999), st.integers(64, 9999)), factor=st.integers(1, 16), up=st.booleans())
def test_a_level_divides_the_whole(whole, factor, up):
    shape = tuple(-(-n // factor) if up else n // factor for n in whole)
    # A side that is hardly longer than the factor may have been divided by several whole numbers.
    assert downsample(whole, shape) == factor or max(shape) <= 2 * factor


def write_svs(path, levels, mpp="0.2525"):
    """As Aperio's scanners write: the slide, a thumbnail, smaller levels, then a label and a photograph."""
    said = f"Aperio Image Library v11.2.1 \r\n90x75 [0,0 90x75] (16x16) JPEG/RGB Q=70|AppMag = 40|MPP = {mpp}|Left = 25"
    options = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(levels[0], tile=(16, 16), description=said, compression="zlib", **options)
        file.write(levels[-1][:9, :9], description="Aperio Image Library\r\n90x75 -> 9x9", **options)
        for level in levels[1:]:
            file.write(level, tile=(16, 16), description="Aperio Image Library\r\n", compression="zlib", **options)
        file.write(np.full((30, 30, 3), 9, np.uint8), subfiletype=1, description="Aperio\r\nlabel", **options)
        file.write(np.full((90, 300, 3), 9, np.uint8), subfiletype=9, description="Aperio\r\nmacro", **options)


def test_svs_is_the_slide_and_its_levels(path):
    path = path.with_suffix(".svs")
    levels = [PIXELS[np.uint8, 3], PIXELS[np.uint8, 3][::4, ::4]]
    write_svs(path, levels)
    for number, level in enumerate(levels):
        with TiffReader(path, number) as reader:
            assert [one.downsample for one in reader.levels] == [1, 4]
            assert reader.pixel_size == pytest.approx(0.2525 * 4**number)
            assert reader.channels == ("red", "green", "blue")
            np.testing.assert_array_equal(reader.read(reader.box), level)


@pytest.mark.parametrize("mpp", ["0", "nan", "none", "-1", "1e999", "."])
def test_an_svs_without_a_usable_size(path, mpp):
    write_svs(path.with_suffix(".svs"), [PIXELS[np.uint8, 3]], mpp)
    with TiffReader(path.with_suffix(".svs")) as reader:
        assert reader.pixel_size is None


def restarted(streams, height, width):
    """One JPEG stream of a whole image, from those of its tiles, with where each tile begins."""
    ends = [stream.index(b"\xff\xda") + 2 + stream[stream.index(b"\xff\xda") + 3] for stream in streams]
    head = bytearray(streams[0][: ends[0]])
    frame = head.index(b"\xff\xc0")
    blocks = int.from_bytes(head[frame + 7 : frame + 9], "big") // 8
    head[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    head[2:2] = b"\xff\xdd\x00\x04" + struct.pack(">H", blocks)
    data, starts = bytes(head), []
    for number, (stream, end) in enumerate(zip(streams, ends, strict=True)):
        starts.append(len(data))
        data += stream[end:-2] + (bytes([0xFF, 0xD0 + number % 8]) if number + 1 < len(streams) else b"\xff\xd9")
    return data, starts


def write_ndpi(path, pixels, wide=32):
    """One page as Hamamatsu's scanners write it: a JPEG stream with restart markers; 64-bit offsets in a TIFF of 32.

    Behind the tags come 64 bits for the next page, then the high 32 bits of each tag's value.
    """
    height, width = pixels.shape[:2]
    tiles = [pixels[y : y + 8, x : x + wide] for y in range(0, height, 8) for x in range(0, width, wide)]
    streams = [imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=90, subsampling="444") for tile in tiles]
    data, starts = restarted(streams, height, width)
    at = 12
    stream_at, at = at, at + len(data)
    starts_at, at = at, at + 4 * len(starts)
    fraction_at, at = at, at + 8
    depth_at, at = at, at + 6
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, depth_at), (259, 3, 1, 7), (262, 3, 1, 6)),
        *((271, 2, 4, int.from_bytes(b"HAM\0", "little")), (273, 4, 1, stream_at), (277, 3, 1, 3), (278, 4, 1, height)),
        *((279, 4, 1, len(data)), (282, 5, 1, fraction_at), (283, 5, 1, fraction_at), (296, 3, 1, 3)),
        *((65420, 4, 1, 1), (65426, 4, len(starts), starts_at)),
    ]
    file = b"II*\0" + struct.pack("<Q", at) + data + struct.pack(f"<{len(starts)}I", *starts)
    file += struct.pack("<2I", 40000, 1) + struct.pack("<3H", 8, 8, 8)
    file += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(file + bytes(8 + 4 * len(tags)))
    decoded = [imagecodecs.jpeg8_decode(stream) for stream in streams]
    across = width // wide
    return np.vstack([np.hstack(decoded[k : k + across]) for k in range(0, len(decoded), across)])


def test_ndpi_is_read_by_the_pieces_between_restart_markers(path):
    path = path.with_suffix(".ndpi")
    expected = write_ndpi(path, np.ascontiguousarray(PIXELS[np.uint8, 3][:72, :64]))
    with TiffReader(path) as reader:
        assert (reader.shape, reader.piece, reader.pixel_size) == ((72, 64), (8, 32), pytest.approx(0.25))
        for box in (reader.box, Box(7, 31, 3, 2), Box(64, 0, 8, 64)):
            np.testing.assert_array_equal(reader.read(box), expected[box.within(reader.box)])


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "jpeg", "jpeg2000"])
def test_a_tile_that_will_not_decode_is_named_and_the_others_are_read(path, compression):
    pixels = PIXELS[np.uint8, 1][..., 0]
    tifffile.imwrite(path, pixels, compression=compression, tile=(32, 32))
    with tifffile.TiffFile(path) as tiff:
        begin, length = tiff.pages[0].dataoffsets[4], tiff.pages[0].databytecounts[4]
    whole = path.read_bytes()
    path.write_bytes(whole[:begin] + b"\xff" * length + whole[begin + length :])
    with TiffReader(path) as reader:
        assert reader.read(Box(0, 0, 32, 32)).shape == (32, 32, 1)
        with pytest.raises(ImageError, match=r"image\.tif"):
            reader.read(Box(40, 40, 1, 1))


@pytest.mark.parametrize("options", [{"tile": (32, 32)}, {"rowsperstrip": 16}])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_header_that_promises_more_than_there_is(path, options, compression):
    tifffile.imwrite(path, PIXELS[np.uint8, 1][..., 0], compression=compression, metadata=None, **options)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for tag in ("ImageWidth", "ImageLength"):
            tiff.pages[0].tags[tag].overwrite(1_000_000)
    with pytest.raises(ImageError, match=r"image\.tif"):
        TiffReader(path)


def plain(shape, value):
    return np.full(shape, value, np.uint8)


SEVERAL = {
    "positions": (("pos0", "pos1"), [(plain((40, 50), 1), {}), (plain((40, 60), 2), {})]),
    "a reduced page": (("",), [(plain((40, 50), 1), {}), (plain((20, 25), 2), {"subfiletype": 1})]),
    "photographs": (("scan",), [(plain((40, 50), 1), {}), (plain((30, 30), 2), {}), (plain((9, 9), 3), {})]),
}
NAMED = {"positions": ("pos0", "pos1"), "photographs": ("scan", "label image", "macro image")}


@pytest.mark.parametrize("kind", SEVERAL)
def test_the_images_of_a_file_are_those_that_show_something_of_their_own(tmp_path, kind):
    names, pages = SEVERAL[kind]
    path = tmp_path / ("x.ome.tif" if kind in NAMED else "x.tif")
    with tifffile.TiffWriter(path, ome=kind in NAMED) as file:
        for number, (pixels, how) in enumerate(pages):
            metadata = {"axes": "YX", "Name": NAMED[kind][number]} if kind in NAMED else None
            file.write(pixels, metadata=metadata, **how)
    assert tuple(one.name for one in scenes(path)) == (names if kind in NAMED else ("",) * len(names))
    for number in range(len(names)):
        with TiffReader(path, series=number + 1) as reader:
            assert reader.shape == pages[number][0].shape and (reader.read(reader.box) == number + 1).all()
    with pytest.raises(ImageError, match=f"has no image {len(names) + 1}: it holds {len(names)}"):
        TiffReader(path, series=len(names) + 1)
    if len(names) > 1:
        with pytest.raises(ImageError, match=r"holds 2 images \(pos0, pos1\), and one is needed here"):
            TiffReader(path)


def test_each_image_of_a_file_has_its_own_channels_and_pixel_size(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.ome.tif", ome=True) as file:
        for size, names in ((0.25, ["DAPI", "GFP"]), (0.5, ["RFP", "Hoechst"])):
            about = {"axes": "CYX", "Channel": {"Name": names}, "PhysicalSizeX": size, "PhysicalSizeY": size}
            file.write(plain((2, 40, 50), 1), metadata=about)
    for number, (size, names) in enumerate(((0.25, ("DAPI", "GFP")), (0.5, ("RFP", "Hoechst"))), start=1):
        with TiffReader(tmp_path / "x.ome.tif", series=number) as reader:
            assert (reader.pixel_size, reader.channels) == (size, names)


def test_small_pages_of_no_stated_kind_are_thumbnails(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        for pixels in (plain((8, 10), 1), plain((80, 90), 2)):
            file.write(pixels, metadata=None)
    assert scenes(tmp_path / "x.tif") == (Scene(),)
    with TiffReader(tmp_path / "x.tif") as reader:
        assert reader.shape == (80, 90)
