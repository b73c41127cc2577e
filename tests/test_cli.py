"""Each command as a person calls it: what it prints, what it writes, and how it refuses what cannot be used."""

import csv
import json
import re
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import imagecodecs
import numpy as np
import pytest
import tifffile

from nucleate import __version__
from nucleate.cli import main
from nucleate.data.augment import AugmentationConfig
from nucleate.data.synthetic.microscopy import write_folder
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import fit
from nucleate.training.pixel_loss import pixel_losses

COMMANDS = ("check", "convert", "train", "predict", "view", "evaluate", "info", "curves", "losses", "demo")
BRIEFLY = ("--minutes", "0.05", "--from", "scratch")
SIDE = 64


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Three labelled images and an unlabelled one."""
    folder = tmp_path_factory.mktemp("data") / "cells"
    write_folder(folder, "fluorescence", count=4, seed=0, labelled=3, height=96, width=96)
    return folder


@pytest.fixture(scope="module")
def trained(cells, tmp_path_factory):
    """A model that has seen eight crops: enough for every command, too little to be any good."""
    folder = tmp_path_factory.mktemp("models") / "model"
    fit(cells, folder, TrainingConfig(epochs=1, samples=8, batch=4, variation=AugmentationConfig(crop=64)))
    return folder


@pytest.fixture
def model(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


@pytest.fixture
def run(capsys):
    """Call the command line: exit code, standard output, standard error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        # Lines that begin with the time tell how far the work is.
        said = [line for line in printed.err.splitlines(keepends=True) if not re.match(r"\[\d+:\d\d\] ", line)]
        return end.value.code or 0, printed.out, "".join(said)

    return call


