"""Training by several ranks: that of one process, whatever happens to some of them."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.ranks import mpirun, needs_mpi, open_mpi

pytestmark = needs_mpi
RANK = "tests/training/rank_train.py"
ULFM = ["--with-ft", "ulfm"]
needs_ulfm = pytest.mark.skipif(not open_mpi(), reason="only Open MPI goes on when a rank ended")


def train(count, out, *options, mpi=()):
    done = mpirun(count, [RANK, out, *map(str, options)], options=mpi)
    return done, {path.stem: load_file(path) for path in sorted(out.glob("?.safetensors"))}


def history(out, rank=0):
    return json.loads((out / f"{rank}.json").read_text())


def far(one, other):
    """The distance of all weights from the other ones, as a part of their length."""
    one, other = (torch.cat([tensor.flatten() for tensor in weights.values()]) for weights in (one, other))
    return ((one - other).norm() / other.norm()).item()


def losses(out, rank=0):
    return [[row["train_loss"], row["valid_loss"]] for row in history(out, rank)]


def test_weights_and_losses_are_those_of_one_process(tmp_path):
    count, options = 4, ["--epochs", 5, "--samples", 60, "--batch", 6, "--warm-up", 50]  # 50 steps, uneven shares
    done, alone = train(1, tmp_path / "one", *options)
    assert done.returncode == 0, done.stderr
    weights, expected = alone["0"], losses(tmp_path / "one")
    done, found = train(count, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    for rank in range(count):
        assert all(torch.equal(found[str(rank)][name], found["0"][name]) for name in weights), "all ranks agree"
        assert losses(tmp_path / "out", rank) == losses(tmp_path / "out")
    # Nearly always below 1e-6; where rounding turns a step of AdamW, whose first ones know the sign alone, 3e-5.
    assert far(found["0"], weights) < 1e-4
    for row, wanted in zip(losses(tmp_path / "out"), expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The folder and the weights of one process, by default options."""
    out = tmp_path_factory.mktemp("one") / "out"
    done, found = train(1, out)
    assert done.returncode == 0, done.stderr
    return out, found["0"]


def test_the_same_run_twice_is_the_same_bit_for_bit_and_bfloat16_within_its_rounding(one, tmp_path):
    (_, first), (_, other) = (train(2, tmp_path / name, "--bfloat16") for name in "ab")
    assert all(torch.equal(first["0"][name], other["0"][name]) for name in other["0"])
    a, b = history(tmp_path / "a"), history(tmp_path / "b")
    assert [{**row, "seconds": 0} for row in a] == [{**row, "seconds": 0} for row in b]
    assert 0 < far(first["0"], one[1]) < 2e-2  # bfloat16 keeps 8 bits: 4e-3 a product


def test_more_ranks_than_samples_and_one_that_is_late(tmp_path):
    done, found = train(3, tmp_path / "out", "--batch", 2, "--samples", 4, "--pause", 1)
    assert done.returncode == 0 and len(found) == 3, done.stderr
    _, one = train(1, tmp_path / "one", "--batch", 2, "--samples", 4)
    assert far(found["0"], one["0"]) < 1e-5


@needs_ulfm
@pytest.mark.parametrize("killed", [[(0, 1), (2, 4)]], ids=lambda killed: f"{killed}")
def test_with_ulfm_the_others_go_on(killed, one, tmp_path):
    options = [value for rank, step in killed for value in ("--kill", rank, step)]
    done, found = train(3, tmp_path / "out", *options, mpi=ULFM)
    dead = {str(rank) for rank, _ in killed}
    assert found.keys() == {"0", "1", "2"} - dead, done.stderr
    for rank, weights in found.items():
        assert far(weights, one[1]) < 1e-4
        assert losses(tmp_path / "out", rank) == [pytest.approx(row, rel=1e-5) for row in losses(one[0])]
    assert "going on with" in done.stderr


def test_without_it_all_end_and_another_number_of_ranks_resumes(one, tmp_path):
    out = tmp_path / "out"
    done, found = train(3, out, "--kill", 1, 5, "--checkpoint")
    assert done.returncode != 0 and not found
    again, found = train(2, out, "--checkpoint", "--resume")
    assert again.returncode == 0, again.stderr
    assert "step 2" not in again.stdout.splitlines(), "resumed after the first epochs"
    assert far(found["0"], one[1]) < 1e-4
