"""Which channel is segmented, what is measured in the others, and what is said: from the command line to the files."""

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucleate.cli import main
from nucleate.data.synthetic import fluorescence
from nucleate.io.label_file import read_labels


def drawn(seed=0):
    image, labels = fluorescence(seed=seed, height=120, width=140)
    return image.pixels[..., 0], labels


NUCLEI, TRUTH = drawn()
OTHER = np.roll(NUCLEI, 30, axis=1) // 2
NOISE = np.random.default_rng(0).normal(20, 6, NUCLEI.shape).clip(0, 255).astype(np.uint8)
OME = {"photometric": "minisblack", "ome": True}

FORMS = {
    "grey.png": lambda path: Image.fromarray(NUCLEI).save(path),
    "named.ome.tif": lambda path: tifffile.imwrite(
        path,
        np.stack([OTHER, NOISE, NUCLEI]),
        metadata={"axes": "CYX", "Channel": {"Name": ["GFP", "RFP", "Hoechst 33342"]}},
        **OME,
    ),
    "labels.tif": lambda path: tifffile.imwrite(
        path,
        np.stack([NUCLEI, OTHER]),
        imagej=True,
        metadata={"axes": "CYX", "Labels": ["DAPI - c:1/2", "GFP - c:2/2"]},
    ),
    "unnamed.tif": lambda path: tifffile.imwrite(
        path, np.stack([OTHER, NUCLEI]), imagej=True, metadata={"axes": "CYX", "mode": "composite"}
    ),
    "composite.png": lambda path: Image.fromarray(np.stack([NOISE, OTHER, NUCLEI], 2)).save(path),
    "tinted.png": lambda path: Image.fromarray(np.stack([0 * NUCLEI, 0 * NUCLEI, NUCLEI], 2)).save(path),
    "grey_as_colour.png": lambda path: Image.fromarray(np.stack([NUCLEI] * 3, 2)).save(path),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The labels of the nuclei alone."""
    folder = tmp_path_factory.mktemp("grey")
    FORMS["grey.png"](folder / "grey.png")
    return found(folder / "grey.png", folder / "out")[0]


def found(image, out, *options):
    """The labels, the table and the record that `predict` writes of one image."""
    predict(image, out, *options)
    (labels,), (table,), (record,) = (out.glob(end) for end in ("*_labels.tif", "*.csv", "*.json"))
    return read_labels(labels), list(csv.DictReader(table.read_text().splitlines())), json.loads(record.read_text())


def predict(image, out, *options, model="fluorescence"):
    main_of("predict", model, str(image), "--out", str(out), "--engine", "torch", *options)


def main_of(*arguments):
    """Run the command; its exit code must be 0."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code in (0, None)


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "options", "columns", "note"),
    [
        ("named.ome.tif", [], ["GFP", "RFP", "Hoechst_33342"], "Hoechst 33342 of GFP, RFP, Hoechst 33342 is taken"),
        ("named.ome.tif", ["--channel", "3"], ["GFP", "RFP", "Hoechst_33342"], ""),
        ("labels.tif", [], ["DAPI", "GFP"], "is taken"),
        ("labels.tif", ["--channel", "dapi"], ["DAPI", "GFP"], ""),
        ("unnamed.tif", ["--channel", "2"], ["channel_1", "channel_2"], ""),
        ("composite.png", ["--channel", "blue"], ["red", "green", "blue"], ""),
        ("tinted.png", [], ["red", "green", "blue"], "only blue shows something"),
        ("grey_as_colour.png", [], [], ""),
    ],
)
def test_the_nuclei_are_those_of_their_channel(tmp_path, expected, capsys, form, options, columns, note):
    FORMS[form](tmp_path / form)
    labels, table, record = found(tmp_path / form, tmp_path / "out", *options)
    np.testing.assert_array_equal(labels, expected)
    assert [name for name in table[0] if name.startswith("mean_intensity_")] == [f"mean_intensity_{c}" for c in columns]
    assert note in " ".join(record["notes"]) and note in capsys.readouterr().err
    others = [one for one in record["notes"] if "looks unlike" not in one]  # as drawn images may
    assert bool(note) == bool(others)


