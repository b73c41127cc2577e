"""Writing: what is written is read back, and a failure leaves everything as it was."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleate.errors import OutputError
from nucleate.io import atomic as module
from nucleate.io.atomic import atomic, atomic_folder, write_json, write_text

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

    monkeypatch.setattr(*((module.os, "fsync") if call == "fsync" else (type(file), "replace")), full)
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


LEAVE = """
import os, sys
from pathlib import Path
from nucleate.io.atomic import atomic, atomic_folder
here = Path(sys.argv[1])
with atomic(here / "file.txt") as file, atomic_folder(here / "folder", holds="x") as folder:
    file.write(b"half")
    (folder / "x").write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writing(tmp_path):
    """A process that is writing a file and a folder, and ends as soon as its standard input does."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LEAVE, tmp_path], **pipes) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path, writing):
    writing.kill()
    writing.wait()
    assert len(names(tmp_path)) == 2
    others = [".0123456789abcdef.part", "mine.nucleate.part", ".x.nucleate.part", ".0123456789abcdef.nucleate.part.txt"]
    for name in others:
        (tmp_path / name).write_text("mine")
    write_text(tmp_path / "next.txt", "next")
    assert names(tmp_path) == sorted([*others, "next.txt"])


def test_what_another_process_is_writing_is_left_to_it(tmp_path, writing):
    write_text(tmp_path / "next.txt", "next")
    assert len(names(tmp_path)) == 3
    writing.stdin.close()
    assert writing.wait() == 0
    assert names(tmp_path) == ["file.txt", "folder", "next.txt"]
    assert (tmp_path / "file.txt").read_bytes() == b"half" and names(tmp_path / "folder") == ["x"]


def test_a_folder_is_replaced_whole_and_leaves_nothing(tmp_path):
    for number in range(2):
        with atomic_folder(tmp_path / "folder", holds="x") as folder:
            (folder / "x").write_text(str(number))
            (folder / f"only-{number}").touch()
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["only-1", "x"]
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "folder", holds="x"):
        raise RuntimeError
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["only-1", "x"]
