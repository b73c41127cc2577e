"""Images and masks from files: types, names, and what is refused."""

import contextlib
import io
import zlib
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleate.errors import ImageError
from nucleate.io.axes import name_of
from nucleate.io.label_file import read_labels
from nucleate.io.reader import IMAGE_SUFFIXES, MemoryReader, is_image, open_reader, read_image
from nucleate.io.tiff_reader import TiffReader
from nucleate.types import Box

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)
MAX32 = np.iinfo(np.int32).max


@settings(deadline=None, max_examples=60)
@given(values=hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.float32]), SHAPES, elements={"allow_nan": False}))
def test_image_round_trip_through_tiff(tmp_path_factory, values):
    values = np.nan_to_num(values)
    path = tmp_path_factory.mktemp("reader") / "cells.tif"
    tifffile.imwrite(path, values)
    image = read_image(path)
    assert (image.name, image.channels, image.path) == ("cells", ("grey",), path)
    assert image.pixels.dtype == values.dtype
    np.testing.assert_array_equal(image.pixels, values[..., None])


@settings(deadline=None, max_examples=60)
@given(
    labels=hnp.arrays(np.int32, SHAPES, elements=st.integers(-5, 70_000)),
    dtype=st.sampled_from([np.uint8, np.uint16, np.uint32, np.int16, np.int32, np.int64, np.float32, np.float64]),
)
def test_label_round_trip_in_every_type_that_holds_them(tmp_path_factory, labels, dtype):
    if np.dtype(dtype).kind in "ui":
        labels = np.clip(labels, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(np.int32)
    path = tmp_path_factory.mktemp("reader") / "mask.tif"
    tifffile.imwrite(path, labels.astype(dtype))
    read = read_labels(path)
    assert read.dtype == np.int32 and read.flags.c_contiguous
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int16, np.int32, np.uint32])
def test_other_numbers_become_float32(tmp_path, dtype):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, np.array([[0, 1], [2, 1000]], dtype))
    assert read_image(path).pixels.dtype == np.float32
    assert read_image(path).pixels[..., 0].tolist() == [[0, 1], [2, 1000]]


def test_bilevel_images_are_0_and_255_and_masks_0_and_1(tmp_path):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, np.eye(9, dtype=bool))
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], np.eye(9) * 255)
    assert read_image(path).pixels.dtype == np.uint8
    np.testing.assert_array_equal(read_labels(path), np.eye(9))


def test_channels_of_colour_and_of_many(tmp_path):
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    (tmp_path / "he.png").write_bytes(imagecodecs.png_encode(colour))
    assert read_image(tmp_path / "he.png").channels == ("red", "green", "blue")
    tifffile.imwrite(tmp_path / "if.tif", colour, photometric="minisblack", metadata={"axes": "CYX"})
    image = read_image(tmp_path / "if.tif")
    assert image.channels == ("channel 1", "channel 2", "channel 3") and image.pixels.shape == (4, 3, 3)


def test_what_a_file_holds_counts_and_not_its_name(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    (tmp_path / "a.tif").write_bytes(imagecodecs.png_encode(pixels))
    tifffile.imwrite(tmp_path / "b.png", pixels)
    for name in ("a.tif", "b.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name).pixels[..., 0], pixels)


@pytest.mark.parametrize("read", [read_image, read_labels])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello, this is text\n", "not a PNG, JPEG or TIFF"),
        (b"GIF89a", "not a PNG, JPEG or TIFF"),
        (b"II*\x00", "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n", "cut off"),
        (b"\xff\xd8\xff", "cut off"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, read, content, says):
    path = tmp_path / "cells.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"cells\.png.*{says}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_image, read_labels])
def test_missing_files_and_folders_are_refused(tmp_path, read):
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        read(tmp_path / "gone.png")
    with pytest.raises(ImageError, match=r"cannot be read|is no OME-Zarr image"):
        read(tmp_path)


@pytest.mark.parametrize("read", [read_image, read_labels])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, read, bad):
    values = np.ones((4, 4), np.float32)
    values[1, 2] = bad
    tifffile.imwrite(tmp_path / "cells.tif", values)
    with pytest.raises(ImageError, match="1 values that are NaN or infinite"):
        read(tmp_path / "cells.tif")


def test_doubles_beyond_float32_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "cells.tif", np.array([[1e300, 0.0]]))
    with pytest.raises(ImageError, match="infinite"):
        read_image(tmp_path / "cells.tif")


def test_complex_numbers_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "cells.tif", np.ones((3, 3), np.complex64))
    for read in (read_image, read_labels):
        with pytest.raises(ImageError, match="complex64"):
            read(tmp_path / "cells.tif")


@pytest.mark.parametrize("value", [2**31, 2**32 - 1])
def test_labels_beyond_int32_are_refused(tmp_path, value):
    tifffile.imwrite(tmp_path / "mask.tif", np.array([[0, value]], np.uint32))
    with pytest.raises(ImageError, match=str(value)):
        read_labels(tmp_path / "mask.tif")
    tifffile.imwrite(tmp_path / "mask.tif", np.array([[0, MAX32]], np.uint32))
    assert read_labels(tmp_path / "mask.tif").tolist() == [[0, MAX32]]


