"""Two and three real processes, with ragged and empty ranks, against one process that holds every row."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tests.ranks import environment, mpirun, needs_mpi

from nucleate import losses

WORKER = Path(__file__).with_name("rank_worker.py")


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rank_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(transport: str, world: int, folder: Path) -> None:
    """So many ranks, each started by itself, or all by MPI."""
    if transport == "mpi":
        done = mpirun(world, [WORKER, folder])
        assert done.returncode == 0, done.stderr
        return
    commands = [[sys.executable, WORKER, folder, str(rank), str(world)] for rank in range(world)]
    started = [subprocess.Popen(command, env=environment()) for command in commands]
    assert [process.wait(timeout=240) for process in started] == [0] * world


def test_every_loss_that_takes_a_group_is_among_them(worker: ModuleType) -> None:
    tried = {loss for loss, *_ in worker.all_cases().values()} | {"mutual_information"}
    takes = {one.name for one in losses.catalogue() if "group" in inspect.signature(one.function).parameters}
    assert takes - tried == set()


@pytest.mark.parametrize("transport", ["gloo", pytest.param("mpi", marks=needs_mpi)])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_give_the_loss_and_gradient_of_one_process(
    world: int, transport: str, worker: ModuleType, tmp_path: Path
) -> None:
    run(transport, world, tmp_path)
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
