"""`benchmarks/online.py kills`: a model that learns on-line is killed at random moments and loses nothing."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "online.py"


def test_killed_learners_lose_nothing():
    command = [sys.executable, SCRIPT, "kills", "--kills", "5", "--corrections", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == 5 and found["failures"] == []
