"""Whole commands below mpirun: what a person starts, and what is there afterwards."""

import json
import re
import signal
import subprocess
import sys

import pytest
from tests.ranks import environment, mpirun, needs_mpi, start

from nucleate.data.synthetic.microscopy import write_folder

pytestmark = needs_mpi
TRAIN = ["tests/small_nucleate.py", "train"]
EPOCHS = ["--epochs", "2", "--batch", "2"]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    write_folder(folder, "fluorescence", 4, seed=0, height=128, width=128, diameter=16)
    return folder


def told(model):
    """What a model's manifest tells of the run, without its times."""
    manifest = json.loads((model / "model.json").read_text())
    trainings = [{**part, "seconds": None} for part in manifest["trainings"]]
    return trainings, manifest["thresholds"], manifest["data"]


def test_training_writes_the_model_of_one_process(cells, tmp_path):
    alone = [sys.executable, *TRAIN, cells, "--out", tmp_path / "one", *EPOCHS]
    subprocess.run(alone, env=environment(), check=True, capture_output=True)
    done = mpirun(3, [*TRAIN, cells, "--out", tmp_path / "model", *EPOCHS])
    assert done.returncode == 0, done.stderr
    assert told(tmp_path / "model") == told(tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )
    assert done.stdout.count("step 12\n") == 1, "rank 0 alone speaks"
    assert done.stderr.count("] writing the model") == 1
    assert done.stderr.count("3 ranks share batches of 2 samples, so that only 2 of them work") == 1


def test_a_signal_to_mpirun_ends_a_run_that_can_be_resumed(cells, tmp_path):
    command = [*TRAIN, cells, "--out", tmp_path / "model", "--epochs", "200"]
    process = start(2, command)
    line = ""
    while not line.startswith("step 4"):
        line = process.stdout.readline()
        assert line, process.stderr.read()
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 138, said
    assert "Traceback" not in said
    again = mpirun(1, [*command[:-1], "3", "--resume"])
    assert again.returncode == 0, again.stderr
    first = re.search(r"step (\d+)", again.stdout)
    assert first is not None
    assert int(first[1]) > 4, "the steps before the signal are kept"


@pytest.mark.parametrize(("fault", "sentence"), [("1:memory", "memory"), ("0:mpi", "pip install 'nucleate[mpi]'")])
def test_what_one_rank_lacks_ends_all_with_one_sentence(fault, sentence, cells, tmp_path):
    done = mpirun(2, [*TRAIN, cells, "--out", tmp_path / "model"], more={"FAULT": fault})
    said = [line for line in done.stderr.splitlines() if line.startswith("nucleate: ")]
    assert done.returncode != 0
    assert len(said) == 1, done.stderr
    assert sentence in said[0]
    assert "Traceback" not in done.stderr