def test_fractions_are_no_labels(tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", np.array([[0, 0.5]], np.float32))
    with pytest.raises(ImageError, match="fractions"):
        read_labels(tmp_path / "mask.tif")


def test_colour_masks_need_equal_channels(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    (tmp_path / "mask.png").write_bytes(imagecodecs.png_encode(np.dstack([grey] * 3)))
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png"), grey)
    (tmp_path / "mask.png").write_bytes(imagecodecs.png_encode(np.dstack([grey, grey, grey[::-1]])))
    with pytest.raises(ImageError, match="3 different channels"):
        read_labels(tmp_path / "mask.png")


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_of_one_value_is_kept(tmp_path, value):
    mask = np.zeros((9, 9), np.uint8)
    mask[1:3, 1:3] = mask[5:8, 5:8] = value
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.tif"), mask)


def test_names(tmp_path):
    assert all(
        is_image(tmp_path / f"x{suffix}") and is_image(tmp_path / f"x{suffix.upper()}") for suffix in IMAGE_SUFFIXES
    )
    assert not any(is_image(tmp_path / name) for name in (".x.png", "x.csv", "x", "png"))
    assert [name_of(tmp_path / name) for name in ("x.png", "x.y.tif", "x.ome.tif", "x.OME.TIFF")] == [
        "x",
        "x.y",
        "x",
        "x",
    ]


def encoded(kind):
    pixels = np.arange(30 * 20, dtype=np.uint16).reshape(30, 20) * 97
    if kind == "png":
        return imagecodecs.png_encode(pixels)
    if kind == "jpeg":
        return imagecodecs.jpeg8_encode((pixels >> 8).astype(np.uint8))
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, compression=kind, ome=kind == "zlib")
    return out.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "zlib", "lzw", None])
@settings(deadline=None, max_examples=60)
@given(changes=st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path_factory, kind, changes):
    data = bytearray(encoded(kind))
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path_factory.mktemp("damaged") / "cells.tif"
    path.write_bytes(data)
    for read in (read_image, read_labels):
        with contextlib.suppress(ImageError):
            read(path)


PIXELS = np.random.default_rng(2).integers(0, 255, (90, 70, 3), dtype=np.uint8)


def test_the_kind_is_what_is_in_the_file(tmp_path):
    tifffile.imwrite(tmp_path / "a.png", PIXELS, tile=(16, 16), photometric="rgb")
    (tmp_path / "b.tif").write_bytes(imagecodecs.png_encode(PIXELS))
    for name, kind in (("a.png", TiffReader), ("b.tif", MemoryReader)):
        with open_reader(tmp_path / name) as reader:
            assert type(reader) is kind
            np.testing.assert_array_equal(reader.read(reader.box), PIXELS)
        with pytest.raises(ImageError, match="has no level 1"):
            open_reader(tmp_path / name, 1)


@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"rowsperstrip": 3}, {"compression": None}])
def test_threads_read_the_same(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", **{"compression": "zlib", **options})
    with open_reader(tmp_path / "a.tif") as reader, ThreadPoolExecutor(8) as threads:
        boxes = [*reader.pieces(300)] * 3
        for box, found in zip(boxes, threads.map(reader.read, boxes), strict=True):
            np.testing.assert_array_equal(found, PIXELS[box.within(reader.box)])


@pytest.mark.parametrize("name", ["missing.tif", "folder", "notes.tif"])
def test_what_is_no_image(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.tif").write_text("notes")
    with pytest.raises(ImageError, match=name):
        open_reader(tmp_path / name)


def test_a_file_that_is_cut_short_at_once_or_midway(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, tile=(16, 16), photometric="rgb")
    data = path.read_bytes()
    with open_reader(path) as reader:
        with path.open("r+b") as file:
            file.truncate(len(data) // 2)
        with pytest.raises(ImageError, match="ended while it was read"):
            reader.read(reader.box)
    with pytest.raises(ImageError, match="is cut off"):
        open_reader(path)


@pytest.mark.parametrize("kind", ["tif", "zarr"])
def test_what_is_too_large_for_memory_is_refused_before_any_is_taken(tmp_path, kind):
    """Files that promise 2**32 values, all of them 0; a box of them can be read all the same."""
    path = tmp_path / f"cells.{kind}"
    if kind == "tif":
        tile = zlib.compress(bytes(2**20))
        tifffile.imwrite(
            path,
            (tile for _ in range(64 * 64)),
            shape=(2**16, 2**16),
            dtype="u1",
            tile=(1024, 1024),
            compression="zlib",
        )
    else:
        group = zarr.create_group(path, zarr_format=3)
        array = group.create_array("0", shape=(2**16, 2**16), chunks=(1024, 1024), dtype="u1")
        array[:1, :1] = 1
        datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}]
        axes = [{"name": axis, "type": "space"} for axis in "yx"]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    for read in (read_image, read_labels):
        with pytest.raises(ImageError, match=r"65536 x 65536 pixels, which take .* bytes; it is read as a whole"):
            read(path)
    with open_reader(path) as reader:
        assert reader.read(Box(2**16 - 9, 5, 9, 7)).max() == 0
