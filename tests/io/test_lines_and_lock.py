"""A file of lines that only grows, and a folder that one process at a time may change."""

import multiprocessing
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.errors import OutputError
from nucleate.io import lines, lock
from nucleate.io.lock import Lock

TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\u2028\u2029\x85"), max_size=20)


@given(st.lists(TEXT, min_size=1, max_size=5), st.integers(0, 40))
def test_a_cut_leaves_the_whole_lines_and_the_next_one_is_read(tmp_path_factory, texts, cut):
    path = tmp_path_factory.mktemp("lines") / "journal"
    for text in texts:
        lines.append(path, text)
    assert lines.read(path) == texts
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - cut)])
    whole = lines.read(path)
    assert whole == texts[: len(whole)]
    lines.append(path, "next")
    assert lines.read(path) == [*whole, "next"]


def test_a_long_line_is_cut_off_whole(tmp_path):
    path = tmp_path / "journal"
    lines.append(path, "first")
    with path.open("ab") as file:
        file.write(b"x" * 10_000)
    lines.append(path, "second")
    assert lines.read(path) == ["first", "second"] and path.stat().st_size == 13


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "journal").mkdir()
    with pytest.raises(OutputError, match=r"journal cannot be written"):
        lines.append(tmp_path / "journal", "x")


def held(path):
    Lock(path, "busy")
    os._exit(0)  # as a killed process: nothing is released


def test_the_lock_of_a_process_that_ended_is_free(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=held, args=(tmp_path / "lock",))
    process.start()
    process.join()
    Lock(tmp_path / "lock", "busy").release()


def test_without_fcntl_the_file_is_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    first = Lock(tmp_path / "lock", "The folder is busy")
    with pytest.raises(OutputError, match=r"The folder is busy; if no other process runs, delete .*lock"):
        Lock(tmp_path / "lock", "The folder is busy")
    first.release()
    first.release()
    Lock(tmp_path / "lock", "The folder is busy").release()


def test_where_it_cannot_be_made_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"lock cannot be written"):
        Lock(tmp_path / "file" / "lock", "busy")
