"""What is opened: regular files alone, at a glance; what the system refuses is a sentence, and others go on."""

import os
import shutil
import socket
import tempfile

import numpy as np
import pytest
import tifffile
import zarr

from nucleate import cli
from nucleate.errors import ImageError
from nucleate.io import files
from nucleate.io.files import open_regular, read_bytes
from nucleate.io.label_file import read_labels
from nucleate.io.reader import open_reader, read_image

PIXELS = np.arange(1200, dtype=np.uint8).reshape(30, 40)


def made(path, kind):
    """Something at `path` that is no file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as one:
            one.bind(f"{short}/s")  # the name of a socket may not be long
            shutil.move(f"{short}/s", path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path.with_name("b"))
        path.with_name("b").symlink_to(path)
    elif kind == "of the system":
        path.symlink_to("/proc/self/mem")
    else:
        path.mkdir()


KINDS = ["pipe", "socket", "device", "circle", "of the system", "folder"]


def run(*arguments):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return end.value.code or 0


def write_zarr(path):
    group = zarr.create_group(path, zarr_format=3)
    array = group.create_array("0", shape=PIXELS.shape, chunks=(30, 40), dtype="u1")
    array[:] = PIXELS
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}]
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.zarr", "a.geojson"])
@pytest.mark.parametrize("read", [open_reader, read_image, read_labels])
def test_what_is_no_file_is_refused_at_a_glance(tmp_path, kind, name, read):
    made(tmp_path / name, kind)
    with pytest.raises(ImageError, match=rf"{name}.*: "):
        read(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["zarr.json", "0/zarr.json", "0/c/0/0"])
def test_what_is_no_file_inside_of_a_zarr_is_refused(tmp_path, kind, place):
    path = tmp_path / "a.zarr"
    write_zarr(path)
    (path / place).unlink()
    made(path / place, kind)
    with pytest.raises(ImageError, match=r"a\.zarr"):
        read_image(path)


def test_a_file_that_grows_and_a_file_of_holes(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(ImageError, match="no more than 4 are read"):
        read_bytes(path, 4)
    os.truncate(path, 2**40)
    with pytest.raises(ImageError, match="says that it has 1099511627776 bytes"):
        open_regular(path)


@pytest.fixture
def twelve(tmp_path):
    """A data set of twelve labelled images."""
    for number in range(12):
        for folder in ("images", "masks"):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            labels = np.zeros((48, 48), np.uint16)
            labels[8:20, 8:20], labels[28:40, 26:38] = 1, 2
            pixels = (labels > 0) * np.uint8(150 + number) + np.uint8(20)
            tifffile.imwrite(tmp_path / "data" / folder / f"{number:02}.tif", labels if folder == "masks" else pixels)
    return tmp_path / "data"


@pytest.fixture(params=[PermissionError(13, "Permission denied"), OSError(5, "Input/output error"), MemoryError()])
def refused(request, monkeypatch, twelve):
    """One of the twelve images is refused by the system when it is opened."""
    real = os.open

    def opened(path, *arguments, **named):
        if os.fspath(path) in {str(twelve / folder / "06.tif") for folder in ("images", "masks")}:
            raise request.param
        return real(path, *arguments, **named)

    monkeypatch.setattr(files.os, "open", opened)
    return str(request.param.strerror) if request.param.args else "does not fit in memory"


def test_predict_goes_on_where_one_image_may_not_be_read(refused, twelve, tmp_path, capsys):
    assert run("predict", "fluorescence", twelve / "images", "--out", tmp_path / "out") == cli.SOME_FAILED
    said = capsys.readouterr().err
    assert refused in said and said.count("06.tif") == 1
    assert {path.stem for path in (tmp_path / "out").glob("*.csv")} == {f"{n:02}" for n in range(12) if n != 6}


def test_check_goes_on_where_one_image_may_not_be_read(refused, twelve, capsys):
    assert run("check", twelve) in (0, 1, 2)
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert refused in said and "11" in said


def test_train_and_evaluate_name_the_image_that_may_not_be_read(refused, twelve, tmp_path, capsys):
    run("train", twelve, "--out", tmp_path / "model", "--minutes", 0.05)
    assert refused in " ".join(capsys.readouterr().err.split())
    found = shutil.copytree(twelve / "masks", tmp_path / "found")
    assert run("evaluate", found, twelve / "masks") != 0
    said = capsys.readouterr()
    assert refused in " ".join((said.err + said.out).split())
