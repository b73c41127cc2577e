"""The ZIP writer, read back by the standard library's."""

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.io.formats.zip_stream import ZipStream

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9)


def written(members, out=None):
    out = out or io.BytesIO()
    with ZipStream(out, Path()) as archive:
        for name, data in members.items():
            archive.add(name, data)
    return out


def read(out):
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        return {one.filename: archive.read(one) for one in archive.infolist()}


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(NAMES, st.binary(max_size=99), max_size=5))
def test_what_is_added_is_read_back(members):
    assert read(written(members)) == members


def test_more_members_than_16_bits_count():
    out = written({str(number): b"" for number in range(70_000)})
    with zipfile.ZipFile(out) as archive:
        assert len(archive.namelist()) == 70_000 and archive.testzip() is None
    # The end that counts in 64 bits, which this reader does not need.
    end = out.getvalue()[-98:]
    assert end.startswith(b"PK\6\6") and int.from_bytes(end[24:32], "little") == 70_000


@pytest.mark.parametrize("limit", [10, 100])
def test_what_lies_far_away_has_64_bit_offsets(limit):
    base = 2**32 - limit
    out = Shifted(base)
    with ZipStream(out, Path()) as archive:
        for number in range(5):
            archive.add(f"{number}", bytes([number]) * 50)
    assert read(out) == {f"{number}": bytes([number]) * 50 for number in range(5)}


class Shifted(io.RawIOBase):
    """A file that begins with `base` bytes of zeros which are not held."""

    def __init__(self, base):
        self.base, self.at, self.data = base, base, bytearray()

    def tell(self):
        return self.at

    def seekable(self):
        return True

    def readable(self):
        return True

    def seek(self, to, whence=0):
        self.at = to + {0: 0, 1: self.at, 2: self.base + len(self.data)}[whence]
        return self.at

    def write(self, data):
        assert self.at == self.base + len(self.data)
        self.data += data
        self.at += len(data)
        return len(data)

    def read(self, size=-1):
        begin = self.at - self.base
        assert begin >= 0
        found = bytes(self.data[begin:] if size < 0 else self.data[begin : begin + size])
        self.at += len(found)
        return found


def test_an_error_ends_it_without_a_directory():
    out = io.BytesIO()
    with pytest.raises(RuntimeError), ZipStream(out, Path()) as archive:
        archive.add("a", b"x")
        raise RuntimeError
    assert not zipfile.is_zipfile(out)
