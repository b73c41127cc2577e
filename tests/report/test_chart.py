"""The inline chart: well-formed, inside its frame, with gaps where numbers are missing."""

from __future__ import annotations

import re
from math import nan
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.curves.curves import Curves, Epoch
from nucleate.report.chart import line_chart

SERIES = (("train_loss", "training"), ("valid_loss", "validation"))

numbers = st.one_of(st.just(nan), st.floats(-1e6, 1e6), st.floats(-1e-6, 1e-6))


@given(st.lists(st.tuples(numbers, numbers), max_size=30))
def test_every_point_lies_inside_the_frame(values: list[tuple[float, float]]) -> None:
    epochs = [Epoch(number, *pair) for number, pair in enumerate(values, start=1)]
    chart = line_chart("Loss", Curves(tuple(epochs), 1, stop=2, over_fitting=(1, 2)), SERIES)
    known = [value for pair in values for value in pair if value == value]
    if not known:
        assert chart == ""
        return
    root = ElementTree.fromstring(chart)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    lines = [element.attrib["d"] for element in root if element.attrib.get("class", "").startswith("line")]
    points = re.findall(r"[ML]([-\d.]+) ([-\d.]+)", "".join(lines))
    assert len(points) == len(known)
    assert all(0 < float(x) < width and 0 < float(y) < height for x, y in points)


def test_a_gap_starts_a_new_line_and_the_epoch_kept_is_marked() -> None:
    losses = (3.0, 2.0, nan, 1.0)
    epochs = [Epoch(number, train_loss=loss) for number, loss in enumerate(losses, start=10)]
    chart = line_chart("Loss", Curves(tuple(epochs), 11), SERIES[:1])
    line = re.search(r'class="line train_loss" d="([^"]*)"', chart).group(1)
    assert re.sub(r"[-\d. ]+", " ", line).split() == ["M", "h", "L", "M", "h"]
    assert chart.count('class="kept"') == chart.count("<circle") == 1
    assert chart.count("<title>Epoch ") == 3
    assert 'aria-label="Loss over 4 epochs: training from 3 to 1; kept epoch 11"' in chart


def test_the_stop_is_marked_and_over_fitting_shaded_from_epoch_to_epoch() -> None:
    epochs = tuple(Epoch(number, train_loss=1 / number) for number in range(1, 11))
    chart = line_chart("Loss", Curves(epochs, kept=4, stop=8, over_fitting=(4, 8)), SERIES)
    x, width = map(float, re.search(r'class="over-fitting" x="([\d.]+)" y="14" width="([\d.]+)"', chart).groups())
    lines = {name: float(place) for name, place in re.findall(r'class="(kept|stop)" d="M([\d.]+) ', chart)}
    assert lines == pytest.approx({"kept": x, "stop": x + width}, abs=0.1)
    assert chart.index("over-fitting") < chart.index("grid")
    assert "kept epoch 4; end decided after epoch 8; over-fitting from epoch 4 to 8" in chart
    plain = line_chart("Loss", Curves(epochs, kept=4), SERIES)
    assert 'class="stop"' not in plain and "over-fitting" not in plain


@pytest.mark.parametrize("value", [0.0, 0.5, 1e-12, -3.0])
def test_one_epoch_is_a_dot_in_the_middle(value: float) -> None:
    chart = line_chart("Loss", Curves((Epoch(1, train_loss=value),)), SERIES)
    ElementTree.fromstring(chart)
    assert chart.count("h0") == 1


def test_higher_values_lie_higher() -> None:
    chart = line_chart("Loss", Curves((Epoch(1, train_loss=1.0), Epoch(2, train_loss=2.0))), SERIES)
    (_, first), (_, second) = re.findall(r"[ML]([-\d.]+) ([-\d.]+)(?:h0|\")", chart.split("line train_loss")[1])[:2]
    assert float(second) < float(first)


def test_names_are_escaped() -> None:
    chart = line_chart("<Loss>", Curves((Epoch(1, train_loss=1.0),)), (("train_loss", 'a"<b>'),))
    ElementTree.fromstring(chart)
    assert "<b>" not in chart
