"""The work folder: a block is given back as it was kept, or counts as not there."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.errors import OutputError
from nucleate.inference.block_store import FolderBlockStore
from nucleate.inference.resume import BEGUN, open_work, work_folder

ROWS = np.array([(1, 2.5), (3, -1.0)], dtype=[("id", "<i8"), ("y", "<f4")])
ARRAYS = {"rows": ROWS, "mask": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "none": np.zeros((0, 3))}
IDENTITY = {"image": "a", "tile": 64}


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    """The file of a block, and what was in it."""
    path = tmp_path_factory.mktemp("work") / "a"
    FolderBlockStore(path.parent).put("a", ARRAYS)
    return path, path.read_bytes()


def read(path):
    """As another process reads it, which has not written it."""
    return FolderBlockStore(path.parent).get(path.name)


def assert_is_whole(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def with_head(head, content, path):
    """The file with another head, and the right checksum."""
    (length,) = struct.unpack("<I", content[12:16])
    text = json.dumps(head).encode()
    rest = struct.pack("<I", len(text)) + text + content[16 + length :]
    path.write_bytes(content[:8] + struct.pack("<I", zlib.crc32(rest)) + rest)
    return path


def test_a_block_is_given_back_as_it_was_kept(block):
    path, content = block
    path.write_bytes(content)
    assert_is_whole(read(path))
    assert [one.name for one in path.parent.iterdir()] == ["a"]


@given(data=st.data())
def test_any_altered_byte_is_noticed(block, data):
    path, content = block
    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    assert read(path) is None


@given(length=st.integers(0, 10**6))
def test_a_block_that_was_cut_is_not_there(block, length):
    path, content = block
    path.write_bytes(content[: length % len(content)])
    assert read(path) is None


def test_a_block_under_the_name_of_another_is_not_there(block):
    path, content = block
    (path.parent / "b").write_bytes(content)
    assert read(path.parent / "b") is None
    (path.parent / "b").unlink()


ONE = {"name": "x", "type": "<f4", "shape": [1], "bytes": 4}


@pytest.mark.parametrize(
    "head",
    [
        *(None, 5, [], "x", {}, {"block": "a"}, {"block": "a", "arrays": 5}, {"block": "a", "arrays": [5]}),
        *({"block": "a", "arrays": [{**ONE, "type": value}]} for value in (None, "O", "<f999", [["a"]], 5, {})),
        *({"block": "a", "arrays": [{**ONE, "shape": value}]} for value in (None, "x", [2**40], [-1, 2**62], [[1]])),
        *({"block": "a", "arrays": [{**ONE, "bytes": value}]} for value in (None, "x", -5, 2**70, 1.5)),
    ],
    ids=repr,
)
def test_a_head_of_another_kind_is_not_there(block, head):
    path, content = block
    assert read(with_head(head, content, path)) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "5", '{"image": ', "[" * 100_000])
def test_what_was_begun_with_something_unknown_is_begun_anew(tmp_path, text):
    store = open_work(tmp_path, "cells", IDENTITY)
    store.put("a", ARRAYS)
    assert_is_whole(open_work(tmp_path, "cells", IDENTITY)["a"])
    (work_folder(tmp_path, "cells") / BEGUN).write_text(text)
    assert open_work(tmp_path, "cells", IDENTITY).get("a") is None
    assert json.loads((work_folder(tmp_path, "cells") / BEGUN).read_text()) == IDENTITY


def test_what_was_begun_with_something_else_is_refused(tmp_path):
    open_work(tmp_path, "cells", IDENTITY)
    for other in ({**IDENTITY, "tile": 65}, {"image": "a"}, {**IDENTITY, "more": [[]]}, {}):
        (work_folder(tmp_path, "cells") / BEGUN).write_text(json.dumps(other))
        with pytest.raises(OutputError, match=r"was begun with another \w+: use the same, or delete that folder"):
            open_work(tmp_path, "cells", IDENTITY)


def test_arrays_that_a_block_lacks_are_named_in_a_sentence(block):
    path, content = block
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"a block without votes: delete the folder and run the command again\.$"):
        read(path)["votes"]
