"""Counts and commands as people read and copy them."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.sentences import command, count


def words_of(line):
    """What a shell makes of a line: the words after the program's name."""
    script = 'nucleate() { printf "%s\\0" "$@"; }\n' + line
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


NAMES = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=12)


@given(NAMES)
def test_printable_names_come_back_from_shell_rules_as_they_are(name):
    line = command("view", Path(name))
    if name.isprintable():
        assert shlex.split(line)[2] in (str(Path(name)), f"./{Path(name)}")
    assert line.isprintable()


@pytest.mark.parametrize(
    "name",
    ["out dir", "o'clock", 'a"b', "-model", "--out", "$HOME", "a;b", "`x`", "*", "~", "a\nb", "\x1b[31mred", "ä\\n'\t",
     os.fsdecode(b"caf\xe9")],
)  # fmt: skip
def test_a_shell_gives_back_each_name(name):
    found = words_of(command("predict", Path(name), "--out", Path(name)))
    assert found[0] == "predict" and found[2] == "--out" and found[1] == found[3]
    assert Path(found[1]) == Path(name) and not found[1].startswith("-")


def test_counts_have_their_number():
    assert [count(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
