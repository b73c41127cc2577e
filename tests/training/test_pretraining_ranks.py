"""Pre-training by several ranks: negatives come from every rank, so it is that of one process."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.ranks import mpirun, needs_mpi

pytestmark = needs_mpi
RANK = "tests/training/rank_pretrain.py"


def run(count, out, batch):
    done = mpirun(count, [RANK, out, "--batch", str(batch)])
    assert done.returncode == 0, done.stderr
    weights = [load_file(out / f"{rank}.safetensors") for rank in range(count)]
    histories = [json.loads((out / f"{rank}.json").read_text()) for rank in range(count)]
    return weights, [[{**row, "seconds": 0} for row in rows] for rows in histories]


def test_weights_and_losses_are_those_of_one_process(tmp_path):
    count, batch = 3, 4  # one rank has two pairs
    one = run(1, tmp_path / "one", batch)
    weights, histories = run(count, tmp_path / "out", batch)
    for rank in range(count):
        assert all(torch.equal(weights[rank][name], tensor) for name, tensor in weights[0].items()), "all ranks agree"
        assert histories[rank] == histories[0]
    found, wanted = (torch.cat([tensor.flatten() for tensor in part.values()]) for part in (weights[0], one[0][0]))
    assert (found - wanted).norm() / wanted.norm() < 1e-4
    for row, expected in zip(histories[0], one[1][0], strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