@pytest.fixture
def refused(run, tmp_path):
    """Call the command line, which must refuse with one sentence, and change nothing that was there before."""

    def call(*arguments):
        before = contents(tmp_path)
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("nucleate: ") and err.endswith(".\n") and err.count("\n") == 1, err
        after = contents(tmp_path)
        assert {path: after.get(path) for path in before} == before
        assert not [path for path in after if path.endswith(".part")]
        return err

    return call


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def full_disk(size):
    """No file may grow beyond `size` bytes: the system then refuses to write, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noise(dtype=np.uint8, side=SIDE):
    return np.random.default_rng(0).integers(0, 200, (side, side)).astype(dtype)


def nuclei(side=SIDE):
    labels = np.zeros((side, side), np.uint16)
    labels[8:24, 8:24], labels[30:50, 20:44] = 1, 2
    return labels


def with_value(value):
    image = noise(np.float32)
    image[3, 4] = value
    return image


def png(image):
    return imagecodecs.png_encode(image)


def dataset(folder, image, labels, suffix=".tif"):
    for part, pixels in (("images", image), ("masks", labels)):
        path = folder / part / f"a{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".png":
            path.write_bytes(png(pixels))
        else:
            tifffile.imwrite(path, pixels)
    return folder


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(folder):
    folder.mkdir()
    return "cells holds no image"


def mask_without_image(folder):
    tifffile.imwrite(dataset(folder, noise(), nuclei()) / "masks" / "b.tif", nuclei())
    return "b.tif has no image named b"


def sizes_that_differ(folder):
    dataset(folder, noise(side=SIDE + 1), nuclei())
    return f"a.tif is {SIDE} x {SIDE} pixels and its image {SIDE + 1} x {SIDE + 1}"


def no_mask(folder):
    shutil.rmtree(dataset(folder, noise(), nuclei()) / "masks")
    return "1 image and no mask"


def masks_without_nuclei(folder):
    dataset(folder, noise(), np.zeros_like(nuclei()))
    return "holds a nucleus"


def png_cut_off(folder):
    cut(dataset(folder, noise(), nuclei(), ".png") / "images" / "a.png")
    return "a.png"


def tiff_cut_off(folder):
    cut(dataset(folder, noise(), nuclei()) / "images" / "a.tif")
    return "a.tif"


def mask_cut_off(folder):
    cut(dataset(folder, noise(), nuclei()) / "masks" / "a.tif")
    return "masks/a.tif"


def not_a_number(folder):
    dataset(folder, with_value(np.nan), nuclei())
    return "a.tif holds 1 values that are NaN or infinite"


def infinity(folder):
    dataset(folder, with_value(np.inf), nuclei())
    return "a.tif holds 1 values that are NaN or infinite"


def stack(folder):
    dataset(folder, np.stack([noise()] * 5), nuclei())
    return "a.tif"


def constant(folder):
    dataset(folder, np.full((SIDE, SIDE), 7, np.uint8), nuclei())
    return "one value throughout"


def one_pixel(folder):
    dataset(folder, np.full((1, 1), 7, np.uint8), np.ones((1, 1), np.uint16))
    return "a.tif has the label 1 on 100% of its pixels"


UNTRAINABLE = (
    empty,
    mask_without_image,
    sizes_that_differ,
    no_mask,
    masks_without_nuclei,
    png_cut_off,
    tiff_cut_off,
    mask_cut_off,
    not_a_number,
    infinity,
    stack,
    constant,
    one_pixel,
)
UNREADABLE = (png_cut_off, tiff_cut_off, not_a_number, infinity, stack)


def test_help_imports_nothing_that_takes_time():
    heavy = ("torch", "numpy", "scipy", "skimage", "tifffile", "matplotlib", "pydantic", "rich", "safetensors")
    script = (
        "import sys\nfrom nucleate.cli import main\n"
        "try:\n    main(['--help'])\n"
        f"finally:\n    print(sorted(sys.modules.keys() & {set(heavy)!r}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)


def test_python_m_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "nucleate", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == f"nucleate {__version__}"
    assert [line.split(":")[0] for line in done.stdout.splitlines()[1:]] == ["Python", "PyTorch", "engines", "MPI"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: nucleate {command} ") and "--help" in out


def test_losses_marks_those_that_train_takes(run):
    from nucleate.losses import catalogue

    _, out, _ = run("losses")
    marks = dict(re.findall(r"^│ (\w+) +│ (yes)? +│", out, re.MULTILINE))
    assert {name for name, mark in marks.items() if mark} == set(pixel_losses())
    assert marks.keys() == {entry.name for entry in catalogue()}


def test_losses_lists_every_loss(run):
    from nucleate.losses import catalogue

    code, out, err = run("losses")
    assert (code, err) == (0, "")
    assert all(entry.name in out for entry in catalogue())


def test_curves_judges_any_history_and_a_model_and_draws_them(run, trained, tmp_path):
    rows = [f"{epoch},{1 / epoch},{1 / epoch + 0.004 * epoch}" for epoch in range(1, 60)]
    (tmp_path / "run.csv").write_text("\n".join(["epoch,train,valid", *rows]))
    code, out, err = run("curves", tmp_path / "run.csv", trained, "--plot", tmp_path / "curves.png")
    assert (code, err) == (0, "")
    assert "over-fitting began; the weights of epoch 16 are kept" in " ".join(out.split())
    assert "patience 10" in out and trained.name in out
    assert imagecodecs.png_decode((tmp_path / "curves.png").read_bytes()).ndim == 3


def test_curves_refuses_a_history_in_one_sentence(refused, tmp_path):
    (tmp_path / "run.csv").write_text("epoch,train,valid\n1,0.5,much\n")
    message = refused("curves", tmp_path / "run.csv")
    assert "run.csv, line 2: valid is 'much'; write a number." in message
    assert "gone.csv cannot be read" in refused("curves", tmp_path / "gone.csv")


def test_train_predict_evaluate_info(run, cells, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out"
    code, printed, _ = run("train", cells, "--out", model, "--loss", "cross_entropy + .5*dice", *BRIEFLY)
    assert code == 0 and "held out" in printed and f"Wrote {model}" in printed
    assert {path.name for path in model.iterdir()} == {
        "weights.safetensors",
        "replay.safetensors",
        "model.json",
        "history.jsonl",
        "curves.png",
        "README.md",
        "report.html",
        "prototypes.safetensors",
    }

    code, printed, _ = run("predict", model, cells, "--out", out, "--overlay")
    assert code == 0 and "in 4 images." in printed
    names = sorted(path.stem for path in (cells / "images").iterdir())
    endings = ("_labels.tif", ".csv", ".json", "_overlay.png")
    assert {path.name for path in out.iterdir()} == {name + ending for name in names for ending in endings}
    for name in names:
        labels = tifffile.imread(out / f"{name}_labels.tif")
        with (out / f"{name}.csv").open(newline="") as file:
            ids = [int(row["id"]) for row in csv.DictReader(file)]
        assert labels.dtype == np.uint16 and ids == sorted(set(np.unique(labels)) - {0})

    scores = tmp_path / "scores.json"
    code, printed, _ = run("evaluate", out, cells, "--json", scores)
    assert code == 0 and "panoptic quality" in printed and "…" not in printed
    assert f"left out, without true labels: 1 (the first is {names[-1]})" in printed.replace("\n", " ")
    assert [image["name"] for image in json.loads(scores.read_text())["images"]] == names[:3]

    code, printed, _ = run("info", model)
    assert code == 0 and "Nodes" in printed and "halo" in printed and " cross_entropy+0.5*dice, seed" in printed


def test_predictions_are_scored_against_masks_or_a_data_set(run, cells, trained, tmp_path):
    out = tmp_path / "out"
    run("predict", trained, cells, "--out", out, "--overlay")
    documents = []
    for true in (cells, cells / "masks"):
        code, _, err = run("evaluate", out, true, "--json", tmp_path / "scores.json")
        assert (code, err) == (0, "")
        documents.append(json.loads((tmp_path / "scores.json").read_text()))
    assert documents[0] == documents[1] and len(documents[0]["left_out"]) == 1


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x.tif", "x_masks.tif"),
        ("x_img.tif", "x_masks.tif"),
        ("x.tif", "x_cp_masks.tif"),
        ("x.ome.tif", "x_masks.ome.tif"),
        ("imagesTr/x_0000.tif", "labelsTr/x.tif"),
        ("images/x.ome.tif", "labels/x.png"),
    ],
)
def test_predictions_are_scored_in_each_layout(run, trained, tmp_path, image, mask):
    data, out, scores = tmp_path / "data", tmp_path / "out", tmp_path / "scores.json"
    for name, pixels in ((image, noise()), (mask, nuclei())):
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            path.write_bytes(png(pixels))
        else:
            tifffile.imwrite(path, pixels, metadata=None)
    assert run("predict", trained, data, "--out", out)[0] == 0
    code, _, err = run("evaluate", out, data, "--json", scores)
    assert (code, err) == (0, "")
    document = json.loads(scores.read_text())
    assert [found["name"] for found in document["images"]] == ["x"] and document["left_out"] == []


def test_check_names_what_is_odd_and_goes_on(run, tmp_path):
    not_a_number(tmp_path / "cells")
    tifffile.imwrite(tmp_path / "cells" / "images" / "b.tif", noise())
    code, out, err = run("check", tmp_path / "cells")
    assert (code, err) == (0, "") and "NaN" in out and "1: 0 labelled, 1 unlabelled" in out


@pytest.fixture
def classes(tmp_path):
    """Two images whose masks tell nucleus from background only."""
    folder = tmp_path / "classes"
    for name in "ab":
        for part, pixels in (("images", noise()), ("masks", (nuclei() > 0).astype(np.uint8) * 255)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"{name}.tif", pixels)
    return folder


def test_every_command_finds_the_same_in_masks(run, refused, cells, classes, tmp_path):
    code, out, _ = run("check", classes)
    assert code == 0 and "single value 255" in out.replace("\n", " ") and "--masks" in out
    found = tmp_path / "found"
    shutil.copytree(classes / "masks", found)
    for arguments in (
        ("train", classes, "--out", tmp_path / "model"),
        ("train", cells, "--validation", classes, "--out", tmp_path / "model"),
        ("evaluate", found, classes),
    ):
        assert "has the single value 255 in" in refused(*arguments)
    assert run("evaluate", found, classes, "--masks", "binary")[0] == 0
    _, out, _ = run("check", classes, "--masks", "binary")
    assert "single value" not in out and "nuclei" in out
    assert "choose one of auto, labels, binary, colours" in refused("check", classes, "--masks", "yes")


def test_convert_and_pictures_say_what_they_wrote(run, refused, cells, classes, tmp_path):
    code, out, err = run("convert", cells, "--out", tmp_path / "coco", "--to", "coco")
    assert code == 0 and "Wrote 4 images" in out and (tmp_path / "coco" / "annotations.json").exists()
    code, out, err = run("convert", tmp_path / "coco", "--out", tmp_path / "back", "--masks", "labels")
    assert code == 0 and "Next: nucleate check" in out
    assert "is there already" in refused("convert", cells, "--out", tmp_path / "coco")
    assert "choose one of nucleate, cellpose" in refused("convert", cells, "--out", tmp_path / "x", "--to", "voc")
    code, out, err = run("convert", classes, "--out", tmp_path / "pieces", "--masks", "binary")
    assert code == 0 and "two that touch are one" in err
    code, out, err = run("check", tmp_path / "coco", "--pictures", tmp_path / "seen")
    assert code == 0 and "masks as COCO" in out.replace("\n", " ")
    assert out.count("Wrote") == len(list((tmp_path / "seen").iterdir())) == 3


def test_a_model_without_a_score_says_so_and_is_not_offered_for_prediction(run, tmp_path):
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[20:40, 20:40] = 1
    for name, pixels in (("a.tif", noise()), ("a_labels.tif", labels)):
        (tmp_path / "cells").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "cells" / name, pixels)
    model = tmp_path / "model"
    code, out, _ = run("train", tmp_path / "cells", "--out", model, *BRIEFLY)
    assert code == 0 and "no score" in out and "quality" not in out and "nucleate predict" not in out
    code, out, _ = run("info", model)
    assert code == 0 and "no score" in out and "quality" not in out


def test_images_that_cannot_be_read_are_counted(run, refused, trained, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    tifffile.imwrite(data / "a.tif", noise())
    for name in ("b.vsi", "c.VSI", "d.bmp"):
        (data / name).write_bytes(b"x")
    code, out, err = run("predict", trained, data, "--out", tmp_path / "out")
    assert code == 0 and "in 1 image." in out and "2 VSI" in err and "1 BMP" in err and "Fiji" in err
    _, out, _ = run("check", data)
    assert "2 VSI" in out and "Nothing odd" not in out
    (data / "a.tif").unlink()
    assert "2 VSI" in refused("predict", trained, data, "--out", tmp_path / "other")


def test_a_second_run_into_the_folder_of_the_images_takes_no_result_for_an_image(run, trained, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    tifffile.imwrite(data / "a.tif", noise())
    for _ in range(2):
        code, out, _ = run("predict", trained, data, "--out", data, "--overlay", "--entropy")
        assert code == 0 and "in 1 image." in out
    assert run("check", data)[1].count("a.tif") <= 1


@pytest.mark.parametrize("make", [empty, mask_without_image])
def test_check_refuses_what_is_no_data_set(refused, tmp_path, make):
    sentence = make(tmp_path / "cells")
    assert sentence in refused("check", tmp_path / "cells")


@pytest.mark.parametrize("make", UNTRAINABLE)
def test_train_refuses(refused, tmp_path, make):
    sentence = make(tmp_path / "cells")
    assert sentence in refused("train", tmp_path / "cells", "--out", tmp_path / "out", *BRIEFLY)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("make", UNREADABLE)
def test_one_bad_image_of_several_is_named_and_the_others_are_done(run, trained, tmp_path, make):
    sentence = make(tmp_path / "cells")
    tifffile.imwrite(tmp_path / "cells" / "images" / "b.tif", noise())
    code, out, err = run("predict", trained, tmp_path / "cells", "--out", tmp_path / "out")
    assert code == 1 and "in 1 image." in out
    heading, named = err.strip().splitlines()[-2:]  # before them stands whether nuclei were found, which is by chance
    assert heading == "nucleate: 1 of 2 images could not be done:" and sentence in named
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b_labels.tif", "b.csv", "b.json"}


@pytest.mark.parametrize("make", UNREADABLE)
def test_the_only_image_is_bad(run, trained, tmp_path, make):
    sentence = make(tmp_path / "cells")
    code, _, err = run("predict", trained, tmp_path / "cells", "--out", tmp_path / "out")
    assert code == 2 and sentence in err and "Traceback" not in err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("side", [1, SIDE])
def test_a_constant_image_holds_no_nucleus(run, trained, tmp_path, side):
    tifffile.imwrite(tmp_path / "flat.tif", np.full((side, side), 7, np.uint8))
    code, out, err = run("predict", trained, tmp_path / "flat.tif", "--out", tmp_path / "out", "--overlay")
    assert code == 0 and out.startswith("0 nuclei in 1 image.")
    assert err == "nucleate: flat: no nucleus was found. Every pixel has the same value: export the image again.\n"
    labels = tifffile.imread(tmp_path / "out" / "flat_labels.tif")
    assert labels.shape == (side, side) and not labels.any()
    assert len((tmp_path / "out" / "flat.csv").read_text().splitlines()) == 1


def test_predict_refuses_what_is_not_there(refused, cells, trained, tmp_path):
    (tmp_path / "none").mkdir()
    out = ("--out", tmp_path / "out")
    assert "none holds no image" in refused("predict", trained, tmp_path / "none", *out)
    assert "gone.png does not exist" in refused("predict", trained, tmp_path / "gone.png", *out)
    assert "There is no model" in refused("predict", tmp_path / "gone", cells, *out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
@pytest.mark.parametrize("harm", ["missing", "cut", "altered", "empty"])
def test_a_harmed_model_is_refused(refused, cells, model, tmp_path, name, harm):
    path = model / name
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        cut(path)
    elif harm == "altered":
        path.write_bytes(content.replace(b'"low":', b'"law":', 1) if name == "model.json" else content[:-1] + b"\0")
    else:
        path.write_bytes(b"")
    assert harm in ("missing", "empty") or path.read_bytes() != content
    for command in (("predict", model, cells, "--out", tmp_path / "out"), ("info", model)):
        assert f"model/{name}" in refused(*command)
    assert not (tmp_path / "out").exists()


def test_info_refuses_a_history_that_is_missing_or_cut(refused, model):
    cut(model / "history.jsonl")
    assert "history.jsonl is cut or altered" in refused("info", model)
    for altered, words in (("", "does not hold"), ("{}\n", "is cut or altered"), ("[1]\n", "is cut or altered")):
        (model / "history.jsonl").write_text(altered)
        assert f"history.jsonl {words}" in refused("info", model)
    (model / "history.jsonl").unlink()
    assert "history.jsonl is missing" in refused("info", model)


@pytest.mark.parametrize("scores", [3, {}, {"panoptic_quality": 1, "aji": 1, "thresholds": [{}]}])
def test_info_refuses_scores_that_were_altered(refused, model, scores):
    document = json.loads((model / "model.json").read_text())
    document["scores"]["validation"] = scores
    (model / "model.json").write_text(json.dumps(document))
    assert "model.json is cut or altered at scores.validation" in refused("info", model)


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
def test_export_says_what_it_wrote_and_how_it_is_used(run, trained, tmp_path, name):
    out = tmp_path / name
    code, printed, _ = run("export", trained, "--to", "onnx" if name.endswith("onnx") else "openvino", "--out", out)
    assert code == 0 and out.is_file()
    assert f"Wrote {out}" in printed and f'"{out}")' in printed and "how to normalise" in printed


def test_export_of_what_needs_no_more(run, refused, trained, tmp_path):
    code, printed, _ = run("export", trained, "--to", "torchscript", "--out", tmp_path / "m.pt")
    assert code == 0 and "Its labels of a drawn image and those of nucleate predict are the same." in printed
    assert f'torch.jit.load("{tmp_path / "m.pt"}")' in printed
    package = ("export", trained, "--to", "bioimageio", "--out", tmp_path / "m.zip")
    code, printed, _ = run(*package, "--author", "Ada", "--author", "Jan", "--licence", "MIT", "--cite", "10.1/x")
    assert code == 0 and "bioimageio test" in printed and (tmp_path / "m.zip").is_file()
    assert run(*package)[0] == 0, "what it wrote itself it may replace"
    assert "--cite is 'x'" in refused(*package, "--cite", "x")
    (tmp_path / "m.pt").write_text("mine")
    assert "m.pt is there already" in refused("export", trained, "--to", "torchscript", "--out", tmp_path / "m.pt")


def test_export_refuses(refused, trained, tmp_path):
    assert "There is no format torch" in refused("export", trained, "--to", "torch", "--out", tmp_path / "m.onnx")
    assert "give --out m.xml" in refused("export", trained, "--to", "openvino", "--out", tmp_path / "m.onnx")
    assert "There is no model" in refused("export", tmp_path / "gone", "--to", "onnx", "--out", tmp_path / "m.onnx")
    (tmp_path / "file").write_text("kept")
    for to, name in (("onnx", "m.onnx"), ("openvino", "m.xml")):
        assert "cannot be written" in refused("export", trained, "--to", to, "--out", tmp_path / "file" / name)
        with full_disk(1000):
            assert "free some space" in refused("export", trained, "--to", to, "--out", tmp_path / name)
        assert not (tmp_path / name).exists()


def test_an_output_in_the_way_is_refused(refused, cells, trained, tmp_path):
    (tmp_path / "file").write_text("kept")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert str(place) in refused("train", cells, "--out", place, *BRIEFLY)
        assert str(place) in refused("predict", trained, cells, "--out", place)
        assert str(place) in refused("demo", "--out", place)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    assert "out is not an empty folder" in refused("demo", "--out", tmp_path / "out")
    assert "file/scores.json" in evaluated(refused, tmp_path, tmp_path / "file" / "scores.json")
    assert "out cannot be written" in evaluated(refused, tmp_path, tmp_path / "out")


def evaluated(refused, folder, scores):
    for name in ("labels", "true"):
        tifffile.imwrite(folder / f"{name}.tif", nuclei())
    return refused("evaluate", folder / "labels.tif", folder / "true.tif", "--json", scores)


def test_no_command_replaces_a_file_of_a_person(refused, run, cells, trained, tmp_path):
    tifffile.imwrite(tmp_path / "labels.tif", nuclei())
    (tmp_path / "run.csv").write_text("\n".join(["epoch,train,valid", *(f"{n},{1 / n},{1 / n}" for n in range(1, 30))]))
    commands = {
        "scores.json": ("evaluate", tmp_path / "labels.tif", tmp_path / "labels.tif", "--json"),
        "curves.png": ("curves", tmp_path / "run.csv", "--plot"),
        "model.onnx": ("export", trained, "--to", "onnx", "--out"),
        "model.xml": ("export", trained, "--to", "openvino", "--out"),
    }
    for name, command in commands.items():
        path = tmp_path / name
        path.write_text("mine")
        assert f"{name} is there already and nucleate did not write it" in refused(*command, path)
        assert run(*command, path, "--overwrite")[0] == 0 and path.read_bytes() != b"mine"
        assert run(*command, path)[0] == 0, "what it wrote itself it may replace"
    (tmp_path / "model.xml").unlink()
    assert "model.bin is there already" in refused(*commands["model.xml"], tmp_path / "model.xml")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("mine")
    sentence = refused("train", cells, "--out", tmp_path / "out", *BRIEFLY)
    assert "README.md is there already and belongs to no model" in sentence


def test_a_folder_does_not_hide_a_model_of_the_package(run, cells, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fluorescence").mkdir()
    code, out, err = run("info", "fluorescence")
    assert (code, err) == (0, "")
    shutil.rmtree(tmp_path / "fluorescence")
    shutil.copytree(trained, tmp_path / "fluorescence")
    code, mine, err = run("info", "fluorescence")
    assert code == 0 and mine != out and "the model in ./fluorescence is used" in err
    assert run("info", "./fluorescence") == (0, mine, "")


def test_a_finished_model_is_not_overwritten(refused, cells, model):
    assert "already holds a finished model" in refused("train", cells, "--out", model, *BRIEFLY)


def test_a_full_disk_leaves_what_was_there(refused, run, cells, trained, tmp_path):
    out = tmp_path / "out"
    assert run("predict", trained, cells, "--out", out)[0] == 0
    with full_disk(50):
        assert "_labels.tif cannot be written" in refused("predict", trained, cells, "--out", out, "--min-size", "40")
    with full_disk(10_000):
        assert "training.safetensors cannot be written" in refused(
            "train", cells, "--out", tmp_path / "model", *BRIEFLY
        )
    assert list((tmp_path / "model").iterdir()) == []


def test_an_unknown_loss_is_refused_with_the_choices(refused, cells, tmp_path):
    sentence = refused("train", cells, "--out", tmp_path / "out", "--loss", "nonsense")
    assert "nonsense" in sentence and all(name in sentence for name in pixel_losses())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--minutes", value) for value in ("inf", "1e308")),
        *(("--seed", value) for value in ("12345678901234567890123", "9" * 4000)),
        *(("--epochs", value) for value in ("1000001", "9" * 4000)),
    ],
)
def test_a_number_out_of_all_bounds_is_refused_before_anything_is_done(refused, cells, tmp_path, option, value):
    sentence = refused("train", cells, "--out", tmp_path / "out", option, value)
    assert sentence.startswith(f"nucleate: {option} is ") and len(sentence) < 120
    if option == "--seed":
        assert f"{option} is" in refused("demo", "--out", tmp_path / "out", option, value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--level", "9" * 30), "level"),
        (("--region", "0", "0", "9" * 30, "9" * 30), "region"),
        (("--region", "9" * 30, "0", "1", "1"), "region"),
        (("--pixel-size", "inf"), "--pixel-size is inf"),
        (("--pixel-size", "nan"), "--pixel-size is nan"),
        (("--tile", "9" * 30), "--tile is 9"),
        (("--tta", "9" * 30), "tta"),
    ],
)
def test_numbers_out_of_all_bounds_are_refused_by_predict(run, cells, trained, tmp_path, arguments, words):
    code, out, err = run("predict", trained, cells, "--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "") and words in err and "Traceback" not in err


def test_resume_without_a_run_is_refused(refused, cells, tmp_path):
    assert "train without --resume" in refused("train", cells, "--out", tmp_path / "out", "--resume", *BRIEFLY)


def test_evaluate_refuses_what_does_not_fit(refused, tmp_path):
    predicted, true = tmp_path / "predicted", tmp_path / "true"
    for folder, names in ((predicted, "a"), (true, "ab")):
        folder.mkdir()
        for name in names:
            tifffile.imwrite(folder / f"{name}.tif", nuclei())
    assert "true/b.tif has no predicted partner" in refused("evaluate", predicted, true)
    (true / "b.tif").unlink()
    cut(predicted / "a.tif")
    assert "predicted/a.tif" in refused("evaluate", predicted, true)
    tifffile.imwrite(predicted / "a.tif", nuclei(SIDE + 1))
    assert f"{SIDE + 1} x {SIDE + 1} pixels" in refused("evaluate", predicted, true)
    (predicted / "a.tif").unlink()
    assert "predicted holds no label image" in refused("evaluate", predicted, true)
    assert "gone does not exist" in refused("evaluate", tmp_path / "gone", true)


def test_an_interrupted_command_says_so(run, cells, monkeypatch):
    def interrupt(folder, masks, validation, stacks):
        raise KeyboardInterrupt

    monkeypatch.setattr("nucleate.data.inspect.inspect", interrupt)
    assert run("check", cells) == (130, "", "nucleate: interrupted.\n")


@pytest.mark.parametrize(
    "arguments", [("train",), ("predict", "model"), ("train", "x", "--out", "y", "--epochs", "0"), ("nonsense",)]
)
def test_a_call_that_lacks_something_is_explained(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: nucleate") and "\nError: " in err
