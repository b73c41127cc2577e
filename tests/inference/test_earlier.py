"""What lies in the folder of results: a person's files are never replaced, results of other runs are checked before
they are believed."""

import json
import os
import shutil
from contextlib import closing
from importlib.util import find_spec

import numpy as np
import pytest
import tifffile
from tests.inference.test_predict import PLACES, domes, write_model
from tests.inference.test_sources import write_series

from nucleate.cli import main
from nucleate.errors import OutputError
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.inference.resume import begin_writing, work_folder
from nucleate.inference.summary import Segmented, Skipped
from nucleate.io.formats import FORMATS
from nucleate.io.label_file import read_labels
from nucleate.io.prediction_json import read_record
from nucleate.networks import store
from nucleate.web.gallery import Gallery

EVERY = tuple(name for name in FORMATS if name != "parquet" or find_spec("pyarrow"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(store.read(model), bfloat16=False)


@pytest.fixture
def folder(tmp_path):
    """A folder of one image, x.tif, with four nuclei."""
    (tmp_path / "cells").mkdir()
    write(tmp_path / "cells" / "x.tif")
    return tmp_path / "cells"


def write(path, count=4):
    path.parent.mkdir(exist_ok=True, parents=True)
    tifffile.imwrite(path, domes(PLACES[:count])[0][..., 0])


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def shown(folder):
    """What the page tells of each image of a folder of results."""
    found = []
    with closing(Gallery(folder)) as gallery:
        for number in range(len(gallery.names)):
            with gallery.image(number) as image:
                found.append(image.about())
    return found


@pytest.fixture
def refused(model, capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["predict", str(model), *map(str, arguments)])
        printed = capsys.readouterr()
        assert end.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1
        return printed.err

    return call


@pytest.mark.parametrize(
    "name", [*(FORMATS[one].file("x") for one in EVERY), "x.json", "x_entropy.tif", "x_overlay.png"]
)
def test_a_file_of_a_person_is_not_replaced(refused, model, folder, name):
    (folder / name).write_text("mine")
    every = (folder / "x.tif", "--out", folder, "--format", ",".join(EVERY), "--entropy", "--overlay")
    before = contents(folder)
    sentence = refused(*every)
    assert f"{name} is there already and is no result of nucleate predict" in sentence and "--overwrite" in sentence
    assert contents(folder) == before
    assert name in refused(*every, "--resume")
    assert contents(folder) == before


def test_it_is_replaced_where_that_is_said(model, folder, capsys):
    (folder / "x_labels.tif").write_text("mine")
    with pytest.raises(SystemExit) as end:
        main(["predict", str(model), str(folder / "x.tif"), "--out", str(folder), "--overwrite"])
    assert not end.value.code and read_labels(folder / "x_labels.tif").max() == 4


def test_an_image_is_never_replaced(refused, folder):
    write(folder / "x_labels.tif")
    os.link(folder / "x.tif", folder / "x.csv")
    (folder / "y_labels.tif").symlink_to(folder / "x.tif")
    write(folder / "y.tif")
    before = contents(folder)
    for more in ((), ("--overwrite",)):
        sentence = refused(folder / "x.tif", folder / "x_labels.tif", "--out", folder, *more)
        assert "x_labels.tif is one of the images" in sentence
        assert "x.csv is one of the images" in refused(folder / "x.tif", "--out", folder, *more, "--format", "csv")
        assert "y_labels.tif is one" in refused(folder / "y.tif", folder / "x.tif", "--out", folder, *more)
    assert contents(folder) == before


def test_results_of_an_earlier_run_are_replaced(predictor, folder):
    for smallest in (0, 200):
        done = predict(Predictor(predictor.model, min_area=smallest), [folder / "x.tif"], folder, Request())
        assert done.notes == []
    assert read_record(folder / "x.json").count == 2


def test_labels_that_a_person_corrected_are_not_lost(predictor, folder):
    predict(predictor, [folder / "x.tif"], folder)
    corrected = np.zeros((64, 80), np.uint16)
    tifffile.imwrite(folder / "x_labels.tif", corrected)
    with pytest.raises(OutputError, match=r"x_labels\.tif was changed since nucleate predict wrote it"):
        predict(predictor, [folder / "x.tif"], folder)
    (note,) = predict(predictor, [folder / "x.tif"], folder, Request(resume=True)).notes
    assert "x_labels.tif.bak" in note
    assert not tifffile.imread(folder / "x_labels.tif.bak").any() and read_labels(folder / "x_labels.tif").max() == 4


def test_results_of_another_image_are_not_replaced(refused, predictor, tmp_path):
    for plate, count in (("plate1", 1), ("plate2", 2)):
        write(tmp_path / plate / "A01.tif", count)
    predict(predictor, [tmp_path / "plate1" / "A01.tif"], tmp_path / "out")
    sentence = refused(tmp_path / "plate2" / "A01.tif", "--out", tmp_path / "out")
    assert "A01.json belongs to the results of another image" in sentence and "plate1" in sentence
    (tmp_path / "plate1" / "A01.tif").unlink()
    assert predict(predictor, [tmp_path / "plate2" / "A01.tif"], tmp_path / "out").nuclei == {"A01": 2}


@pytest.mark.parametrize("name", [*EVERY, "entropy", "overlay"])
@pytest.mark.parametrize("harm", ["empty", "cut", "altered", "missing"])
def test_resume_does_again_what_is_not_as_it_was_written(predictor, folder, name, harm):
    request = Request(formats=EVERY, entropy=True, overlay=True)
    predict(predictor, [folder / "x.tif"], folder, request)
    expected = contents(folder)
    again = Request(formats=EVERY, entropy=True, overlay=True, resume=True)
    assert isinstance(predict(predictor, [folder / "x.tif"], folder, again).results["x"], Skipped)
    path = folder / request.files("x")[name]
    if path.is_dir():
        path = next(one for one in sorted(path.rglob("*")) if one.is_file() and one.stat().st_size > 100)
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[:-1], "altered": content[:-1] + b"\x01"}[harm])
    assert isinstance(predict(predictor, [folder / "x.tif"], folder, again).results["x"], Segmented)
    found = contents(folder)
    assert {path: found[path] for path in expected} == expected
    assert all(".bak" in path for path in found.keys() - expected.keys())


