"""Two and three real processes, with ragged and empty ranks, against one process that holds every row."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.losses import rank_worker
from tests.ranks import environment, mpirun, needs_mpi

from nucleate import losses

WORKER = Path(__file__).with_name("rank_worker.py")
CLOSE = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
"""Of each number and of the largest beside it: the last digits of the type in which a gradient is handed over."""


@pytest.fixture(scope="module")
def one_process() -> dict[str, Any]:
    found: dict[str, Any] = rank_worker.evaluate(0, 1, None)
    return found


def run(transport: str, world: int, folder: Path) -> None:
    """So many ranks to their end, each started by itself, or all by MPI."""
    if transport == "mpi":
        done = mpirun(world, ["-m", "mpi4py", WORKER, folder])  # an error on one rank ends all
        assert done.returncode == 0, done.stderr
        return
    commands = [[sys.executable, WORKER, folder, str(rank), str(world)] for rank in range(world)]
    started = [subprocess.Popen(command, env=environment()) for command in commands]
    assert [process.wait(timeout=240) for process in started] == [0] * world


def test_every_loss_takes_a_group_and_is_tried() -> None:
    assert all("group" in inspect.signature(entry.function).parameters for entry in losses.catalogue())
    assert {case.loss for case in rank_worker.CASES.values()} == {entry.name for entry in losses.catalogue()}


@pytest.mark.parametrize(("transport", "world"), [("gloo", 2), pytest.param("mpi", 3, marks=needs_mpi)])
def test_ranks_give_the_loss_and_the_derivatives_of_one_process(
    world: int, transport: str, one_process: dict[str, Any], tmp_path: Path
) -> None:
    run(transport, world, tmp_path)
    every = []
    for rank in range(world):
        with np.load(tmp_path / f"{rank}.npz", allow_pickle=False) as found:
            every.append(dict(found))
    for name, expected in one_process.items():
        close, kind = CLOSE[name.split("/")[0]], name.split("/")[-1]
        of_ranks = [found[name] for found in every]
        if kind == "rows":
            of_ranks = [np.concatenate(of_ranks)]
        elif kind == "shared":
            of_ranks = [np.sum(of_ranks, 0)]
        absolute = close * max(1e-3, np.abs(expected).max(initial=0))
        for found in of_ranks:
            np.testing.assert_allclose(found, expected, rtol=close, atol=absolute, err_msg=name)


PAGE = Path(__file__).parents[2] / "docs" / "losses-in-parallel.md"


@needs_mpi
def test_the_script_of_the_page_prints_the_losses_of_one_process(tmp_path: Path) -> None:
    (script,) = re.findall(r"^```python\n(import torch\nfrom mpi4py.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    printed = []
    for count in (1, 2, 3):
        done = mpirun(count, ["-m", "mpi4py", tmp_path / "train.py"])
        assert done.returncode == 0, done.stderr
        printed.append([float(number) for number in re.findall(r"epoch \d: (\S+)", done.stdout)])
    assert len(printed[0]) == 3
    assert printed[0] == sorted(set(printed[0]), reverse=True)  # it learns
    assert printed[1] == pytest.approx(printed[0], abs=2e-5)
    assert printed[2] == pytest.approx(printed[0], abs=2e-5)
