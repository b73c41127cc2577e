"""Writing: what is written is read back, and a failure leaves everything as it was."""

import errno
import json
import os
import resource
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleate.errors import OutputError
from nucleate.images import writer
from nucleate.images.reader import read_image
from nucleate.images.writer import atomic, boundary, write_json, write_overlay, write_text
from nucleate.types import Image

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "out.txt"
    path.write_bytes(b"before")
    return path


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40)
@given(value=JSON)
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "x.json"
    write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value


def test_names_that_are_not_unicode_can_be_written(tmp_path):
    name = os.fsdecode(b"cells\xff")
    write_json(tmp_path / "x.json", {name: [name]})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {name: [name]}
    write_text(tmp_path / "x.txt", name)
    assert (tmp_path / "x.txt").read_bytes() == rb"cells\udcff"


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, object(), {(1, 2): 3}])
def test_what_json_cannot_say_is_refused(file, value):
    with pytest.raises(OutputError, match=r"out\.txt cannot be written as JSON"):
        write_json(file, value)
    assert file.read_bytes() == b"before"


def test_text_keeps_its_line_ends(tmp_path):
    write_text(tmp_path / "a/b/c.txt", "\u00e4\r\nb\n")
    assert (tmp_path / "a/b/c.txt").read_bytes() == b"\xc3\xa4\r\nb\n"


def test_atomic_shows_nothing_until_it_ends(file):
    with atomic(file) as out:
        out.write(b"after")
        out.flush()
        assert file.read_bytes() == b"before"
    assert file.read_bytes() == b"after"
    assert names(file.parent) == ["out.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_leaves_what_was_there_when_the_block_raises(file, error):
    with pytest.raises(error), atomic(file) as out:
        out.write(b"half")
        raise error
    assert file.read_bytes() == b"before"
    assert names(file.parent) == ["out.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_changes_nothing(file, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((writer.os, "fsync") if call == "fsync" else (type(file), "replace")), full)
    with pytest.raises(OutputError, match=r"out\.txt cannot be written \(No space left on device\)"):
        write_text(file, "after")
    assert file.read_bytes() == b"before"
    assert names(file.parent) == ["out.txt"]


def test_a_write_that_the_system_cuts_short_changes_nothing(file):
    """A real refusal in the middle of a file: the limit on file size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"out\.txt cannot be written \(File too large\)"):
            write_text(file, "after" * 9999)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_bytes() == b"before"
    assert names(file.parent) == ["out.txt"]


def test_a_file_or_a_folder_in_the_way(file):
    with pytest.raises(OutputError, match=r"out\.txt/x\.txt cannot be written"):
        write_text(file / "x.txt", "after")
    (file.parent / "folder").mkdir()
    for path in (file.parent / "folder", type(file)(".")):
        with pytest.raises(OutputError, match=rf"{path} cannot be written"):
            write_text(path, "after")
    assert names(file.parent) == ["folder", "out.txt"] and file.read_bytes() == b"before"


def test_long_names_are_no_obstacle(tmp_path):
    name = "n" * 250 + ".txt"
    write_text(tmp_path / name, "x")
    assert names(tmp_path) == [name]


@settings(deadline=None, max_examples=60)
@given(labels=hnp.arrays(np.int32, SHAPES, elements=st.integers(-1, 3)))
def test_boundary_is_its_definition(labels):
    expected = np.zeros(labels.shape, bool)
    for y, x in np.argwhere(labels > 0):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(v, u) for v, u in around if 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]]
        expected[y, x] = any(labels[spot] != labels[y, x] for spot in inside)
    np.testing.assert_array_equal(boundary(labels), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_overlay_is_the_stretched_image_with_outlines(tmp_path, channels, dtype):
    pixels = np.random.default_rng(0).integers(0, 200, (40, 50, channels)).astype(dtype)
    labels = np.zeros((40, 50), np.int32)
    labels[5:15, 5:15], labels[15:25, 5:15], labels[30:35, 30:40] = 1, 2, 3
    write_overlay(tmp_path / "x.png", Image("x", pixels, ("c",) * channels), labels)
    picture = read_image(tmp_path / "x.png").pixels
    assert picture.shape == (40, 50, 3) and picture.dtype == np.uint8
    edge = boundary(labels)
    outline = [np.unique(picture[edge & (labels == label)], axis=0) for label in (1, 2, 3)]
    assert [len(colour) for colour in outline] == [1, 1, 1]
    assert len(np.unique(np.concatenate(outline), axis=0)) == 3
    shown = pixels[..., :3].astype(float)
    low, high = np.percentile(shown, (0.5, 99.8))
    expected = np.clip((shown - low) / (high - low), 0, 1) * 255
    for channel in range(3):
        source = expected[..., 0 if channels == 1 else channel] if channels != 2 or channel < 2 else np.zeros((40, 50))
        assert np.abs(picture[..., channel] - source)[~edge].max() <= 0.51


def test_overlay_of_nothing_is_the_image(tmp_path):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    write_overlay(tmp_path / "x.png", Image("x", pixels, ("grey",)), np.zeros((16, 16), np.int32))
    picture = read_image(tmp_path / "x.png").pixels
    assert (picture == picture[..., :1]).all() and (np.diff(picture[..., 0].ravel().astype(int)) >= 0).all()


def test_colours_are_bright_and_neighbours_differ():
    colours = writer._colours(2000).astype(int)
    assert (colours.max(axis=1) == 255).all()
    assert len(np.unique(colours, axis=0)) > 1000
    for step in (1, 2, 3, 4):
        assert np.abs(colours[step:] - colours[:-step]).sum(axis=1).min() > 80