@pytest.mark.parametrize("at", [0, 300_000, -1])
def test_a_change_anywhere_in_an_image_is_noticed(predictor, folder, at):
    pixels = np.tile(domes(PLACES)[0][..., 0], (10, 10))
    tifffile.imwrite(folder / "x.tif", pixels, compression=None)
    ready, again = Predictor(predictor.model, bfloat16=False, side=96), Request(formats=("csv",), resume=True)
    predict(ready, [folder / "x.tif"], folder, again)
    assert isinstance(predict(ready, [folder / "x.tif"], folder, again).results["x"], Skipped)
    changed = pixels.copy()
    changed.reshape(-1)[at] ^= 1
    about = (folder / "x.tif").stat()
    tifffile.imwrite(folder / "x.tif", changed, compression=None)
    os.utime(folder / "x.tif", ns=(about.st_atime_ns, about.st_mtime_ns))
    assert isinstance(predict(ready, [folder / "x.tif"], folder, again).results["x"], Segmented)


def test_a_change_of_a_chunk_of_a_zarr_is_noticed(predictor, tmp_path, zarr_image):
    path = zarr_image(tmp_path / "x.zarr", domes(PLACES)[0][..., 0])
    again = Request(resume=True)
    predict(predictor, [path], tmp_path / "out", again)
    assert isinstance(predict(predictor, [path], tmp_path / "out", again).results["x"], Skipped)
    zarr_image(path, domes(PLACES[:2])[0][..., 0])
    assert predict(predictor, [path], tmp_path / "out", again).nuclei == {"x": 2}


@pytest.fixture
def zarr_image():
    def make(path, pixels):
        import zarr

        shutil.rmtree(path, ignore_errors=True)
        group = zarr.create_group(path, zarr_format=2)
        group.create_array("0", shape=pixels.shape, dtype=pixels.dtype, chunks=(32, 32), compressors=None)[:] = pixels
        scale = [{"type": "scale", "scale": [1.0, 1.0]}]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        axes = [{"name": axis, "type": "space"} for axis in "yx"]
        group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets, "version": "0.4"}]
        return path

    return make


def test_a_run_that_was_killed_while_it_wrote_is_repeated(predictor, folder):
    predict(predictor, [folder / "x.tif"], folder)
    expected = contents(folder)
    (folder / "x.json").unlink()
    begin_writing(folder, "x")
    for request in (Request(resume=True), Request()):
        predict(predictor, [folder / "x.tif"], folder, request)
        assert contents(folder) == expected and not work_folder(folder, "x").exists()


def test_files_of_other_formats_stay_as_long_as_they_show_the_same_nuclei(predictor, folder):
    predict(predictor, [folder / "x.tif"], folder, Request(formats=("tif", "csv"), overlay=True))
    predict(predictor, [folder / "x.tif"], folder, Request(formats=("roi",)))
    assert read_record(folder / "x.json").files.keys() == {"tif", "csv", "overlay", "roi"}
    assert shown(folder)[0]["outlines"]
    other = Predictor(predictor.model, min_area=200, bfloat16=False)
    (note,) = predict(other, [folder / "x.tif"], folder, Request(formats=("csv",))).notes
    assert note.startswith("3 files, x_rois.zip among them, were of an earlier run")
    assert {path.name for path in folder.iterdir()} == {"x.tif", "x.csv", "x.json"}
    assert read_record(folder / "x.json").files == {"csv": "x.csv"}


