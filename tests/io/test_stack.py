"""Stacks of planes and of frames, as other programs' libraries write them: each way of reading one plane."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from nucleate.errors import ImageError, InputError
from nucleate.io.axes import layout
from nucleate.io.focus import best_plane
from nucleate.io.label_file import read_labels
from nucleate.io.reader import MemoryReader, open_reader, read_image, scenes
from nucleate.io.stack import Choice, planes
from nucleate.io.tiff_reader import TiffReader
from nucleate.types import Box, Image, Plane

RNG = np.random.default_rng(11)
FRAMES, PLANES, CHANNELS, HEIGHT, WIDTH = 5, 3, 2, 24, 31
STACK = RNG.integers(0, 4000, (FRAMES, PLANES, CHANNELS, HEIGHT, WIDTH), dtype=np.uint16)
"""T, Z, C, Y, X."""


def write_imagej(path):
    tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "TZCYX"})


def write_ome(path):
    metadata = {"axes": "TZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(path, STACK, ome=True, photometric="minisblack", metadata=metadata)


def write_other_order(path):
    tifffile.imwrite(path, STACK.transpose(2, 1, 0, 3, 4), photometric="minisblack", metadata={"axes": "CZTYX"})


def write_big_endian_tiles(path):
    options = {"photometric": "minisblack", "tile": (16, 16), "compression": "zlib", "byteorder": ">"}
    tifffile.imwrite(path, STACK, metadata={"axes": "TZCYX"}, **options)


def write_zarr(path, version=2, chunks=(1, 1, 1, 16, 16)):
    group = zarr.create_group(path, zarr_format=version)
    group.create_array("0", shape=STACK.shape, dtype=STACK.dtype, chunks=chunks)[:] = STACK
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": axis, "type": kinds.get(axis, "space")} for axis in "tzcyx"]
    scale = [{"type": "scale", "scale": [1.0] * 5}]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    if version == 2:
        group.attrs["multiscales"] = [{**multiscale, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}


WRITERS = {
    "imagej.tif": write_imagej,
    "ome.ome.tif": write_ome,
    "order.tif": write_other_order,
    "big.tif": write_big_endian_tiles,
    "v2.zarr": write_zarr,
    "v3.zarr": lambda path: write_zarr(path, 3, (2, 2, 2, 24, 20)),
}


@pytest.fixture(scope="module", params=WRITERS)
def stack(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("stack") / request.param
    WRITERS[request.param](path)
    return path


def test_every_plane_comes_back(stack):
    assert dict(scenes(stack)[0].stack) == {"T": FRAMES, "Z": PLANES}
    for t in range(FRAMES):
        for z in range(PLANES):
            found = read_image(stack, Plane(None, z + 1, t + 1))
            np.testing.assert_array_equal(found.pixels, np.moveaxis(STACK[t, z], 0, 2))


def test_projections_are_numpys(stack):
    box = Box(5, 7, 11, 13)
    for word, expected in (("max", STACK[3].max(axis=0)), ("mean", STACK[3].mean(axis=0))):
        with closing(open_reader(stack, plane=Plane(None, word, 4))) as reader:
            np.testing.assert_allclose(reader.read(reader.box), np.moveaxis(expected, 0, 2), rtol=1e-6)
            np.testing.assert_array_equal(reader.read(box), reader.read(reader.box)[box.within(reader.box)])
            assert reader.read(box).dtype == reader.dtype == (np.float32 if word == "mean" else np.uint16)


@pytest.mark.parametrize(
    ("plane", "words"),
    [
        (
            Plane(),
            r"is a stack of (5 f|3 p).* and (3 p|5 f).* say --z max, mean, best, each or a plane from 1",
        ),
        (Plane(z=1), r"say --t each or a frame from 1 to 5"),
        (Plane(t=1), r"say --z max, mean, best, each or a plane from 1 to 3"),
        (Plane(z=4, t=1), r"has no plane 4: it has 3 planes"),
        (Plane(z=1, t=6), r"has no frame 6: it has 5 frames"),
    ],
)
def test_what_is_not_there_or_not_said_is_one_sentence(stack, plane, words):
    with pytest.raises(ImageError, match=words) as error:
        open_reader(stack, plane=plane)
    assert str(stack) in str(error.value) and "\n" not in str(error.value)


def test_an_image_that_is_no_stack_takes_every_word_but_numbers(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK[0, 0, 0])
    for z in ("max", "mean", "best", 1):
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif", Plane(z=z, t=1)).pixels[..., 0], STACK[0, 0, 0])
    with pytest.raises(ImageError, match="has no plane 2: it has one plane alone"):
        read_image(tmp_path / "a.tif", Plane(z=2))


@pytest.mark.parametrize("word", ["z", "t"])
def test_pages_without_a_name_are_what_the_person_says(tmp_path, word):
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, STACK[0, :, 0], photometric="minisblack", metadata=None)
    with pytest.raises(ImageError, match=r"stack of 3 pages.*--z .*--t each or a number.*channels belong on an axis"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, Plane(**{word: 2})).pixels[..., 0], STACK[0, 1, 0])
    assert [plane for _, plane in planes(scenes(path), Choice(**{word: "each"}), path)] == [
        Plane(**{word: n}) for n in (1, 2, 3)
    ]


def test_colour_stacks_and_label_stacks(tmp_path):
    colour = RNG.integers(0, 256, (PLANES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", colour, photometric="rgb", metadata={"axes": "ZYXS"})
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.tif", Plane(z=2)).pixels, colour[1])
    tifffile.imwrite(tmp_path / "labels.tif", STACK[0, :, 0], imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.tif", plane=Plane(z=3)), STACK[0, 2, 0])
    with pytest.raises(ImageError, match="stack of labels, of which --z max says nothing"):
        read_labels(tmp_path / "labels.tif", plane=Plane(z="max"))


@pytest.mark.parametrize(
    ("axes", "shape", "words"),
    [
        ("AYX", (4, 30, 20), r"angles \(A\) are not read"),
        ("ZHYX", (2, 4, 30, 20), r"lifetimes \(H\) are not read"),
        ("YXC", (30, 20, 2), "no order that is read: save it with the axes TZCYX"),
        ("QQYX", (2, 2, 30, 20), "no order that is read"),
        ("CYXS", (2, 30, 20, 3), "colours in each of several channels"),
    ],
)
def test_other_axes_are_refused_by_name(axes, shape, words):
    with pytest.raises(ImageError, match=words):
        layout(axes, shape, Path("x.tif"))


@given(st.permutations("TZC"), st.tuples(*[st.integers(1, 4)] * 3), st.booleans())
def test_every_order_of_the_axes_before_a_plane_means_the_same(order, lengths, single):
    found = layout("".join(order) + "YX", (*lengths, 9, 1 if single else 8), Path("x.tif"))
    assert found.shape == (9, 1 if single else 8)
    named = dict(zip(order, lengths, strict=True))
    assert found.channels == named["C"]
    assert dict(found.stack) == {axis: named[axis] for axis in order if axis != "C" and named[axis] > 1}


def test_the_plane_in_best_focus_is_found(tmp_path):
    sharp = np.zeros((96, 120))
    sharp[tuple(RNG.integers(8, 88, (2, 40)))] = 1
    sharp = ndimage.gaussian_filter(sharp, 2)
    blurred = [ndimage.gaussian_filter(sharp, abs(z - 4) * 1.5 + 0.1) for z in range(7)]
    noisy = np.stack([RNG.poisson(2000 * plane / sharp.max() + 20) for plane in blurred]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "z.tif", noisy, imagej=True, metadata={"axes": "ZYX"})
    with closing(open_reader(tmp_path / "z.tif", plane=Plane(z="best"))) as reader:
        assert reader.plane.z == 5 and "plane 5 of 7 is in best focus" in reader.note
        np.testing.assert_array_equal(reader.read(reader.box)[..., 0], noisy[4])


@given(st.integers(0, 3), st.floats(1, 8), st.integers(-500, 500))
def test_best_focus_does_not_depend_on_gain(place, gain, lowest):
    planes = [np.full((8, 8), 10.0) + np.eye(8) * (40 if n == place else 5) for n in range(4)]
    images = [Image("p", (gain * p + min(lowest, 0))[..., None].astype(np.float32), ("grey",)) for p in planes]
    assert best_plane([MemoryReader(image) for image in images]) == place


@pytest.mark.parametrize("words", [{"z": "sum"}, {"t": "max"}, {"z": "0"}, {"t": "-1"}, {"z": "1.5"}, {"z": ""}])
def test_other_words_are_refused(words):
    with pytest.raises(InputError, match=r"--[zt] is .*: give .*, or the number of a (plane|frame), from 1"):
        Choice(**words)


def test_a_scene_by_name_and_by_number(tmp_path):
    path = tmp_path / "positions.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for number in range(3):
            file.write(STACK[number, :, 0], photometric="minisblack", metadata={"axes": "ZYX", "Name": f"pos {number}"})
    for scene in ("pos 1", "2"):
        (found,) = planes(scenes(path), Choice(scene, "max"), path)
        assert found == ("_s2", Plane(2, "max"))
    np.testing.assert_array_equal(read_image(path, found[1]).pixels[..., 0], STACK[1, :, 0].max(axis=0))
    with pytest.raises(ImageError, match=r"has no scene 'pos 7': it holds pos 0 \(1\), pos 1 \(2\), pos 2 \(3\)"):
        list(planes(scenes(path), Choice("pos 7"), path))
    assert [end for end, _ in planes(scenes(path), Choice(z="each"), path)][:4] == [
        "_s1_z1",
        "_s1_z2",
        "_s1_z3",
        "_s2_z1",
    ]


def test_of_a_long_stack_only_the_pages_that_are_read_are_decoded(tmp_path, monkeypatch):
    path = tmp_path / "long.tif"
    tifffile.imwrite(
        path, np.zeros((50, 64, 64), np.uint8), tile=(16, 16), compression="zlib", metadata={"axes": "ZYX"}
    )
    decoded = []
    from nucleate.io import tiff_page

    real = tiff_page._decode
    monkeypatch.setattr(tiff_page, "_decode", lambda *args: decoded.append(1) or real(*args))
    with closing(open_reader(path, plane=Plane(z=30))) as reader:
        reader.read(Box(20, 20, 8, 8))
    assert len(decoded) <= 2  # the tile, and the first, by which the type is known


def test_of_a_zarr_stack_only_the_chunks_that_are_read_are_decoded(tmp_path):
    write_zarr(tmp_path / "a.zarr")
    broken = [*(tmp_path / "a.zarr" / "0").glob("4*/**/*"), *(tmp_path / "a.zarr" / "0").glob("4.*")]
    for chunk in filter(Path.is_file, broken):
        chunk.write_bytes(b"broken")
    np.testing.assert_array_equal(read_image(tmp_path / "a.zarr", Plane(z=3, t=4)).pixels[..., 1], STACK[3, 2, 1])
    with pytest.raises(ImageError, match="has a chunk that"):
        read_image(tmp_path / "a.zarr", Plane(z=3, t=5))


def test_an_imagej_stack_of_which_one_page_stands_for_all(tmp_path):
    path = tmp_path / "virtual.tif"
    tifffile.imwrite(path, STACK, imagej=True, truncate=True, metadata={"axes": "TZCYX"})
    np.testing.assert_array_equal(read_image(path, Plane(z=2, t=5)).pixels[..., 1], STACK[4, 1, 1])
    with TiffReader(path) as reader:
        assert dict(reader.stack) == {"T": 5, "Z": 3}
