"""Anyone's training history: what is understood, and how the rest is refused."""

import json
from math import inf, isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.curves.history import History, read
from nucleate.errors import InputError

numbers = st.floats(allow_nan=False)


@pytest.fixture
def file(tmp_path):
    def write(text, name="run.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@given(rows=st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=8), first=st.integers(0, 1))
def test_csv_and_json_lines_say_the_same_exactly(tmp_path_factory, rows, first):
    folder = tmp_path_factory.mktemp("runs")
    head = ("epoch", "train", "valid", "test", "score")
    table = [dict(zip(head, (epoch, *row), strict=True)) for epoch, row in enumerate(rows, start=first)]
    (folder / "run.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    lines = [",".join(head), *(",".join(repr(value) for value in row.values()) for row in table)]
    (folder / "run.csv").write_text("\n".join(lines))
    found = read(folder / "run.jsonl")
    train, valid, test, score = zip(*rows, strict=True)
    assert found == History("run.jsonl", train, valid, test, score, first)
    other = read(folder / "run.csv")
    assert (other.train, other.valid, other.test, other.score, other.first) == (train, valid, test, score, first)


@pytest.mark.parametrize(
    ("text", "train", "valid"),
    [
        ("epoch,loss,acc,val_loss\r\n0,3,x,4\r\n1,2,y,5\r\n", (3, 2), (4, 5)),
        ("train;valid\n1;2\n\n3;4\n", (1, 3), (2, 4)),
        ("\ufefftrain_loss\tvalid_loss\n1\t2\n", (1,), (2,)),
        (' train , valid \n"1",2e0\n', (1,), (2,)),
        ('{"train_loss": 1, "valid_loss": 2.5}\n\n{"valid_loss": 3, "train_loss": 0, "more": []}\n', (1, 0), (2.5, 3)),
        ("train,valid\n1,inf\n", (1,), (inf,)),
    ],
)
def test_what_is_written_elsewhere_is_understood(file, text, train, valid):
    found = read(file(text))
    assert (found.train, found.valid, found.test, found.score) == (train, valid, (), ())


def test_what_is_not_a_number_in_json_is_read_as_such(file):
    found = read(file('{"train": NaN, "valid": null}'))
    assert isnan(found.train[0]) and isnan(found.valid[0])


def test_a_model_folder_stands_for_its_history(file, tmp_path):
    path = file('{"epoch": 1, "train_loss": 1, "valid_loss": 2, "score": 0.5}', "history.jsonl")
    assert read(tmp_path) == History(tmp_path.name, (1,), (2,), (), (0.5,))
    assert read(path).name == "history.jsonl"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["holds no epoch"]),
        ("train,valid\n", ["holds no epoch"]),
        ("epoch,train\n1,2\n", ["no column valid", "valid_loss", "epoch, train", "name the one"]),
        ("epoch,valid\n1,2\n", ["no column train"]),
        ("train,valid\n1,2\n1,two\n", ["line 3", "valid", "'two'", "write a number"]),
        ("train,valid\n1,2\n,3\n", ["line 3", "train", "''"]),
        ("train,valid\n1,2\n1,2,3\n", ["line 3", "3 values below 2 names"]),
        ("epoch,train,valid\n1,2,3\n3,2,3\n", ["line 3", "epoch 3 follows epoch 1"]),
        ("epoch,train,valid\n1,2,3\nx,2,3\n", ["line 3", "epoch is 'x'"]),
        ("epoch,train,valid\n7,2,3\n", ["line 2", "first epoch is 7"]),
        ("epoch,train,valid\nnan,2,3\n", ["line 2", "first epoch is nan"]),
        ('{"train": 1, "valid": 2}\n{"train": 1, "valid"', ["line 2", "is not JSON"]),
        ('{"train": 1, "valid": 2}\n[1, 2]\n', ["line 2", "not an object"]),
        ('{"train": 1, "valid": 2}\n{"train": 1}\n', ["line 2", "valid", "write a number"]),
        ('{"train": 1, "valid": 1%s}\n' % ("0" * 400), ["line 1", "valid", "write a number"]),
        ('{"train": 1, "valid": [2]}\n', ["line 1", "'[2]'"]),
        ('{"train": true, "valid": 2}\n', ["line 1", "'true'"]),
        ("train,valid\n1,%s\n" % ("2" * 131_073), ["line 2", "field larger than field limit", "no table of numbers"]),
        ('train,valid\n1,"%s' % ("22\n" * 70_000), ["field larger than field limit"]),
        ("[" * 9 + "\n" + "[" * 100_000 + "\n", ["no column train"]),
        ('{"train":' * 100_000, ["line 1", "is not JSON"]),
        ('{"train": 1, "%s": 2}' % ("x" * 500), ["no column valid", "..."]),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", ["is no text"]),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(file, text, words):
    path = file(text)
    with pytest.raises(InputError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message
    for word in words:
        assert word in message


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv cannot be read"):
        read(tmp_path / "gone.csv")
    with pytest.raises(InputError, match=r"history\.jsonl cannot be read"):
        read(tmp_path)
