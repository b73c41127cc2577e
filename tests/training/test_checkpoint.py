"""The state of an unfinished run: what is read is what was written, or an error that names the file."""

import json

import pytest
import torch
from safetensors.torch import save

from nucleate.errors import ModelError
from nucleate.training.checkpoint import FILE, FORMAT, Checkpoint, TrainingState, checksum

TENSORS = {
    "network/stem.weight": torch.randn(4, 1, 3, 3),
    "optimiser.0/step": torch.tensor(17.0),
    "best/head": torch.randn(2, 5).bfloat16(),
    "counts": torch.arange(7),
    "empty": torch.zeros(0, 3),
}
ROW = {"epoch": 1, "train_loss": 1e-9, "valid_loss": float("inf"), "score": 0.5, "seconds": 1.0}
STATE = TrainingState(step=17, seconds=0.1 + 0.2, history=[ROW])
IDENTITY = {"seed": 3, "widths": (8, 8), "images": [[4, 5]]}


@pytest.fixture
def written(tmp_path):
    Checkpoint(tmp_path).write(TENSORS, STATE, IDENTITY)
    return tmp_path / FILE


def test_round_trip(written):
    tensors, state = Checkpoint(written.parent).read(IDENTITY)
    assert state == STATE
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name], tensor)


def test_any_layout_in_memory_is_written_as_the_same_values(tmp_path):
    image = torch.randn(2, 3, 4, 5)
    made = {
        "last": image.contiguous(memory_format=torch.channels_last),
        "part": image[:, 1:, ::2],
        "learnt": torch.nn.Parameter(image),
    }
    Checkpoint(tmp_path).write(made, STATE, IDENTITY)
    tensors, _ = Checkpoint(tmp_path).read(IDENTITY)
    assert all(torch.equal(tensors[name], value) for name, value in made.items())


def test_the_order_in_memory_is_kept(tmp_path):
    # The fused optimiser pairs weights and moments by their place in memory.
    image = torch.randn(2, 3, 4, 5)
    made = {"rows": image, "last": image.contiguous(memory_format=torch.channels_last)}
    Checkpoint(tmp_path).write(made, STATE, IDENTITY)
    tensors, _ = Checkpoint(tmp_path).read(IDENTITY)
    assert all(tensors[name].stride() == value.stride() for name, value in made.items())


def test_the_later_state_replaces_the_earlier_and_nothing_else_is_left(written):
    Checkpoint(written.parent).write({"a": torch.ones(1)}, TrainingState(step=2), IDENTITY)
    tensors, state = Checkpoint(written.parent).read(IDENTITY)
    assert list(tensors) == ["a"] and state == TrainingState(step=2)
    assert [path.name for path in written.parent.iterdir()] == [FILE]


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 40, 0.5, 0.99, -1])
def test_a_cut_file_is_named(written, keep):
    content = written.read_bytes()
    written.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(ModelError, match=FILE):
        Checkpoint(written.parent).read(IDENTITY)


def test_any_altered_byte_is_noticed(written):
    content = written.read_bytes()
    for place in [*range(0, len(content), 23), len(content) - 1]:
        altered = bytearray(content)
        altered[place] ^= 1
        written.write_bytes(altered)
        try:
            tensors, state = Checkpoint(written.parent).read(IDENTITY)
        except ModelError as error:
            assert FILE in str(error)
        else:
            # A blank of the header may change and mean the same.
            assert content[place : place + 1] == b" "
            assert state == STATE and all(torch.equal(tensors[name], value) for name, value in TENSORS.items())


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 100, b"\xff" * 100, b"PK\x03\x04"])
def test_another_file_is_named(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ModelError, match=FILE):
        Checkpoint(tmp_path).read(IDENTITY)


def test_no_checkpoint(tmp_path):
    with pytest.raises(ModelError, match="--resume"):
        Checkpoint(tmp_path).read(IDENTITY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 4}, r"another choice of seed \(3 then, 4 now\): "),
        ({"images": [[4, 5], [4, 5]], "seed": 4}, r"seed \(3 then, 4 now\), images: "),
        ({"more": 1}, "another choice of more"),
    ],
)
def test_another_run_is_refused_and_told_apart(written, change, words):
    with pytest.raises(ModelError, match=words):
        Checkpoint(written.parent).read(IDENTITY | change)


def test_an_unfinished_run_of_another_version_is_refused(written, monkeypatch):
    for other in (FORMAT - 1, FORMAT + 1):
        monkeypatch.setattr("nucleate.training.checkpoint.FORMAT", other)
        with pytest.raises(ModelError, match="another version of Nucleate"):
            Checkpoint(written.parent).read(IDENTITY)


def forged(folder, **state):
    """A file with this state whose checksum is right."""
    made = TrainingState(**state)
    Checkpoint(folder).write(TENSORS, made, IDENTITY)
    return Checkpoint(folder)


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"step": -1}, "step"),
        ({"step": "many"}, "step"),
        ({"step": 10**30}, "step"),
        ({"seconds": float("inf")}, "seconds"),
        ({"cool_start": [3]}, "cool_start"),
        ({"why": 5}, "why"),
        ({"history": 5}, "history"),
        ({"history": [5]}, "history.0"),
        ({"history": [{**ROW, "score": "good"}]}, "history.0"),
        ({"history": [{"epoch": 1}]}, "history.0 .*train_loss is no number"),
    ],
)
def test_a_state_of_other_types_is_refused_in_a_sentence(tmp_path, state, where):
    with pytest.raises(ModelError, match=rf"is damaged \({where}.*train without --resume\.$") as error:
        forged(tmp_path, **state).read(IDENTITY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", [5, [], {}, {"format": FORMAT}, {"format": FORMAT, "identity": [], "state": {}}])
def test_a_header_of_another_kind_is_refused_in_a_sentence(tmp_path, header):
    text = json.dumps(header)
    metadata = {"run": text, "sha256": checksum(TENSORS, text)}
    (tmp_path / FILE).write_bytes(save(TENSORS, metadata))
    with pytest.raises(ModelError, match=r"training\.safetensors.*train without --resume\.$"):
        Checkpoint(tmp_path).read(IDENTITY)
    (tmp_path / FILE).write_bytes(save(TENSORS))
    with pytest.raises(ModelError, match=r"training\.safetensors is damaged"):
        Checkpoint(tmp_path).read(IDENTITY)
