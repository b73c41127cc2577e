"""The record of a prediction: what is written is read back, and what could mislead is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.errors import InputError
from nucleate.io.prediction_json import KIND, Environment, PredictionRecord, read_record, record_file, write_record

COUNT = st.integers(0, 2**40)
SIZE = st.floats(1e-9, 1e9)
NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\\:\0"), min_size=1).filter(
    lambda name: name not in (".", "..")
)
RECORDS = st.builds(
    PredictionRecord,
    image=NAME.map("/data/{}".format),
    level=COUNT,
    origin=st.tuples(COUNT, COUNT),
    shape=st.tuples(COUNT.filter(bool), COUNT.filter(bool)),
    downsample=SIZE,
    pixel_size=st.none() | SIZE,
    count=COUNT,
    files=st.dictionaries(st.sampled_from(["tif", "csv"]), NAME),
    environment=st.none()
    | st.builds(Environment, st.text(), st.text(), st.dictionaries(st.text(), st.text(), max_size=3)),
)


@settings(deadline=None, max_examples=60)
@given(record=RECORDS)
def test_round_trip(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("record") / record_file("cells")
    write_record(path, record)
    assert read_record(path) == record


def test_of_nuclei(tmp_path, monkeypatch, memory_instances):
    monkeypatch.chdir(tmp_path)
    nuclei = memory_instances("cells", np.zeros((3, 4), np.int32), [], origin=(5, 6), downsample=4.0, pixel_size=0.5)
    record = PredictionRecord.of(nuclei, type(tmp_path)("cells.svs"), 1, {"csv": "cells.csv"})
    assert record == PredictionRecord(
        str(tmp_path.resolve() / "cells.svs"), 1, (5, 6), (3, 4), 4.0, 0.5, 0, {"csv": "cells.csv"}
    )


GOOD = {
    "kind": KIND,
    "image": "/a/cells.tif",
    "level": 0,
    "origin": [0, 0],
    "shape": [3, 4],
    "downsample": 1.0,
    "pixel_size": None,
    "count": 0,
    "files": {"tif": "cells_labels.tif"},
}


def test_more_than_is_known_does_no_harm(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({**GOOD, "model": {"name": "m"}}))
    assert read_record(tmp_path / "x.json").files == {"tif": "cells_labels.tif"}


@pytest.mark.parametrize("text", ["[]", "{}", '"text"', '{"kind": "something else"}', "null"])
def test_another_kind_of_json_is_no_record(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    assert read_record(tmp_path / "x.json") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", "cells.tif"),
        ("image", 3),
        ("image", "/a\0b"),
        ("level", -1),
        ("level", 1.5),
        ("level", True),
        ("origin", [0]),
        ("origin", [0, -1]),
        ("shape", [0, 4]),
        ("shape", "34"),
        ("downsample", 0),
        ("downsample", float("nan")),
        ("downsample", None),
        ("pixel_size", float("inf")),
        ("pixel_size", "0.5"),
        ("count", None),
        ("files", []),
        ("files", {"tif": "../secret.tif"}),
        ("files", {"tif": "/etc/passwd"}),
        ("files", {"tif": ".."}),
        ("files", {"tif": "a\0b"}),
        ("digests", {"tif": 3}),
        ("digests", []),
        ("relative", "a\0b"),
        ("series", 0),
        ("series", "1"),
        ("files", {"tif": ""}),
        ("files", {"tif": 3}),
        ("environment", "torch"),
        ("environment", {}),
        ("environment", {"engine": "torch", "number_format": None, "versions": {}}),
        ("environment", {"engine": "torch", "number_format": "float32", "versions": {"torch": 2}}),
    ],
)
def test_what_cannot_be_is_named(tmp_path, field, value):
    (tmp_path / "x.json").write_text(json.dumps({**GOOD, field: value}))
    with pytest.raises(InputError, match=rf"x\.json has no usable {field} in it"):
        read_record(tmp_path / "x.json")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(InputError, match=r"x\.json is not JSON"):
        read_record(tmp_path / "x.json")


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"x\.json cannot be read \(No such file"):
        read_record(tmp_path / "x.json")


def test_an_image_is_looked_for_near_its_record_then_where_it_was(tmp_path):
    record = PredictionRecord(str(tmp_path / "cells.tif"), 0, (0, 0), (3, 4), 1.0, None, 0, {}, relative="../near.tif")
    assert record.locate(tmp_path / "found") == tmp_path / "cells.tif"
    (tmp_path / "found").mkdir()
    (tmp_path / "near.tif").touch()
    assert record.locate(tmp_path / "found").resolve() == tmp_path / "near.tif"
    assert replace(record, relative="x" * 10_000).locate(tmp_path) == tmp_path / "cells.tif"
