"""Two and three real processes, with ragged and empty ranks, against one process that holds every row."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

WORKER = Path(__file__).with_name("rank_worker.py")

needs_mpich = pytest.mark.skipif(
    sys.platform == "win32", reason="the package mpich, whose mpiexec starts the ranks, does not exist for Windows"
)


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rank_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(transport: str, world: int, folder: Path) -> list[subprocess.Popen[bytes]]:
    """So many ranks, each started by itself, or all by MPI."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    if transport == "gloo":
        commands = [[sys.executable, WORKER, folder, str(rank), str(world)] for rank in range(world)]
    else:
        beside = Path(sys.executable).with_name("mpiexec")
        launcher = beside if beside.exists() else shutil.which("mpiexec")
        assert launcher is not None, "mpiexec is missing: pip install mpich"
        # What Open MPI asks for where there are fewer cores than ranks, or the user is root; others do not know it.
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        environment["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
        commands = [[launcher, "-n", str(world), sys.executable, WORKER, folder]]
    return [subprocess.Popen(command, env=environment) for command in commands]


@pytest.mark.parametrize("transport", ["gloo", pytest.param("mpi", marks=needs_mpich)])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_give_the_loss_and_gradient_of_one_process(
    world: int, transport: str, worker: ModuleType, tmp_path: Path
) -> None:
    started = start(transport, world, tmp_path)
    assert [process.wait(timeout=120) for process in started] == [0] * len(started)
    one = worker.evaluate(0, 1, None)
    begin = 0
    for rank, rows in enumerate(worker.SPLITS[world]):
        with np.load(tmp_path / f"{rank}.npz", allow_pickle=False) as found:
            assert set(found.files) == set(one)
            for name, expected in one.items():
                whole = name.rsplit("/")[1] in ("value", "pair", "temperature") or name.startswith("accumulated")
                part = expected if whole else expected[begin : begin + rows]
                np.testing.assert_allclose(found[name], part, rtol=1e-9, atol=1e-12, err_msg=f"{name}, rank {rank}")
        begin += rows
