"""The page: well-formed, alone, escaped, complete and described for those who cannot see it."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from math import nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.curves.curves import curves
from nucleate.data.synthetic.microscopy import fluorescence, tissue
from nucleate.errors import OutputError
from nucleate.postprocess.matching import match
from nucleate.postprocess.scores import pool
from nucleate.report.collect import Picture, Report, headline, picture, score_table
from nucleate.report.html import page, render, shown
from nucleate.report.pictures import SIDE

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(HTMLParser):
    """Reads a page strictly: every element that is opened is closed, in order; ids are unique."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def report() -> Report:
    pictures, matchings = [], []
    for image, truth in (fluorescence(1, 96, 80), tissue(2, 64, 64)):
        predicted = np.where(truth == 1, 0, truth)
        predicted[:6, :6] = truth.max() + 1
        matchings.append(match(truth, predicted))
        pictures.append(picture(image, predicted, truth, matchings[-1], caption="R&D <slide>"))
    image, predicted = tissue(3, 64, 64)
    pictures.append(Picture("<b>.png", image.pixels, predicted))
    scores = pool(matchings)
    history = [{"epoch": i, "train_loss": 1 / i, "valid_loss": 1.2 / i, "score": 0.1 * i} for i in (1, 2, 3)]
    facts = (("Seed", 7), ("Time & place", "a < b"), ("Pixels", 1234567), ("Drift", nan))
    return Report(
        "Run <1>", "Summary & more", headline(scores), facts, score_table(scores), curves(history), tuple(pictures)
    )


def test_the_page_is_well_formed_and_complete(report: Report) -> None:
    read = Outline(page(report))
    text = " ".join(read.words)
    assert [len(read.all(tag)) for tag in ("html", "h1", "main", "article")] == [1, 1, 1, 3]
    assert read.all("html")[0]["lang"] == "en"
    assert read.words.count("Run <1>") == 2  # title and heading
    for label, value in (*report.headline, *report.facts):
        assert label in text
        assert unescape(shown(value)) in read.words
    for cell in (cell for row in report.scores.rows for cell in row):
        assert shown(cell) in read.words
    for epoch in report.curves.epochs:
        assert shown(epoch.valid_loss) in read.words


def test_names_are_escaped(report: Report) -> None:
    html = page(report)
    assert "<b>.png" not in html
    assert "&lt;b&gt;.png" in html
    assert "R&amp;D &lt;slide&gt;" in html


def test_nothing_is_fetched_and_no_script_runs(report: Report) -> None:
    html = page(report)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)|<script|javascript:", re.sub(r"base64,[^\"]*", "", html))
    read = Outline(html)
    for _, attributes in read.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in read.all("meta"))


def test_every_picture_and_chart_has_a_text_and_every_image_is_in_the_page_once(report: Report) -> None:
    read = Outline(page(report))
    drawings = read.all("svg")
    assert len(drawings) == 2 + 3 + 3 + 2  # charts, two pictures with a truth, one without
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawings)
    assert len({svg["aria-label"] for svg in drawings}) == len(drawings)
    images = {f"#{image['id']}" for image in read.all("image")}
    assert len(images) == 3
    used = {use["href"] for use in read.all("use")}
    assert {name for name in used if name.startswith("#image-")} == images
    assert used <= {f"#{attributes.get('id')}" for _, attributes in read.elements}


def test_tables_have_headers_and_captions(report: Report) -> None:
    read = Outline(page(report))
    assert len(read.all("table")) == len(read.all("caption")) == 2
    assert {header["scope"] for header in read.all("th")} == {"col", "row"}


def test_outlines_say_what_was_found(report: Report) -> None:
    read = Outline(page(report))
    first = report.pictures[0]
    words = " ".join(read.words)
    assert f"{first.matched.size} matched at IoU 0.5, 1 false positive, 1 missed" in words
    classes = [path.get("class") for path in read.all("path")]
    # Of two labelled pictures each missed nucleus is in truth and prediction, each false one in the prediction.
    assert [classes.count(kind) for kind in ("matched", "false-positive", "missed", "unscored")] == [4, 2, 4, 1]


def test_a_large_image_is_cut_to_its_middle_and_says_so() -> None:
    side = SIDE + 100
    predicted = np.zeros((side, 40), np.int32)
    predicted[:20, :20] = 1
    html = page(Report("Run", pictures=(Picture("large", np.zeros((side, 40, 1), np.uint8), predicted),)))
    Outline(html)
    assert f"the middle 40 × {SIDE} of 40 × {side} pixels" in html
    assert "1 predicted, not scored" in html  # counts are of the whole image


@given(st.text(max_size=30), st.text(max_size=30), st.floats() | st.integers() | st.text(max_size=9))
def test_any_text_and_number_leave_the_page_well_formed(title: str, label: str, value: float | str) -> None:
    read = Outline(page(Report(title, summary=label, headline=((label, value),), facts=((label, value),))))
    assert len(read.all("dt")) == 2


def test_curves_without_validation_or_of_no_epoch() -> None:
    one = Outline(page(Report("Run", curves=curves([{"epoch": 1, "train_loss": 0.5}]))))
    assert len(one.all("svg")) == 1
    assert [words for words in one.words if "kept" in words] == []
    assert not Outline(page(Report("Run", curves=curves([])))).all("svg")


def test_what_was_judged_over_fitting_is_shaded_and_named() -> None:
    history = [{"train_loss": 1 / i, "valid_loss": 1.0, "score": 0.5} for i in range(1, 9)]
    read = Outline(page(Report("Run", curves=curves(history, kept=2, stop=7, over_fitting=(2, 7)))))
    keys = ("kept: epoch 2", "end decided: epoch 7", "over-fitting")
    assert [read.words.count(key) for key in keys] == [2, 2, 2]


def test_render_writes_the_page_and_nothing_else(report: Report, tmp_path: Path) -> None:
    render(report, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page(report)
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OutputError, match=r"folder\.html"):
        render(report, tmp_path / "folder.html")
