"""The report of one's own data, from end to end."""

import json
import re
import shutil

import numpy as np
import pytest
import tifffile

from nucleate.cli import main
from nucleate.data.synthetic import fluorescence
from nucleate.report import own_data


def folders(root):
    """Three images with masks, and predictions: perfect, half and nothing."""
    for index, name in enumerate(("good", "half", "none")):
        image, truth = fluorescence(seed=index, height=96, width=120)
        found = np.where(truth <= [truth.max(), truth.max() // 2, 0][index], truth, 0)
        parts = {"cells/images": image.pixels[..., 0], "cells/masks": truth, "found": found}
        for part, pixels in parts.items():
            (root / part).mkdir(parents=True, exist_ok=True)
            ending = "_labels" if part == "found" else ""
            tifffile.imwrite(root / part / f"{name}{ending}.tif", pixels.astype(np.uint16 if ending else pixels.dtype))


@pytest.fixture
def report(tmp_path, capsys):
    """Write a report and give its text."""
    folders(tmp_path)

    def call(*arguments):
        path = tmp_path / "report.html"
        with pytest.raises(SystemExit) as end:
            main(["evaluate", *map(str, arguments), "--report", str(path)])
        printed = capsys.readouterr().out
        assert not end.value.code and f"Wrote {path}." in printed.replace("\n", "")
        return path.read_text()

    return call


def shown(text):
    return re.findall(r"<article><h3>(.*?)</h3>", text)


def has_pixels(text):
    """Whether each picture shows more than black ground."""
    return [len(data) > 1500 for data in re.findall(r'href="data:image/png;base64,([^"]+)"', text)]


def test_the_worst_image_comes_first_with_truth_and_prediction(report, tmp_path):
    text = report(tmp_path / "found", tmp_path / "cells")
    assert shown(text) == ["none", "half", "good"] and has_pixels(text) == [True] * 3
    assert "Average precision over IoU: AP " in text and "panoptic quality 1.000" in text
    assert re.findall(r'<tr><th scope="row">(none|half|good)<', text) == ["none", "half", "good"]
    assert text.count("<figcaption>Truth") == text.count("<figcaption>Prediction") == 3
    assert "src=" not in text and not re.search(r'href="(?!#|data:)', text)


def test_images_are_named_or_found_by_the_record_or_not_at_all(report, tmp_path):
    masks = shutil.copytree(tmp_path / "cells" / "masks", tmp_path / "truth")
    text = report(tmp_path / "found", masks)
    assert has_pixels(text) == [False] * 3 and "say with --images FOLDER" in text
    assert has_pixels(report(tmp_path / "found", masks, "--images", tmp_path / "cells" / "images")) == [True] * 3
    with pytest.raises(SystemExit):
        main(["predict", "fluorescence", str(tmp_path / "cells"), "--out", str(tmp_path / "new")])
    assert has_pixels(report(tmp_path / "new", masks)) == [True] * 3


def test_of_many_images_the_worst_are_shown_and_all_are_in_the_table(report, tmp_path, monkeypatch):
    monkeypatch.setattr(own_data, "SHOWN", 1)
    text = report(tmp_path / "found", tmp_path / "cells")
    assert shown(text) == ["none"] and "The 1 worst of 3 images are shown." in text and ">good<" in text


def test_of_a_large_image_the_part_with_most_errors_is_shown():
    truth = np.zeros((2000, 1500), np.int32)
    truth[1700:1720, 1300:1320] = 1
    part, about = own_data._part(truth, np.zeros_like(truth), np.array([]), np.array([1]))
    assert (truth[part] == 1).sum() == 400 and truth[part].shape == (512, 512)
    assert about == "shown: 512 × 512 of 1500 × 2000 pixels"


def test_of_a_held_out_strip_the_strip_is_shown():
    truth = np.full((100, 200), -1, np.int32)
    truth[:, 160:] = 0
    part, _ = own_data._part(truth, np.zeros_like(truth), np.array([]), np.array([]))
    assert truth[part].shape == (100, 40)


def test_without_a_true_nucleus_there_is_no_number(report, tmp_path):
    for path in (tmp_path / "cells" / "masks").iterdir():
        tifffile.imwrite(path, np.zeros((96, 120), np.uint16))
    text = report(tmp_path / "found", tmp_path / "cells")
    assert "There is no score" in text and "<dd>" not in text.split("<section>")[0] and len(shown(text)) == 3


def test_a_broken_image_is_said_and_the_others_are_shown(report, tmp_path):
    (tmp_path / "cells" / "images" / "half.tif").write_bytes(b"II*\0")
    masks = shutil.copytree(tmp_path / "cells" / "masks", tmp_path / "truth")
    text = report(tmp_path / "found", masks, "--images", tmp_path / "cells" / "images")
    assert has_pixels(text) == [True, False, True] and "half.tif" in text


def test_a_record_of_something_else_is_not_followed(report, tmp_path):
    (tmp_path / "found" / "good.json").write_text(json.dumps({"kind": "something else"}))
    assert len(shown(report(tmp_path / "found", tmp_path / "cells"))) == 3
