"""PNG and JPEG: what is whole comes back exactly, what is not is refused."""

import struct
import zlib

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleate.errors import ImageError
from nucleate.io import exif
from nucleate.io.bitmap import read_bitmap

RNG = np.random.default_rng(7)
PHOTO = RNG.integers(0, 256, (41, 37, 3), dtype=np.uint8)
RAMP = np.linspace(0, 255, 41 * 37).reshape(41, 37).astype(np.uint8)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def palette_png(indices, palette, depth=8, transparent=b""):
    """An indexed PNG, which imagecodecs does not write."""
    height, width = indices.shape
    rows = []
    for row in indices:
        bits = "".join(format(value, f"0{depth}b") for value in row)
        bits += "0" * (-len(bits) % 8)
        rows.append(b"\x00" + int(bits, 2).to_bytes(len(bits) // 8, "big"))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 3, 0, 0, 0))
        + chunk(b"PLTE", np.asarray(palette, np.uint8).tobytes())
        + (chunk(b"tRNS", transparent) if transparent else b"")
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )


@settings(deadline=None, max_examples=60)
@given(data=st.data(), dtype=st.sampled_from([np.uint8, np.uint16]), samples=st.sampled_from([1, 2, 3, 4]))
def test_png_round_trip_drops_only_transparency(tmp_path_factory, data, dtype, samples):
    pixels = data.draw(hnp.arrays(dtype, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(samples))))
    path = tmp_path_factory.mktemp("png") / "image.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    kept = {1: 1, 2: 1, 3: 3, 4: 3}[samples]
    read = read_bitmap(path)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, pixels[..., :kept])


@pytest.mark.parametrize("pixels", [PHOTO, RAMP], ids=["colour", "grey"])
@pytest.mark.parametrize("level", [50, 95])
def test_jpeg_is_what_the_codec_decodes(tmp_path, pixels, level):
    path = tmp_path / "image.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(pixels, level=level))
    expected = imagecodecs.jpeg8_decode(path.read_bytes())
    np.testing.assert_array_equal(read_bitmap(path), expected.reshape(41, 37, -1))


@pytest.mark.parametrize("encode", [imagecodecs.png_encode, imagecodecs.jpeg8_encode], ids=["png", "jpeg"])
@pytest.mark.parametrize("pixels", [PHOTO, RAMP], ids=["colour", "grey"])
def test_a_file_cut_anywhere_is_refused(tmp_path, encode, pixels):
    whole = encode(pixels)
    path = tmp_path / "image"
    for length in range(8, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match="image"):
            read_bitmap(path)
    for missing in (1, 2, 3, 4, 11, 12, 13):
        path.write_bytes(whole[:-missing])
        with pytest.raises(ImageError, match=r"image .*(cut off|decoded)"):
            read_bitmap(path)


def test_bytes_after_the_end_do_not_matter(tmp_path):
    path = tmp_path / "image"
    for encode in (imagecodecs.png_encode, imagecodecs.jpeg8_encode):
        path.write_bytes(encode(PHOTO))
        alone = read_bitmap(path)
        path.write_bytes(encode(PHOTO) + b"trailing bytes")
        np.testing.assert_array_equal(read_bitmap(path), alone)


def test_flipped_bytes_in_a_png_are_noticed(tmp_path):
    whole = bytearray(imagecodecs.png_encode(PHOTO))
    whole[len(whole) // 2] ^= 0x55
    path = tmp_path / "image.png"
    path.write_bytes(whole)
    with pytest.raises(ImageError, match=r"image\.png cannot be decoded"):
        read_bitmap(path)


@pytest.mark.parametrize("side", [5_000, 900_000])
def test_a_header_that_promises_more_than_the_file_can_hold_is_refused(tmp_path, side):
    whole = imagecodecs.png_encode(RAMP)
    header = struct.pack(">II", side, side) + whole[24:29]
    path = tmp_path / "image.png"
    path.write_bytes(whole[:8] + chunk(b"IHDR", header) + whole[33:])
    with pytest.raises(ImageError, match=f"promises {side} x {side} pixels, more than its .* bytes can hold"):
        read_bitmap(path)


def test_a_jpeg_header_that_promises_too_much_is_refused(tmp_path):
    whole = bytearray(imagecodecs.jpeg8_encode(RAMP))
    start = whole.index(b"\xff\xc0")
    whole[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
    path = tmp_path / "image.jpg"
    path.write_bytes(whole)
    with pytest.raises(ImageError, match="60000 x 60000"):
        read_bitmap(path)


def test_a_small_jpeg_that_promises_a_large_image_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    whole = bytearray(imagecodecs.jpeg8_encode(RAMP))
    start = whole.index(b"\xff\xc0")
    whole[start + 5 : start + 9] = struct.pack(">HH", 46_340, 46_340)
    path = tmp_path / "image.jpg"
    path.write_bytes(whole)
    monkeypatch.setattr(imagecodecs, "jpeg8_decode", None)
    with pytest.raises(ImageError, match=f"46340 x 46340 pixels, more than its {len(whole)} bytes can hold"):
        read_bitmap(path)


def test_a_jpeg_of_one_colour_is_as_small_as_it_may_be(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(np.full((3000, 3000), 7, np.uint8), level=1, optimize=True))
    assert read_bitmap(path).shape == (3000, 3000, 1)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_becomes_its_colours_and_for_labels_its_indices(tmp_path, depth):
    indices = RNG.integers(0, 2**depth, (7, 9))
    palette = RNG.integers(0, 256, (2**depth, 3))
    palette[0] = (1, 2, 3)
    path = tmp_path / "image.png"
    path.write_bytes(palette_png(indices, palette, depth, transparent=b"\x00"))
    np.testing.assert_array_equal(read_bitmap(path), palette[indices])
    np.testing.assert_array_equal(read_bitmap(path, labels=True)[..., 0], indices)


def test_a_grey_palette_of_labels_becomes_its_greys(tmp_path):
    indices = RNG.integers(0, 4, (5, 6))
    greys = np.array([0, 10, 20, 30])
    path = tmp_path / "image.png"
    path.write_bytes(palette_png(indices, np.repeat(greys, 3).reshape(4, 3), 2))
    np.testing.assert_array_equal(read_bitmap(path, labels=True)[..., 0], greys[indices])


def test_cmyk_is_refused(tmp_path):
    ink = RNG.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    path = tmp_path / "image.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(ink, colorspace="cmyk", outcolorspace="cmyk"))
    with pytest.raises(ImageError, match="CMYK"):
        read_bitmap(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_an_image_turned_by_exif_is_turned_back_as_pillow_does(tmp_path, orientation, ending):
    camera = PIL.Image.Exif()
    camera[274] = orientation
    path = tmp_path / f"camera.{ending}"
    PIL.Image.fromarray(RNG.integers(0, 256, (20, 31), dtype=np.uint8)).save(path, exif=camera)
    with PIL.Image.open(path) as stored:
        expected = np.asarray(PIL.ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(read_bitmap(path)[..., 0], expected)


@given(st.binary(max_size=80))
def test_any_bytes_as_exif_have_an_orientation(data):
    assert 1 <= exif.orientation(data) <= 8 and 1 <= exif.orientation(b"II*\0\x08\0\0\0" + data) <= 8
    assert len(exif.of_jpeg(b"\xff\xd8\xff\xe1" + data)) <= len(data)
