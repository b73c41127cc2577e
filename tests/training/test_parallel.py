"""Threads that compute on one core each."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from nucleate.training.parallel import Cores


def test_every_thread_has_one_core_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    with Cores() as cores:
        meet = threading.Barrier(cores.count)

        def look(_):
            meet.wait(10)  # so that each is on a thread of its own
            torch.ones(1 << 18).exp_()
            return threading.get_ident(), torch.get_num_threads()

        found = cores.map(look, range(cores.count))
        assert torch.get_num_threads() == before
    assert len({thread for thread, _ in found}) == cores.count == before
    assert {threads for _, threads in found} == {1}
    assert torch.get_num_threads() == before
    # Also for threads that others start later, which take the number that was set last.
    with ThreadPoolExecutor(1) as later:
        assert later.submit(lambda: (torch.ones(1 << 18).exp_(), torch.get_num_threads())[1]).result() == before


def test_results_come_in_order():
    def late(i):
        time.sleep(0.01 * (i % 3 == 0))
        return i

    with Cores() as cores:
        assert cores.map(late, range(12)) == list(range(12))


def test_an_error_reaches_the_caller():
    with Cores() as cores, pytest.raises(ZeroDivisionError):
        cores.map(lambda x: 1 / x, [1, 0, 2])
