"""How a process learns what started it; a launcher is told by the environment alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.ranks import environment, mpirun, needs_mpi

from nucleate.errors import NucleateError
from nucleate.parallel import SingleProcess, launch

NAMES = ("OMPI_", "PMI", "SLURM_", "OMP_NUM_THREADS", "MPI_LOCALNRANKS")
RANK = Path(__file__).with_name("rank_launch.py")


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith(NAMES)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(launch, "GRACE", 0.0)
    return monkeypatch


def given(variables: pytest.MonkeyPatch, text: str) -> None:
    for pair in text.split():
        variables.setenv(*pair.split("=", 1))


@pytest.mark.parametrize(
    ("text", "ours", "launcher", "expected"),
    [
        ("", 8, 8, None),
        ("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2", 8, 8, 4),
        ("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2", 1, 8, 1),
        ("PMI_RANK=0 MPI_LOCALNRANKS=16", 8, 8, 1),
        ("PMI_RANK=0 MPI_LOCALNRANKS=2 SLURM_CPUS_PER_TASK=3", 8, 8, 3),
        ("PMI_RANK=0 MPI_LOCALNRANKS=2 SLURM_CPUS_PER_TASK=3 OMP_NUM_THREADS=1", 8, 8, None),
    ],
)
def test_threads_of_a_rank(
    variables: pytest.MonkeyPatch, text: str, ours: int, launcher: int, expected: int | None
) -> None:
    given(variables, text)
    variables.setattr(launch, "_cores", lambda process=0: launcher if process else ours)
    assert launch.threads() == expected


@pytest.mark.parametrize(("ours", "said"), [(1, "may use 1 core, though 4"), (4, None), (8, None)])
def test_a_rank_bound_to_too_few_cores(variables: pytest.MonkeyPatch, ours: int, said: str | None) -> None:
    given(variables, "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2")
    variables.setattr(launch, "_cores", lambda process=0: 8 if process else ours)
    found = launch.too_tightly_bound()
    assert found is None if said is None else said in str(found)


def test_a_shell_inside_a_job_of_slurm_is_one_process(variables: pytest.MonkeyPatch) -> None:
    given(variables, "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_ID=7 SLURM_CPUS_PER_TASK=2")
    assert isinstance(launch.join(), SingleProcess)


class Other:
    """A rank that differs."""

    def __init__(self, facts: list[dict[str, str]]) -> None:
        self.facts = facts

    def all(self, value: dict[str, str]) -> list[dict[str, str]]:
        return [value, *({**one, "host": "node7"} for one in self.facts)]


def test_the_odd_rank_is_named_with_its_host() -> None:
    launch.require_same(Other([{"version": "1"}]), {"version": "1"})  # type: ignore[arg-type]
    with pytest.raises(NucleateError, match="rank 2 on node7 has other version"):
        launch.require_same(Other([{"version": "1"}, {"version": "2"}]), {"version": "1"})  # type: ignore[arg-type]


@needs_mpi
@pytest.mark.parametrize(
    "variable",
    ["SLURM_STEP_NUM_TASKS=4 SLURM_PROCID={}", "PMI_SIZE=4 PMI_RANK={}", "OMPI_COMM_WORLD_SIZE=4 PMIX_RANK={}"],
)
def test_single_ranks_are_refused_by_one_sentence(variable: str) -> None:
    import subprocess

    for rank in range(2):
        clean = {name: value for name, value in environment().items() if not name.startswith(NAMES)}
        clean |= dict(pair.split("=") for pair in variable.format(rank).split())
        if "PMIX" in variable:  # Open MPI itself would look for the server of such a rank
            clean["OMPI_COMM_WORLD_RANK"] = clean.pop("PMIX_RANK")
        done = subprocess.run(
            [sys.executable, "-m", "nucleate", "train", "nowhere", "--out", "model"],
            env=clean, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("4 ranks were started, but each of them is alone") == (rank == 0)


@needs_mpi
def test_ranks_that_differ_end_with_one_sentence() -> None:
    done = mpirun(2, [RANK])
    assert done.returncode != 0
    assert done.stderr.count("has other images than rank 0") == 1, done.stderr
