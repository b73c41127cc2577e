"""The same command gives the same bytes: in every process, however busy the machine is."""

import subprocess
import sys
from collections import Counter

import pytest

from nucleate.data.synthetic import write_folder

PROCESSES = 4

SCRIPT = """
import hashlib, os, sys
from pathlib import Path
import torch
import nucleate, nucleate.training.fit
from nucleate.training.config import TrainingConfig

here = Path(sys.argv[1])

def digest(content):
    return hashlib.sha256(content).hexdigest()

def work(number, threads):
    torch.set_num_threads(threads)
    result = nucleate.load("fluorescence").segment(here / "cells/images/fluorescence_3_0.png", entropy=True)
    predicted = digest(result.labels.tobytes() + result.table.tobytes() + result.entropy.tobytes())
    config, out = TrainingConfig(seed=0, epochs=1, samples=8, widths=(8, 16)), here / f"model-{number}"
    manifest = nucleate.train(here / "cells", out, config=config).manifest
    chosen = f"{manifest.thresholds} {manifest.engines} {manifest.scores}"
    trained = digest((out / "weights.safetensors").read_bytes() + chosen.encode())
    (here / f"{number}.txt").write_text(f"{threads} {predicted} {trained}")

# Nothing is computed before the fork: each process begins where a new one is once it has imported what it needs.
for first in range(0, int(sys.argv[2]), 2):
    running = []
    for number, threads in ((first, 1), (first + 1, 2)):
        process = os.fork()
        if process == 0:
            work(number, threads)
            os._exit(0)
        running.append(process)
    assert all(os.waitpid(process, 0)[1] == 0 for process in running)
"""


@pytest.fixture
def load():
    """Busy loops beside the processes, as many as the smallest machine has cores."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
def test_prediction_and_training_give_one_result_in_busy_processes(tmp_path, load):
    write_folder(tmp_path / "cells", "fluorescence", 2, 3, height=96, width=128)
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), str(PROCESSES)], check=True)
    found = [(tmp_path / f"{number}.txt").read_text().split() for number in range(PROCESSES)]
    assert len({predicted for _, predicted, _ in found}) == 1, "prediction, whatever the threads"
    # The batch is divided among the threads, and sums are rounded differently: see docs/how-to/reproducibility.md.
    trained = Counter((threads, weights) for threads, _, weights in found)
    assert sorted(trained.values()) == [PROCESSES // 2] * 2, trained
