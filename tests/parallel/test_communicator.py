"""What every communicator promises, by MPI and by process groups of gloo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.parallel.rank_communicator import check
from tests.ranks import environment, mpirun, needs_mpi

from nucleate.parallel import SingleProcess, communicator_of

RANK = Path(__file__).with_name("rank_communicator.py")


@needs_mpi
@pytest.mark.parametrize("count", [1, 2, 3])
def test_ranks_of_mpi(count: int) -> None:
    done = mpirun(count, [RANK, "mpi"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_of_a_process_group(count: int, tmp_path: Path) -> None:
    begun = [
        subprocess.Popen(
            [sys.executable, RANK, "gloo", f"file://{tmp_path}/meet", str(rank), str(count)], env=environment()
        )
        for rank in range(count)
    ]
    assert [one.wait(timeout=120) for one in begun] == [0] * count


def test_a_single_process() -> None:
    check(SingleProcess())
    assert isinstance(communicator_of(None), SingleProcess)


def test_what_is_no_group_is_refused() -> None:
    with pytest.raises(TypeError, match="communicator of mpi4py"):
        communicator_of("a")  # type: ignore[arg-type]