def test_intensities_are_those_of_each_channel(tmp_path):
    FORMS["composite.png"](tmp_path / "composite.png")
    labels, table, _ = found(tmp_path / "composite.png", tmp_path / "out", "--channel", "blue")
    for row in table:
        nucleus = labels == int(row["id"])
        for column, pixels in (("red", NOISE), ("green", OTHER), ("blue", NUCLEI)):
            assert float(row[f"mean_intensity_{column}"]) == pytest.approx(pixels[nucleus].mean(), abs=1e-3)
        assert row["mean_intensity"] == row["mean_intensity_blue"]


@pytest.mark.parametrize(
    ("form", "options", "sentence"),
    [
        ("composite.png", [], "composite.png is a colour image whose red, green and blue show different things"),
        ("unnamed.tif", [], "unnamed.tif has 2 channels without names"),
        ("named.ome.tif", ["--channel", "CY5"], "has no channel 'CY5': choose one of GFP (1), RFP (2), Hoechst"),
    ],
)
def test_what_leaves_a_choice_is_asked(tmp_path, capsys, form, options, sentence):
    FORMS[form](tmp_path / form)
    out = tmp_path / "out"
    assert sentence in refused(capsys, "predict", "fluorescence", str(tmp_path / form), "--out", str(out), *options)
    assert not list(out.glob("*"))


def test_check_and_train_ask_for_a_channel_of_colours(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    FORMS["composite.png"](tmp_path / "images" / "a.png")
    tifffile.imwrite(tmp_path / "masks" / "a.tif", TRUTH.astype(np.uint16))
    said = refused(capsys, "train", str(tmp_path), "--out", str(tmp_path / "model"))
    assert "several stains" in said and "--channel red, green or blue" in said and not (tmp_path / "model").exists()
    main_of("check", str(tmp_path))
    assert "several stains" in " ".join(capsys.readouterr().out.split()).replace("│ ", "").replace(" │", "")


@pytest.mark.parametrize(
    ("pixels", "model", "said"),
    [
        (255 - NUCLEI, "fluorescence", "With light and dark exchanged it shows nuclei of about"),
        (np.full_like(NUCLEI, 7), "fluorescence", "Every pixel has the same value"),
        (NOISE, "fluorescence", "The model is for nuclei of about 22 pixels"),
        (NOISE, "brightfield", "use the model fluorescence"),
    ],
)
def test_why_there_is_no_nucleus_is_said(tmp_path, capsys, pixels, model, said):
    for name in ("a", "b"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    predict(tmp_path, out, model=model)
    printed = capsys.readouterr().err
    assert "2 images, such as" in printed and "no nucleus was found." in printed and said in printed
    assert said in json.loads((out / "a.json").read_text())["notes"][0]


def test_a_bright_ground_in_colour_is_said_to_be_that_of_stained_tissue(tmp_path, capsys):
    glass = np.random.default_rng(0).normal((240, 230, 235), 4, (120, 140, 3))
    glass *= np.linspace(0, 1, 140)[None, :, None] ** (0.2, 0.4, 0.3)  # a shadow at one side
    Image.fromarray(glass.clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    predict(tmp_path / "a.png", tmp_path / "out")
    assert "use the model brightfield" in capsys.readouterr().err


def test_tiny_nuclei_are_said_to_be_tiny(tmp_path, capsys):
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:160, :160]
    pixels = rng.normal(12, 3, (160, 160))
    for centre in np.stack(np.meshgrid(range(6, 160, 9), range(6, 160, 9)), -1).reshape(-1, 2):
        pixels += 150 * (np.hypot(y - centre[0], x - centre[1]) < 2)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    predict(tmp_path / "a.png", tmp_path / "out")
    assert "below 7 many are missed" in capsys.readouterr().err
