"""TIFF in its dialects: pixels, axes, channel names and pixel size."""

import numpy as np
import pytest
import tifffile

from nucleate.data.normalization import normalise
from nucleate.errors import ImageError
from nucleate.io.label_file import read_labels
from nucleate.io.reader import read_image
from nucleate.io.tiff_reader import TiffReader

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (40, 30), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)
STACK = RNG.integers(0, 60000, (3, 40, 30), dtype=np.uint16)
MICRO = "\u00b5m"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.tif"


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "jpeg2000", "packbits"])
@pytest.mark.parametrize("dtype", ["<u1", "<u2", ">u2"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_lossless_pixels_come_back(path, compression, dtype, tile):
    pixels = (GREY.astype(np.uint16) * (1 if dtype == "<u1" else 257)).astype(dtype)
    tifffile.imwrite(path, pixels, compression=compression, tile=tile, predictor=compression in ("lzw", "zlib"))
    plane = read_image(path)
    assert plane.pixels.dtype == np.dtype(dtype).newbyteorder("=") and plane.pixels.dtype.isnative
    np.testing.assert_array_equal(plane.pixels[..., 0], pixels)
    assert plane.channels == ("grey",) and plane.pixel_size is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.int32, np.uint32])
def test_every_number_is_read(path, dtype):
    tifffile.imwrite(path, GREY.astype(dtype))
    with TiffReader(path, labels=True) as reader:
        pixels = reader.read(reader.box)
        assert reader.dtype == pixels.dtype == dtype
    np.testing.assert_array_equal(pixels[..., 0], GREY)


def test_jpeg_compressed_colour_is_rgb(path):
    smooth = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 4, np.arange(64) * 4, 30), axis=2).astype(np.uint8)
    tifffile.imwrite(path, smooth, photometric="rgb", compression="jpeg", compressionargs={"level": 100})
    assert np.abs(read_image(path).pixels.astype(int) - smooth).max() < 12


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_is_samples(path, planar):
    stored = COLOUR if planar == "contig" else np.moveaxis(COLOUR, 2, 0)
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar)
    plane = read_image(path)
    np.testing.assert_array_equal(plane.pixels, COLOUR)
    assert plane.channels == ("red", "green", "blue")


def test_transparency_is_dropped(path):
    tifffile.imwrite(path, np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_image(path).pixels, COLOUR)
    both = np.dstack([GREY, GREY[::-1]])
    tifffile.imwrite(path, both, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_image(path).pixels, GREY[..., None])


def test_ome_gives_names_and_size(path):
    path = path.with_name("image.ome.tif")
    size = {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": MICRO}
    tifffile.imwrite(path, STACK, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "Actin"]}, **size})
    plane = read_image(path)
    np.testing.assert_array_equal(plane.pixels, np.moveaxis(STACK, 0, 2))
    assert plane.channels == ("DAPI", "GFP", "Actin")
    assert plane.pixel_size == pytest.approx(0.25)


def test_imagej_gives_names_and_size(path):
    metadata = {"axes": "CYX", "unit": "um", "Labels": ["DAPI", "GFP", "Actin"]}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(4, 4), metadata=metadata)
    plane = read_image(path)
    np.testing.assert_array_equal(plane.pixels, np.moveaxis(STACK, 0, 2))
    assert plane.channels == ("DAPI", "GFP", "Actin")
    assert plane.pixel_size == pytest.approx(0.25)


@pytest.mark.parametrize("unit", ["micron", "\\u00B5m", "um"])
def test_imagej_spells_micrometres_in_many_ways(path, unit):
    tifffile.imwrite(path, GREY, imagej=True, resolution=(2, 2), metadata={"unit": unit})
    assert read_image(path).pixel_size == pytest.approx(0.5)


@pytest.mark.parametrize("unit", ["pixel", None])
def test_imagej_without_a_length_says_no_size(path, unit):
    tifffile.imwrite(path, GREY, imagej=True, resolution=(2, 2), metadata={"unit": unit} if unit else {})
    assert read_image(path).pixel_size is None


@pytest.mark.parametrize(
    ("resolution", "unit", "size"),
    [
        ((20000, 20000), "CENTIMETER", 0.5),
        ((50800, 50800), "INCH", 0.5),
        ((72, 72), "INCH", None),
        ((300, 300), "INCH", None),
        ((1, 1), "NONE", None),
        ((20000, 10000), "CENTIMETER", None),
    ],
)
def test_resolution_tags(path, resolution, unit, size):
    tifffile.imwrite(path, GREY, resolution=resolution, resolutionunit=unit)
    assert read_image(path).pixel_size == (None if size is None else pytest.approx(size))


def test_unnamed_channels_are_numbered(path):
    tifffile.imwrite(path, STACK, photometric="minisblack", metadata={"axes": "CYX"})
    assert read_image(path).channels == ("channel 1", "channel 2", "channel 3")


@pytest.mark.parametrize("axes", ["TZYX", "ZYX", "TYX", "CYX", "TZCYX"])
def test_axes_of_length_one_are_dropped(path, axes):
    shape = (1,) * (len(axes) - 2) + (40, 30)
    tifffile.imwrite(path, GREY.reshape(shape), photometric="minisblack", metadata={"axes": axes})
    np.testing.assert_array_equal(read_image(path).pixels, GREY[..., None])


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_height_and_width_of_one_stay(path, shape):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    tifffile.imwrite(path, pixels)
    np.testing.assert_array_equal(read_image(path).pixels, pixels[..., None])


