"""Files of large images: every format, levels and pixel sizes, interruptions, full disks, what is refused."""

import csv
from importlib.util import find_spec

import numpy as np
import pytest
import tifffile
from tests.inference.test_predict import domes, write_model

from nucleate.cli import main
from nucleate.errors import InputError, OutputError
from nucleate.inference.block_store import FolderBlockStore
from nucleate.inference.image_input import Selection, open_image
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.io.formats import FORMATS
from nucleate.io.prediction_json import read_record
from nucleate.networks import store
from nucleate.types import Box

SHAPE = (300, 400)
EVERY = tuple(name for name in FORMATS if name != "parquet" or find_spec("pyarrow"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def slide(tmp_path):
    return write_slide(tmp_path / "slide.tif")


def write_slide(path, repeats=1):
    """A pyramid of two levels with 110 nuclei, or as many times so many along each axis."""
    places = [(y, x, 7 + (y + x) % 4) for y in range(15, 290, 30) for x in range(20, 390, 35)]
    pixels = np.tile(domes(places, SHAPE)[0][..., 0], (repeats, repeats))
    with tifffile.TiffWriter(path) as file:
        how = {"tile": (64, 64), "resolutionunit": "centimeter"}
        file.write(pixels, subifds=1, resolution=(1e4 / 0.5, 1e4 / 0.5), **how)
        file.write(pixels[::2, ::2], subfiletype=1, resolution=(1e4, 1e4), **how)
    return path


@pytest.fixture
def ready(folder):
    """For which small images are large ones, as its blocks are small."""
    return Predictor(store.read(folder), bfloat16=False, side=96)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "slide.json"
    }


def test_every_format_of_a_slide(ready, slide, tmp_path):
    found = predict(ready, [slide], tmp_path / "a", Request(tile=64, formats=EVERY, entropy=True))
    assert found.failed == [] and found.nuclei["slide"] == 110
    names = {path.name for path in (tmp_path / "a").iterdir()}
    tables = {"CellProfiler_Image.csv", "CellProfiler_Nuclei.csv"}
    assert names == {FORMATS[name].file("slide") for name in EVERY} | {"slide.json", "slide_entropy.tif"} | tables
    record = read_record(tmp_path / "a" / "slide.json")
    assert record.count == 110 and record.pixel_size == 0.5 and len(record.identity) == 32
    again = predict(ready, [slide], tmp_path / "b", Request(tile=100, formats=EVERY, entropy=True))
    assert again.nuclei == found.nuclei
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    bits = tifffile.imread(tmp_path / "a" / "slide_entropy.tif")
    assert bits.dtype == np.float32 and bits.shape == SHAPE and bits.min() >= 0 and bits.max() <= 1
    with (tmp_path / "a" / "slide.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = tifffile.imread(tmp_path / "a" / "slide_labels.tif")
    for row in rows:
        assert float(row["entropy"]) == pytest.approx(bits[labels == int(row["id"])].mean(), abs=1e-3)
        assert float(row["y_um"]) == pytest.approx(0.5 * float(row["y"]))


def test_a_region_and_a_level(ready, slide, tmp_path):
    predict(ready, [slide], tmp_path / "whole")
    predict(ready, [slide], tmp_path / "part", Request(Selection(region=Box(40, 50, 130, 200))))
    whole, part = (tifffile.imread(tmp_path / name / "slide_labels.tif") for name in ("whole", "part"))
    assert ((whole[40:170, 50:250] > 0) == (part > 0)).all()
    predict(ready, [slide], tmp_path / "level", Request(Selection(pixel_size=1.1)))
    record = read_record(tmp_path / "level" / "slide.json")
    assert (record.level, record.shape, record.pixel_size, record.downsample) == (1, (150, 200), 1.0, 2.0)


@pytest.mark.parametrize("at", [0, 3, 11, 25, 40])
def test_an_interrupted_run_is_resumed(ready, slide, tmp_path, monkeypatch, at):
    request = Request(tile=64, formats=("tif", "csv"), entropy=True)
    predict(ready, [slide], tmp_path / "expected", request)
    put, left = FolderBlockStore.put, [at]

    def broken(self, name, arrays):
        left[0] -= 1
        if left[0] == -1:
            raise KeyboardInterrupt
        put(self, name, arrays)

    monkeypatch.setattr(FolderBlockStore, "put", broken)
    with pytest.raises(KeyboardInterrupt):
        predict(ready, [slide], tmp_path / "out", request)
    assert (tmp_path / "out" / ".slide.work").is_dir() and len(list((tmp_path / "out").iterdir())) == 1
    with pytest.raises(OutputError, match="unfinished run of slide: continue it with --resume"):
        predict(ready, [slide], tmp_path / "out", request)
    with pytest.raises(OutputError, match="begun with another tile"):
        predict(ready, [slide], tmp_path / "out", Request(tile=65, entropy=True, resume=True))
    predict(ready, [slide], tmp_path / "out", Request(tile=64, entropy=True, resume=True))
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_a_full_disk_is_one_sentence_and_the_run_is_resumed(ready, slide, tmp_path, monkeypatch):
    request = Request(tile=64)
    predict(ready, [slide], tmp_path / "expected", request)
    replace, left = type(slide).replace, [9]

    def full(self, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(slide), "replace", full)
        with pytest.raises(OutputError, match=r"No space left on device\): free some space there.*--resume"):
            predict(ready, [slide], tmp_path / "out", request)
    assert not list((tmp_path / "out").rglob("*.part"))
    predict(ready, [slide], tmp_path / "out", Request(tile=64, resume=True))
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_an_image_that_is_gone_and_came_back_is_resumed(ready, slide, tmp_path, monkeypatch):
    predict(ready, [slide], tmp_path / "expected")
    content, put, left = slide.read_bytes(), FolderBlockStore.put, [6]

    def interrupted(self, name, arrays):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        put(self, name, arrays)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FolderBlockStore, "put", interrupted)
        predict(ready, [slide], tmp_path / "out")
    slide.unlink()
    (sentence,) = predict(ready, [slide], tmp_path / "out", Request(resume=True)).failed
    assert "does not exist" in sentence
    slide.write_bytes(content)
    predict(ready, [slide], tmp_path / "out", Request(resume=True))
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    # Another image of the same name does not.
    (tmp_path / "out" / ".slide.work").mkdir()
    (tmp_path / "out" / ".slide.work" / "begun.json").write_text('{"image": "another"}')
    with pytest.raises(OutputError, match="begun with another"):
        predict(ready, [slide], tmp_path / "out", Request(resume=True, entropy=True))


def test_what_is_finished_is_not_done_again(ready, slide, tmp_path, monkeypatch):
    predict(ready, [slide], tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(Predictor, "run", lambda *_, **options: 1 / 0)
    assert predict(ready, [slide], tmp_path / "out", Request(resume=True)).nuclei == {"slide": 110}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(ZeroDivisionError):
        predict(ready, [slide], tmp_path / "out", Request(resume=True, formats=("csv", "roi")))


@pytest.mark.parametrize(
    ("size", "chosen", "level"), [(None, 0.5, 0), (0.5, 0.5, 0), (0.7, 0.5, 0), (0.75, 1.0, 1), (1.4, 1.0, 1)]
)
def test_the_level_nearest_to_a_pixel_size(slide, size, chosen, level):
    source = open_image(slide, Selection(pixel_size=size))
    assert (source.pixel_size, source.reader.level) == (chosen, level)
    assert (source.note is not None) == (level > 0)
    source.reader.close()


def test_pixel_sizes_that_are_missing_or_absurd(slide, tmp_path):
    with pytest.raises(InputError, match=r"0\.5 \(level 0\), 1 \(level 1\) micrometres and none near 2"):
        open_image(slide, Selection(pixel_size=2.0))
    for name, options in (("missing", {}), ("absurd", {"resolution": (1e6, 1e6), "resolutionunit": "centimeter"})):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.zeros((20, 30), np.uint8), **options)
        source = open_image(tmp_path / f"{name}.tif", Selection())
        source.reader.close()
        assert source.pixel_size is None and (source.note is not None) == (name == "absurd")
        source = open_image(tmp_path / f"{name}.tif", Selection(pixel_size=0.25))
        source.reader.close()
        assert source.pixel_size == 0.25 and source.note is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--tile", "63"), "--tile is 63"),
        (("--format", "tif,png"), "There is no --format png"),
        (("--format", ","), "--format is empty"),
        (("--level", "0", "--pixel-size", "0.5"), "give one of them"),
        (("--level", "-1"), "--level is -1"),
        (("--pixel-size", "nan"), "--pixel-size is nan"),
        (("--region", "0", "0", "0", "5"), "0 0 0 5 is not"),
        (("--engine", "magic"), "There is no --engine magic"),
        (("--tta", "3"), "--tta is 3: choose from 1, 2, 4"),
        (("--views", "3"), "--tta is 3: choose from 1, 2, 4"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(folder, slide, tmp_path, capsys, options, sentence):
    with pytest.raises(SystemExit) as end:
        main(["predict", str(folder), str(slide), "--out", str(tmp_path / "out"), *options])
    found = capsys.readouterr().err
    assert end.value.code == 2 and found.startswith("nucleate: ") and found.count("\n") == 1 and sentence in found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(("--region", "290", "0", "11", "5"), "300 x 400 pixels"), (("--level", "5"), "has no level 5")],
)
def test_what_the_image_does_not_have(folder, slide, tmp_path, capsys, options, sentence):
    with pytest.raises(SystemExit) as end:
        main(["predict", str(folder), str(slide), "--out", str(tmp_path / "out"), *options])
    assert end.value.code == 2 and sentence in capsys.readouterr().err


