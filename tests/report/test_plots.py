"""Curves as PNG and SVG: the same history gives the same bytes; anything missing leaves a gap and no error."""

from __future__ import annotations

import re
from math import inf, nan
from pathlib import Path
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.curves.curves import Curves, Epoch, curves
from nucleate.errors import OutputError
from nucleate.report.plots import LOSS, OVER_FITTING, SCORE, TEST, TRAINING, VALIDATION, curves_svg, plot_curves

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


NUMBERS = st.one_of(st.just(nan), st.floats(-1e6, 1e6), st.floats(-1e-6, 1e-6))
ONE = {"train_loss": ("training", TRAINING)}


def points(chart: str, variable: str) -> list[list[tuple[float, float]]]:
    """The corners (x, y) of each piece of the line of this colour."""
    for path in ElementTree.fromstring(chart).iter("path"):
        if f"stroke: var({variable})" in path.get("style", "") and "clip-path" in path.attrib:
            pieces = re.split(r"(?=M)", path.attrib["d"].strip())[1:]
            return [
                [(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", piece)] for piece in pieces
            ]
    return []


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20))
@settings(max_examples=15, deadline=None)
def test_every_point_lies_inside_the_chart(values: list[tuple[float, float]]) -> None:
    epochs = [Epoch(number, *pair) for number, pair in enumerate(values, start=1)]
    chart = curves_svg(Curves(tuple(epochs), 1, stop=2, over_fitting=(1, 2)), "Loss", LOSS)
    if not any(value == value for pair in values for value in pair):
        assert chart == ""
        return
    width, height = map(float, ElementTree.fromstring(chart).attrib["viewBox"].split()[2:])
    corners = [corner for name in ("--train", "--valid") for piece in points(chart, name) for corner in piece]
    assert corners
    assert all(0 < x < width and 0 < y < height for x, y in corners)


def test_a_gap_starts_a_new_line_and_higher_values_lie_higher() -> None:
    run = curves([{"train_loss": loss} for loss in (3.0, 2.0, nan, 1.0, 2.0)])
    falling, rising = points(curves_svg(run, "Loss", ONE), "--train")
    assert [len(falling), len(rising)] == [2, 2]
    assert falling[0][1] < falling[1][1] and rising[0][1] > rising[1][1]
    assert falling[0][0] < falling[1][0] < rising[0][0] < rising[1][0]


def test_a_chart_says_in_words_what_it_shows_and_names_are_escaped() -> None:
    run = Curves(tuple(Epoch(number, train_loss=1 / number) for number in range(1, 11)), 4, 8, (4, 8))
    chart = curves_svg(run, "<Loss>", ONE)
    assert ElementTree.fromstring(chart).attrib["aria-label"] == (
        "<Loss> over 10 epochs: training from 1 to 0.1; kept epoch 4; end decided after epoch 8; "
        "over-fitting from epoch 4 to 8"
    )
    words = "".join(ElementTree.fromstring(chart).itertext())
    assert all(key in words for key in ("kept: epoch 4", "end decided: epoch 8", "over-fitting", "<Loss>"))
    assert "var(--over-fitting)" in chart
    assert "over-fitting" not in curves_svg(Curves(run.epochs, 4), "Loss", ONE)


def test_one_epoch_is_a_dot_and_the_only_number_of_its_axis() -> None:
    root = ElementTree.fromstring(curves_svg(curves([{"epoch": 7, "train_loss": 0.5}]), "Loss", ONE))
    assert [word for word in root.itertext() if word.strip() == "7"]
    assert not [word for word in root.itertext() if word.strip().startswith(("6.", "7."))]


def test_a_chart_is_the_same_each_time_and_takes_its_colours_from_the_page() -> None:
    run = curves(HISTORY, kept=3, stop=5, over_fitting=(3, 5))
    chart = curves_svg(run, "Loss", LOSS)
    assert curves_svg(run, "Loss", LOSS) == chart
    assert not re.search(r"#[0-9a-f]{6}", chart)
    assert not re.search(r"<style|http|matplotlib", chart)
    # Two charts on one page share no name.
    other = curves_svg(run, "Mean AP", LOSS)
    assert not set(re.findall(r'id="([^"]*)"', chart)) & set(re.findall(r'id="([^"]*)"', other))
