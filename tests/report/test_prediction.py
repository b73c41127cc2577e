"""The report of a prediction folder: what it counts, shows and names."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tifffile

from nucleate.cli import main
from nucleate.data.synthetic import fluorescence
from nucleate.errors import InputError
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.io.stack import Choice
from nucleate.networks import store
from nucleate.report.prediction import prediction_report


@pytest.fixture(scope="module")
def predictor():
    return Predictor(store.read(store.locate("fluorescence")), engine="torch")


@pytest.fixture(scope="module")
def folder(predictor, tmp_path_factory):
    """Three images, of which one is empty; beside them one that is broken and one that is a stack."""
    path = tmp_path_factory.mktemp("report")
    images = path / "images"
    images.mkdir()
    for seed in range(2):
        pixels = fluorescence(seed=seed, height=80, width=100, diameter=16)[0].pixels
        tifffile.imwrite(images / f"a<{seed}>.tif", pixels[..., 0], resolution=(20000, 20000), resolutionunit=3)
    tifffile.imwrite(images / "empty.tif", np.zeros((40, 50), np.uint8), resolution=(20000, 20000), resolutionunit=3)
    (images / "broken.tif").write_bytes(b"II*\0cut")
    stack = np.stack([pixels[..., 0]] * 3)
    tifffile.imwrite(images / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    done = predict(predictor, sorted(images.iterdir()), path / "found")
    return path / "found", done


def test_it_counts_what_was_found_and_names_what_failed(folder):
    out, done = folder
    page = prediction_report(out)
    total = sum(done.nuclei.values())
    assert total > 5
    assert re.search(rf"<dt>Nuclei</dt><dd>{total}</dd>", page) and "<dt>Images</dt><dd>3</dd>" in page
    assert "Median diameter (µm)" in page
    assert "a&lt;0&gt;" in page and "a<0>" not in page
    for name, number in done.nuclei.items():
        assert f"{number} nucle" in page and (number or f"No nucleus was found in 1 image: {name}" in page)
    assert "What failed" in page and "broken.tif cannot be decoded" in page and "stack.tif is a stack of 3" in page
    assert "<dt>Failed</dt><dd>2</dd>" in page


class Balanced(HTMLParser):
    """Elements end where they must."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, _):
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_stands_alone_and_is_the_same_each_time(folder):
    out, _ = folder
    page = prediction_report(out)
    assert page == prediction_report(out)
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")
    assert not re.search(r'(src|href)="(?!#|data:)', page)

    balanced = Balanced()
    balanced.feed(page)
    assert balanced.open == []


def test_the_contact_sheet_has_the_outlines_of_every_image(folder):
    out, done = folder
    sheet = prediction_report(out).partition("Contact sheet")[2]
    drawn = re.findall(r'aria-label="Outlines of the nuclei of ([^"]*)">(.*?)</svg>', sheet)
    assert len(drawn) == 3
    for name, picture in drawn:
        number = done.nuclei[name.replace("&lt;", "<").replace("&gt;", ">")]
        paths = re.findall(r'<path class="unscored" d="([^"]*)"', picture)
        assert sum(path.count("M") for path in paths) >= number and bool(paths) == bool(number)


@pytest.mark.parametrize("formats", [("csv",), ("geojson",), ("zarr", "csv"), ("roi",)])
def test_of_other_formats_it_says_what_it_can(predictor, folder, tmp_path, formats):
    image = folder[0].parent / "images" / "a<0>.tif"
    done = predict(predictor, [image], tmp_path, Request(formats=formats))
    page = prediction_report(tmp_path)
    assert f"<dt>Nuclei</dt><dd>{done.nuclei['a<0>']}</dd>" in page
    assert ("All nuclei" in page) == ("csv" in formats) == ("without a table" not in page)
    assert ('class="unscored" d=' in page) == (formats != ("csv",))


def test_the_planes_of_a_stack_are_images_of_the_report(predictor, folder, tmp_path):
    image = folder[0].parent / "images" / "stack.tif"
    predict(predictor, [image], tmp_path, Request(stacks=Choice(z="each")))
    page = prediction_report(tmp_path)
    assert "<dt>Images</dt><dd>3</dd>" in page and "stack_planes/stack_z3" in page


def test_a_folder_without_a_prediction_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no prediction: give the --out of nucleate predict"):
        prediction_report(tmp_path)


def test_the_command_writes_it_and_replaces_only_its_own(folder, capsys):
    out, _ = folder
    main_without_exit(["report", str(out)])
    assert capsys.readouterr().out == f"Wrote {out / 'report.html'}: open it in a browser.\n"
    main_without_exit(["report", str(out)])
    (out / "report.html").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(out)])
    assert ended.value.code == 2 and "nucleate did not write it" in capsys.readouterr().err


def main_without_exit(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
