"""The job files for Slurm: bash understands them, and the program what they call."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from nucleate.cli import app

JOBS = sorted((Path(__file__).parents[1] / "examples" / "slurm").glob("*.sbatch"))
COMMANDS = typer.main.get_command(app).commands


def test_the_jobs_are_found():
    assert [job.stem for job in JOBS] == ["predict_array", "train", "train_until_done"]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_job_is_understood(job):
    text = job.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", job], check=True)
    called = re.findall(
        r"\bnucleate ((?:train|predict) .*?)&?$", text.replace("${resume[@]}", "--resume"), re.MULTILINE
    )
    assert called
    for line in called:
        name, *arguments = shlex.split(line)
        COMMANDS[name].make_context(name, arguments)
