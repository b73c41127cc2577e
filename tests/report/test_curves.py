"""Curves as a PNG: the same history, the same file; anything missing leaves a gap and no error."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from nucleate.errors import OutputError
from nucleate.report.curves import SCORE, TRAINING, VALIDATION, plot_curves

HISTORY = [{"epoch": i, "train_loss": 1 / i, "valid_loss": 1.1 / i, "score": 1 - 1 / i} for i in range(1, 8)]


def colours(path: Path) -> set[str]:
    pixels = imagecodecs.png_decode(path.read_bytes())[..., :3].reshape(-1, 3)
    return {"#" + bytes(colour).hex() for colour in np.unique(pixels, axis=0)}


def test_every_curve_is_drawn_and_the_same_history_gives_the_same_file(tmp_path: Path) -> None:
    plot_curves(HISTORY, tmp_path / "a.png")
    plot_curves(iter(HISTORY), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert colours(tmp_path / "a.png") >= {TRAINING, VALIDATION, SCORE}
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("history", "absent"),
    [
        ([], {TRAINING, VALIDATION, SCORE}),
        ([{"epoch": 1, "train_loss": 0.5}], {VALIDATION, SCORE}),
        ([{"epoch": 1, "train_loss": nan, "valid_loss": inf}, {"epoch": 2, "score": 0.5}], {TRAINING, VALIDATION}),
        ([{"train_loss": None, "valid_loss": 0.1}] * 60, {TRAINING, SCORE}),
    ],
)
def test_what_is_missing_is_not_drawn(history: list[dict[str, float]], absent: set[str], tmp_path: Path) -> None:
    plot_curves(history, tmp_path / "curves.png")
    assert not colours(tmp_path / "curves.png") & absent


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(OutputError, match=r"curves\.png"):
        plot_curves(HISTORY, tmp_path / "curves.png")