@pytest.mark.parametrize(("axes", "held"), [("ZYX", r"3 planes \(Z\)"), ("TYX", r"3 frames \(T\)"), ("QYX", "3 pages")])
def test_a_stack_is_refused_with_what_it_holds(path, axes, held):
    tifffile.imwrite(path, STACK, photometric="minisblack", metadata={"axes": axes})
    with pytest.raises(ImageError, match=rf"image\.tif is a stack of {held} where one plane is needed: say --"):
        read_image(path)


def test_a_palette_is_colour_unless_imagej_wrote_it(path):
    palette = RNG.integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(path, GREY, photometric="palette", colormap=palette)
    np.testing.assert_array_equal(read_image(path).pixels, np.moveaxis(palette[:, GREY] >> 8, 0, 2))
    np.testing.assert_array_equal(read_labels(path), GREY)
    tifffile.imwrite(path, GREY, imagej=True, colormap=palette)
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], GREY)


def test_white_as_zero_is_turned_round(path):
    tifffile.imwrite(path, GREY, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], 255 - GREY)
    np.testing.assert_array_equal(read_labels(path), GREY)  # of labels the numbers count, whatever they look like


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint16, np.uint32, np.float32, np.float64])
def test_white_as_zero_of_every_type_shows_what_black_as_zero_does(path, dtype):
    values = GREY.astype(dtype) / dtype(255) if np.dtype(dtype).kind == "f" else (GREY // 2).astype(dtype)
    tifffile.imwrite(path, values)
    expected = normalise(read_image(path), 1)
    tifffile.imwrite(path, 1 - values if np.dtype(dtype).kind == "f" else np.invert(values), photometric="miniswhite")
    np.testing.assert_allclose(normalise(read_image(path), 1), expected, atol=1e-5)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "jpeg", "jpeg2000"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_a_file_cut_anywhere_is_refused(path, compression, tile):
    tifffile.imwrite(path, GREY, compression=compression, tile=tile)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        # Padding and tags may follow the last pixel; only what comes before it is missed.
        last = max(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
    whole = path.read_bytes()
    for length in [*range(8, last - 1, max(1, last // 40)), last - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"image\.tif"):
            read_image(path)


def test_a_header_that_promises_too_much_is_refused(path):
    tifffile.imwrite(path, np.zeros((1, 1), np.uint8), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for tag in ("ImageWidth", "ImageLength"):
            tiff.pages[0].tags[tag].overwrite(100_000)
    with pytest.raises(ImageError, match="promises 100000 tiles or strips and names 1"):
        read_image(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pixels_without_an_offset_are_refused(path, compression, capfd):
    tifffile.imwrite(path, GREY, compression=compression, rowsperstrip=16)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["StripOffsets"].overwrite((8,))
    with pytest.raises(ImageError, match=r"image\.tif"):
        read_image(path)
    assert capfd.readouterr().err == "", "nothing but the error reaches the terminal"


def test_planes_in_other_files_are_refused(path):
    path = path.with_name("image.ome.tif")
    tifffile.imwrite(path, STACK, photometric="minisblack", metadata={"axes": "CYX"})
    with tifffile.TiffFile(path) as tiff:
        text = tiff.ome_metadata
    tag = '<TiffData IFD="0" PlaneCount="3"/>'
    assert tag in text
    planes = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{c}</UUID></TiffData>'
        for c, name in enumerate(["image.ome.tif", "gone.ome.tif", "lost.ome.tif"])
    )
    tifffile.tiffcomment(path, text.replace(tag, planes))
    with pytest.raises(ImageError, match="names planes that lie in other files"):
        read_image(path)


@pytest.mark.parametrize(
    ("photometric", "samples", "colours"),
    [("separated", 4, r"inks for printing \(CMYK\)"), ("cielab", 3, r"CIE L\*a\*b\*")],
)
def test_colours_that_are_no_light_are_refused_by_name(path, photometric, samples, colours):
    tifffile.imwrite(path, RNG.integers(0, 256, (40, 30, samples), dtype=np.uint8), photometric=photometric)
    with pytest.raises(ImageError, match=rf"image\.tif has colours as {colours}: save it as RGB"):
        read_image(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_signed_numbers_and_12_bits_are_right_in_both_byte_orders(path, order, compression):
    signed = RNG.integers(-2000, 2000, (40, 30)).astype(np.int16)
    tifffile.imwrite(path, signed, byteorder=order, compression=compression)
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], signed)
    twelve = RNG.integers(0, 4096, (40, 30)).astype(np.uint16)
    # Bits are packed from the highest down in files of either order, which tifffile does of the native one alone.
    tifffile.imwrite(path, twelve if order == "<" else twelve.byteswap(), byteorder=order, bitspersample=12)
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], twelve)


def test_planes_in_blocks_of_three_dimensions_are_refused_by_name(path):
    volume = RNG.integers(0, 256, (16, 64, 64), dtype=np.uint8)
    tifffile.imwrite(path, volume, tile=(16, 16, 16), photometric="minisblack", volumetric=True)
    with pytest.raises(ImageError, match="blocks of three dimensions: save each plane as a page"):
        read_image(path)
