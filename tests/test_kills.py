"""Commands that are killed or interrupted at any moment are resumed to the same bytes, and say nothing foreign."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.inference.test_predict import brightness_network, manifest
from tests.inference.test_slides import write_slide

from nucleate.networks import store

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "kills.py"


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
def test_runs_that_are_killed_or_interrupted_come_to_the_same_bytes(tmp_path):
    network = brightness_network()
    weights = store.encode_weights(network)
    store.write(tmp_path / "model", manifest(weights, network), weights, [])
    slide = write_slide(tmp_path / "slide.tif")
    counts = {"predict": 3, "train": 1, "signals": 1, "fresh": 1}
    options = [part for name, count in counts.items() for part in (f"--{name}", str(count))]
    command = [sys.executable, SCRIPT, *options, "--model", tmp_path / "model", "--slide", slide, "--side", "96"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["failures"] == 0
