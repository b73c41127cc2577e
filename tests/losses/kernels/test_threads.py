"""Blocks of work on torch's threads, on threads beside the main one, and after a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nucleate.losses.kernels import threads

Sums = NDArray[np.float64]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def add(begin: int, end: int, sums: Sums) -> None:
    sums += (end - begin, sum(range(begin, end)))


def test_every_block_is_worked_on_once() -> None:
    for blocks in (1, 2, 63, 64, 65, 1000):
        assert threads.over_blocks(blocks, 2, add).tolist() == [blocks, sum(range(blocks))]


def test_two_threads_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)

    def meet(begin: int, end: int, sums: Sums) -> None:
        both.wait()  # one thread alone would wait here for ever

    threads.over_blocks(2, 1, meet)


@pytest.mark.parametrize("where", ["main", "beside"])
def test_an_error_in_a_block_reaches_the_caller(where: str) -> None:
    seen: list[str] = []

    def fail(begin: int, end: int, sums: Sums) -> None:
        if begin == 7:
            raise ValueError("block 7")

    def run() -> None:
        with pytest.raises(ValueError, match="block 7"):
            threads.over_blocks(64, 1, fail)
        seen.append(where)

    if where == "main":
        run()
    else:
        other = threading.Thread(target=run)
        other.start()
        other.join()
    assert seen == [where]


def test_threads_beside_the_main_one_and_systems_without_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    assert threads.over_blocks(100, 2, add).tolist() == [100, 4950]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, which Windows does not have")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_works_on_threads_of_its_own() -> None:
    threads.over_blocks(64, 2, add)
    child = os.fork()
    if child == 0:
        os._exit(0 if threads.over_blocks(64, 2, add)[0] == 64 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
