"""Altered files of every kind: each is read, or refused in a sentence. benchmarks/fuzz.py does the same for longer."""

import dataclasses
import importlib
import os
import time
from pathlib import Path

import pytest

from nucleate.io.reader import read_image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def fuzz():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("fuzz")


@pytest.mark.parametrize(("kind", "count"), [("images", 1600), ("own files", 400)])
def test_no_altered_file_ends_in_a_traceback(fuzz, tmp_path, kind, count):
    own = tuple(sorted(fuzz.TARGETS.keys() - set(fuzz.IMAGES)))
    names = fuzz.IMAGES if kind == "images" else own
    begun, failures = time.monotonic(), {}
    for number in range(count):
        name = fuzz.case(1, number, names, tmp_path / "case")
        failure = fuzz.attempt(name, tmp_path / "case")
        if failure is not None:
            failures[name, number] = failure
    assert not failures, "\n".join(f"{name} {number}: {why}" for (name, number), why in list(failures.items())[:5])
    assert time.monotonic() - begun < 120, "some file takes far longer than the others"


def test_a_case_is_the_same_each_time_and_most_are_altered(fuzz, tmp_path):
    def written(number):
        fuzz.case(3, number, ("tiff",), tmp_path / "case")
        return next((tmp_path / "case").iterdir()).read_bytes()

    sound = {data for files in fuzz.TARGETS["tiff"].make() for data in files.values()}
    first = [written(number) for number in range(40)]
    assert first == [written(number) for number in range(40)]
    assert sum(data in sound for data in first) < 4


@pytest.mark.parametrize("name", ["tiff", "png", "jpeg", "zarr", "outlines", "record", "model", "checkpoint", "curves"])
def test_what_is_not_altered_is_read(fuzz, tmp_path, monkeypatch, name):
    monkeypatch.setattr(fuzz, "altered", lambda data, chance: data)
    for number in range(30 if name == "tiff" else 4):
        folder = tmp_path / str(number)
        fuzz.case(0, number, (name,), folder)
        assert fuzz.attempt(name, folder) is None
        if name in fuzz.IMAGES and name != "outlines":
            pixels = read_image(next(folder.iterdir())).pixels
            assert pixels.shape[:2] == (40, 40)


def test_a_hang_a_crash_and_a_traceback_are_told_apart(fuzz, tmp_path, monkeypatch):
    acts = {
        "hang": lambda folder: time.sleep(60),
        "crash": lambda folder: os._exit(3),
        "traceback": lambda folder: 1 / 0,
        "memory": lambda folder: bytearray(2**33),
        "well": lambda folder: None,
    }
    monkeypatch.setattr(fuzz, "SECONDS", 0.5)
    for kind, act in acts.items():
        begun = False

        def once(folder, act=act):
            nonlocal begun
            first, begun = not begun, True
            return None if first else act(folder)  # the first is what each process begins with

        monkeypatch.setitem(fuzz.TARGETS, "png", dataclasses.replace(fuzz.TARGETS["png"], act=once))
        found = fuzz.run(1, 0, ("png",), tmp_path / kind)
        assert found == {"png": {kind: 1}}
        assert (tmp_path / kind).exists() == (kind != "well")
