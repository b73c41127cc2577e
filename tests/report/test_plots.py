"""Curves as a PNG: the same history, the same file; anything missing leaves a gap and no error."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from nucleate.curves.curves import curves
from nucleate.errors import OutputError
from nucleate.report.plots import OVER_FITTING, SCORE, TEST, TRAINING, VALIDATION, plot_curves

HISTORY = [{"epoch": i, "train_loss": 1 / i, "valid_loss": 1.1 / i, "score": 1 - 1 / i} for i in range(1, 8)]


def colours(path: Path) -> set[str]:
    pixels = imagecodecs.png_decode(path.read_bytes())[..., :3].reshape(-1, 3)
    return {"#" + bytes(colour).hex() for colour in np.unique(pixels, axis=0)}


def test_every_curve_is_drawn_and_the_same_history_gives_the_same_file(tmp_path: Path) -> None:
    plot_curves([curves(HISTORY)], tmp_path / "a.png")
    plot_curves([curves(iter(HISTORY))], tmp_path / "b.png")
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
    plot_curves([curves(history)], tmp_path / "curves.png")
    assert not colours(tmp_path / "curves.png") & absent


def test_what_was_judged_over_fitting_is_shaded_in_every_panel(tmp_path: Path) -> None:
    def width(over_fitting: tuple[int, int] | None) -> int:
        """The shaded pixels of the row that has most of them."""
        path = tmp_path / "curves.png"
        plot_curves([curves(HISTORY, kept=3, stop=5, over_fitting=over_fitting)], path)
        pixels = imagecodecs.png_decode(path.read_bytes())[..., :3]
        shade = [int(OVER_FITTING[i : i + 2], 16) for i in (1, 3, 5)]
        return int((pixels == shade).all(axis=2).sum(axis=1).max())

    assert width(None) == 0
    # Two epochs of the seven, in two panels, take about a third of both.
    assert 300 < width((3, 5)) < width((3, 7))


def test_runs_are_drawn_in_rows_and_a_run_without_score_has_one_panel(tmp_path: Path) -> None:
    others = [{"train_loss": 1 / i, "test_loss": 1.2 / i} for i in range(1, 5)]
    plot_curves([curves(others)], tmp_path / "one.png")
    plot_curves([curves(others), curves(HISTORY, name="other")], tmp_path / "two.png")
    one, two = (imagecodecs.png_decode((tmp_path / name).read_bytes()).shape for name in ("one.png", "two.png"))
    assert two[0] == 2 * one[0] and two[1] > one[1]
    assert SCORE not in colours(tmp_path / "one.png")
    assert colours(tmp_path / "two.png") >= {TRAINING, VALIDATION, TEST, SCORE}


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(OutputError, match=r"curves\.png"):
        plot_curves([curves(HISTORY)], tmp_path / "curves.png")