def test_the_command_line_says_what_it_did(folder, tmp_path, capsys, monkeypatch):
    slide = write_slide(tmp_path / "slide.tif", repeats=5)  # large enough for the blocks that the command takes
    tifffile.imwrite(tmp_path / "bad.tif", np.zeros((20, 30), np.uint8))
    (tmp_path / "bad.tif").write_bytes((tmp_path / "bad.tif").read_bytes()[:300])
    out = tmp_path / "out"
    command = ["predict", str(folder), str(slide), str(tmp_path / "bad.tif"), "--out", str(out), "--format", "csv"]
    with pytest.raises(SystemExit) as end:
        main(command)
    printed = capsys.readouterr()
    assert end.value.code == 1
    assert printed.out == f"{110 * 25:,} nuclei in 1 image. Wrote {out}. Next: nucleate view {out}\n"
    assert "1 of 2 images could not be done" in printed.err and "bad.tif" in printed.err
    assert sorted(path.name for path in out.iterdir()) == ["slide.csv", "slide.json"]

    monkeypatch.setattr(FolderBlockStore, "put", interrupt)
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 130
    assert "what is done of slide is kept" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", ["--tta", "--views"])
def test_test_time_augmentation_by_its_name_and_its_old_one(folder, slide, tmp_path, option):
    for name, extra in (("one", ()), ("four", (option, "4"))):
        with pytest.raises(SystemExit) as end:
            main(["predict", str(folder), str(slide), "--out", str(tmp_path / name), *extra])
        assert end.value.code in (0, None)
    one, four = (read_record(tmp_path / name / "slide.json") for name in ("one", "four"))
    assert one.count == four.count == 110 and one.identity != four.identity


def test_the_old_name_of_test_time_augmentation_is_hidden(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    shown = capsys.readouterr().out
    assert "--tta" in shown and "--views" not in shown


@pytest.mark.parametrize(
    ("change", "other"), [({"bfloat16": True}, "number format"), ({"bfloat16": False, "tta": 2}, "test-time aug")]
)
def test_an_interrupted_run_is_not_resumed_with_another_engine_or_format(
    ready, slide, tmp_path, monkeypatch, change, other
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FolderBlockStore, "put", interrupt)
        predict(ready, [slide], tmp_path / "out")
    with pytest.raises(OutputError, match=f"begun with another {other}"):
        predict(Predictor(ready.model, side=96, **change), [slide], tmp_path / "out", Request(resume=True))


def interrupt(*_):
    raise KeyboardInterrupt
