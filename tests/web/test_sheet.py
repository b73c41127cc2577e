"""The record of the strokes of a tile: what was answered is on the disk, whatever happens then."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.errors import InputError, OutputError
from nucleate.web.annotation.sheet import KEPT, TAB, Sheet, tile_of

ABOUT = {"tile": 3, "image": "cells.tif", "series": None, "box": [0, 0, 6, 8]}
SHAPE = 6, 8


def opened(folder):
    return Sheet(folder / "a.jsonl", ABOUT, SHAPE)


def painted(labels, runs):
    """The plain twin of writing runs."""
    flat = labels.reshape(-1).copy()
    for start, length, value in np.reshape(runs, (-1, 3)):
        for at in range(start, start + length):
            flat[at] = value
    return flat.reshape(labels.shape)


@st.composite
def strokes(draw):
    runs = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, 47))
        runs += [start, draw(st.integers(1, 48 - start)), draw(st.integers(-1, 5))]
    return runs


@settings(max_examples=30)
@given(st.lists(strokes(), max_size=8), st.data())
def test_a_sheet_that_is_read_again_is_the_same_at_every_revision(tmp_path_factory, many, data):
    folder = tmp_path_factory.mktemp("sheet")
    sheet, labels, states = opened(folder), np.full(SHAPE, -1, np.int32), [np.full(SHAPE, -1, np.int32)]
    for number, runs in enumerate(many):
        before = sheet.labels.copy()
        sheet.apply(f"stroke-{number}", "brush", runs)
        labels = painted(labels, runs)
        states.append(labels)
        np.testing.assert_array_equal(sheet.labels, labels)
        # A single stroke is undone by writing what was before.
        inverse = painted(sheet.labels, sheet.since(number)[0].before) if runs else before
        changed = painted(np.zeros(SHAPE, np.int32), [v if i % 3 < 2 else 1 for i, v in enumerate(runs)]) == 1
        if not _overlaps(runs):
            np.testing.assert_array_equal(inverse, before)
        assert (before[~changed] == sheet.labels[~changed]).all()
    again = opened(folder)
    np.testing.assert_array_equal(again.labels, labels)
    assert again.revision == sheet.revision == len(many)
    revision = data.draw(st.integers(0, len(many)))
    np.testing.assert_array_equal(again.at(revision), states[revision])
    since = again.since(revision)
    rebuilt = states[revision]
    for edit in since:
        rebuilt = painted(rebuilt, edit.runs)
    np.testing.assert_array_equal(rebuilt, labels)


def _overlaps(runs):
    spans = [set(range(start, start + length)) for start, length, _ in np.reshape(runs, (-1, 3))]
    return sum(map(len, spans)) != len(set().union(*spans))


@settings(max_examples=30)
@given(st.integers(0, 400))
def test_a_record_that_is_cut_anywhere_holds_every_whole_stroke(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    sheet = opened(folder)
    for number in range(4):
        sheet.apply(f"stroke-{number}", "brush", [number, 2, number + 1])
    data = sheet.path.read_bytes()
    sheet.path.write_bytes(data[:cut])
    whole = max(0, data[:cut].count(b"\n") - 1)
    again = opened(folder)
    assert again.revision == whole
    again.apply("after", "brush", [40, 3, 9])
    lines = sheet.path.read_bytes().splitlines()
    assert len(lines) == whole + 2 and all(json.loads(line) for line in lines)
    assert opened(folder).revision == whole + 1 and (opened(folder).labels.reshape(-1)[40:43] == 9).all()


def test_a_stroke_that_is_sent_twice_is_made_once(tmp_path):
    sheet = opened(tmp_path)
    sheet.apply("first", "brush", [0, 3, 1])
    sheet.apply("second", "brush", [0, 3, 2])
    sheet.apply("first", "brush", [0, 3, 1])
    assert sheet.revision == 2 and (sheet.labels.reshape(-1)[:3] == 2).all()
    again = opened(tmp_path)
    again.apply("second", "brush", [0, 3, 7])
    assert again.revision == 2


@pytest.mark.parametrize(
    "runs",
    [
        *([0, 49, 1], [-1, 2, 1], [48, 1, 1], [0, 0, 1], [0, 1, -2], [0, 1, 2**31], [0, 1], [0, 1, 1, 5]),
        *([2**70, 1, 1], [2**63 - 1, 2**62, 1], [47, 2, 1]),
    ],
)
def test_runs_that_are_none_of_the_tile_are_refused(tmp_path, runs):
    sheet = opened(tmp_path)
    sheet.apply("first", "brush", [0, 48, 1])
    with pytest.raises(InputError, match="has a stroke that"):
        sheet.apply("bad", "brush", runs)
    assert sheet.revision == opened(tmp_path).revision == 1 and (sheet.labels == 1).all()


def test_pages_never_share_the_numbers_of_nuclei(tmp_path):
    sheet = opened(tmp_path)
    first, second = sheet.new_tab(), sheet.new_tab()
    sheet.apply("a", "brush", [0, 1, second * TAB + 1])
    assert first < second and opened(tmp_path).new_tab() == second + 1


def test_only_the_last_strokes_are_in_memory(tmp_path):
    sheet = opened(tmp_path)
    for number in range(KEPT + 5):
        sheet.apply(f"stroke-{number}", "brush", [number % 48, 1, 1])
    assert sheet.since(4) is None and len(sheet.since(5)) == KEPT and sheet.since(sheet.revision) == []
    assert sheet.since(sheet.revision + 1) is None


def test_marks_are_kept_beside_the_strokes(tmp_path):
    sheet = opened(tmp_path)
    sheet.apply("a", "brush", [0, 1, 1])
    sheet.mark(mark="done", revision=1)
    again = opened(tmp_path)
    assert again.marks == [{"mark": "done", "revision": 1}] and again.revision == 1
    assert tile_of(again.path) == 3


def test_a_record_of_another_tile_or_none_is_said(tmp_path):
    sheet = opened(tmp_path)
    sheet.apply("a", "brush", [0, 1, 1])
    with pytest.raises(InputError, match=r"a\.jsonl is of another tile: move it elsewhere"):
        Sheet(sheet.path, {**ABOUT, "tile": 4}, SHAPE)
    sheet.path.write_text("no\n")
    with pytest.raises(InputError, match="is not JSON in line 1"):
        opened(tmp_path)
    for text in ("no\n", "[]\n", '{"kind": "x", "tile": 1}\n', "", '{"tile": "x", "kind": "nucleate annotation"}'):
        sheet.path.write_text(text)
        with pytest.raises(InputError, match="is no record of strokes"):
            tile_of(sheet.path)


def test_a_record_that_cannot_be_written_changes_nothing(tmp_path):
    sheet = Sheet(tmp_path / "store" / "a.jsonl", ABOUT, SHAPE)
    (tmp_path / "store").touch()  # where a folder should be
    with pytest.raises(OutputError, match=r"a\.jsonl cannot be written"):
        sheet.apply("a", "brush", [0, 1, 1])
    assert sheet.revision == 0 and (sheet.labels == -1).all()
    (tmp_path / "store").unlink()
    sheet.apply("a", "brush", [0, 1, 1])
    assert Sheet(sheet.path, ABOUT, SHAPE).revision == 1
