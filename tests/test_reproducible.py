"""The same command gives the same bytes: in every process, however busy the machine is."""

import subprocess
import sys
from collections import Counter

import pytest

PROCESSES = 10

SCRIPT = """
import hashlib, sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[1]))
import nucleate
from nucleate.training.config import TrainingConfig

here, out = Path(sys.argv[2]), Path(sys.argv[3])
def digest(content):
    return hashlib.sha256(content).hexdigest()
result = nucleate.load("fluorescence").segment(here / "cells" / "images" / "fluorescence_3_0.png", entropy=True)
found = [digest(result.labels.tobytes() + result.table.tobytes() + result.entropy.tobytes())]
config = TrainingConfig(seed=0, epochs=1, samples=8, widths=(8, 16))
manifest = nucleate.train(here / "cells", out, config=config).manifest
chosen = f"{manifest.thresholds} {manifest.engines} {manifest.scores}"
found.append(digest((out / "weights.safetensors").read_bytes() + chosen.encode()))
print(*found)
"""


@pytest.fixture
def load():
    """A busy loop beside the test for each of two cores."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


def test_prediction_and_training_give_one_result_in_ten_busy_processes(tmp_path, load):
    from nucleate.data.synthetic import write_folder

    write_folder(tmp_path / "cells", "fluorescence", 2, 3, height=96, width=128)
    found = []
    for first in range(0, PROCESSES, 2):  # one with one thread beside one with two
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(threads), str(tmp_path), str(tmp_path / f"model-{first}-{threads}")],
                stdout=subprocess.PIPE,
                text=True,
            )
            for threads in (1, 2)
        ]
        found += [(threads, *one.communicate()[0].split()) for threads, one in zip((1, 2), pair, strict=True)]
    assert all(len(one) == 3 for one in found), found
    assert len({predicted for _, predicted, _ in found}) == 1, "prediction, whatever the threads"
    # The batch is divided among the threads: see docs/how-to/reproducibility.md.
    trained = Counter((threads, weights) for threads, _, weights in found)
    assert sorted(trained.values()) == [PROCESSES // 2] * 2, trained
