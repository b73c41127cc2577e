"""Tables that fit a terminal of 80 columns, without a word broken."""

import re
from io import StringIO

import numpy as np
import pytest
import tifffile
from rich.console import Console

from nucleate.curves.compare import outcomes
from nucleate.curves.history import read
from nucleate.data.inspect import inspect
from nucleate.data.synthetic import write_folder
from nucleate.report.console import print_folder_report, print_stopping


def printed(show, *arguments, width=80):
    text = StringIO()
    show(*arguments, Console(file=text, width=width))
    lines = text.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return lines


def words(lines):
    """Each word of an output, whatever the lines and the frames of tables."""
    return {word for line in lines for word in re.findall(r"[\w.,%+-]+", line)}


def test_check_fits_80_columns_and_breaks_no_word(tmp_path):
    write_folder(tmp_path, "fluorescence", 3, seed=1, labelled=2, height=96, width=120)
    pixels = np.random.default_rng(0).integers(0, 60_000, (96, 1000, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "images" / "a_name.tif", pixels, photometric="rgb", resolution=(20_000, 20_000))
    report = inspect(tmp_path)
    narrow, wide = printed(print_folder_report, report), printed(print_folder_report, report, width=400)
    assert words(wide) <= words(narrow)


@pytest.mark.parametrize("scored", [False, True])
def test_curves_fits_80_columns_and_breaks_no_word(tmp_path, scored):
    rows = [f"{epoch},{1 / epoch},{1 / epoch + 0.004 * epoch}" + f",{epoch / 60}" * scored for epoch in range(1, 60)]
    (tmp_path / "run.csv").write_text("\n".join(["epoch,train,valid" + ",score" * scored, *rows]))
    history = read(tmp_path / "run.csv")
    arguments = history, outcomes(history)
    assert words(printed(print_stopping, *arguments, width=400)) <= words(printed(print_stopping, *arguments))