def test_results_move_with_their_images(predictor, folder, tmp_path):
    predict(predictor, [folder / "x.tif"], folder / "found")
    elsewhere = tmp_path / "another disk"
    shutil.move(folder, elsewhere)
    assert read_record(elsewhere / "found" / "x.json").locate(elsewhere / "found").resolve() == elsewhere / "x.tif"
    assert shown(elsewhere / "found")[0]["outlines"]
    assert isinstance(
        predict(predictor, [elsewhere / "x.tif"], elsewhere / "found", Request(resume=True)).results["x"], Skipped
    )
    shutil.move(elsewhere / "found", tmp_path / "alone")
    shutil.copytree(elsewhere, folder)
    assert shown(tmp_path / "alone")[0]["height"] == 64


def test_plates_and_endings_keep_their_results_apart(predictor, tmp_path):
    for place, count in (("p1/A01.tif", 1), ("p2/A01.tif", 2), ("p2/A01.png.tif", 3)):
        write(tmp_path / place, count)
    shutil.copy(tmp_path / "p2" / "A01.png.tif", tmp_path / "p2" / "A01.tiff")
    images = [path for path in sorted(tmp_path.rglob("*.tif*")) if path.is_file()]
    done = predict(predictor, images, tmp_path / "out")
    assert done.nuclei == {"p1/A01": 1, "p2/A01.png": 3, "p2/A01.tif": 2, "p2/A01.tiff": 3}
    for name, count in done.nuclei.items():
        assert read_labels(tmp_path / "out" / f"{name}_labels.tif").max() == count
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text())["count"] == count
    assert [one["count"] for one in shown(tmp_path / "out")] == [1, 3, 2, 3]


def test_every_image_of_a_file_is_segmented(predictor, tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.ome.tif", ome=True) as file:
        for number in (1, 2, 3):
            file.write(domes(PLACES[:number])[0][..., 0], metadata={"axes": "YX"})
    done = predict(predictor, [tmp_path / "x.ome.tif"], tmp_path / "out")
    assert done.nuclei == {"x_s1": 1, "x_s2": 2, "x_s3": 3} and "holds 3 images" in done.notes[0]
    assert read_record(tmp_path / "out" / "x_s2.json").series == 2
    assert [one["count"] for one in shown(tmp_path / "out")] == [1, 2, 3]
    again = predict(predictor, [tmp_path / "x.ome.tif"], tmp_path / "out", Request(resume=True))
    assert all(isinstance(one, Skipped) for one in again.results.values()) and again.nuclei == done.nuclei


def test_a_name_that_is_too_long_is_said_and_the_others_are_done(predictor, tmp_path):
    for name in ("n" * 248, "o" * 240, "p"):
        write(tmp_path / f"{name}.tif")
    done = predict(predictor, sorted(tmp_path.glob("*.tif")), tmp_path / "out")
    assert done.nuclei == {"o" * 240: 4, "p": 4}
    (sentence,) = done.failed
    assert "has so long a name" in sentence and "259 bytes" in sentence


@pytest.mark.parametrize("name", ["a:b", "a\\b", "line\nbreak", "red\x1b[31m", "'quoted' \"name\" & <b>", "-dash"])
def test_unusual_names_are_right_and_never_steer_the_terminal(model, tmp_path, capsys, name):
    write(tmp_path / "in" / f"{name}.tif")
    (tmp_path / "in" / f"{name} broken.tif").write_bytes(b"II*\0")
    with pytest.raises(SystemExit) as end:
        main(["predict", str(model), str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    said = [line for line in printed.err.splitlines() if not line.startswith("[")]  # those tell how far the work is
    assert end.value.code == 1 and "\x1b" not in printed.out + printed.err and len(said) == 2
    assert read_record(tmp_path / "out" / f"{name}.json").files["tif"] == f"{name}_labels.tif"
    assert shown(tmp_path / "out")[0]["outlines"]


def test_series_are_images_of_their_own_where_none_is_chosen(tmp_path, capsys):
    write_series(tmp_path / "x.ome.tif", 2)
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path)])
    said = capsys.readouterr().out
    assert "x_s1" in said and "x_s2" in said
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path), "--scene", "pos1"])
    said = capsys.readouterr().out
    assert "x_s1" not in said and "x_s2" in said
