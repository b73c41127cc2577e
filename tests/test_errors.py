"""Sentences for people: nothing in them steers a terminal, whatever files are called."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.errors import ImageError, LossInputError, printable


@given(st.text() | st.binary().map(lambda name: name.decode("utf-8", "surrogateescape")))
def test_what_is_shown_can_be_encoded_and_steers_nothing(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert not any(unicodedata.category(one) in ("Cc", "Cs") for one in shown)
    assert printable(shown) == shown


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_what_people_read_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize("kind", [ImageError, LossInputError])
def test_every_error_is_printable(kind):
    assert str(kind("a\x1b[31m.tif\n\u202e")) == "a\\x1b[31m.tif\\n\\u202e"
    assert str(kind("")) == ""
