"""Workers: threads that compute on one core each, or none beside the caller."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nucleate.training.parallel import Serial, Threads


def test_every_thread_has_one_core_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    with Threads() as threads:
        meet = threading.Barrier(threads.count)

        def look(_):
            meet.wait(10)  # so that each is on a thread of its own
            torch.ones(1 << 18).exp_()
            return threading.get_ident(), torch.get_num_threads()

        found = threads.map(look, range(threads.count))
        assert torch.get_num_threads() == before
    assert len({thread for thread, _ in found}) == threads.count == before
    assert {threads for _, threads in found} == {1}
    assert torch.get_num_threads() == before
    # Also for threads that others start later, which take the number that was set last.
    with ThreadPoolExecutor(1) as later:
        assert later.submit(lambda: (torch.ones(1 << 18).exp_(), torch.get_num_threads())[1]).result() == before


def test_results_come_in_order():
    def late(i):
        time.sleep(0.01 * (i % 3 == 0))
        return i

    with Threads() as threads:
        assert threads.map(late, range(12)) == list(range(12))


def test_an_error_reaches_the_caller():
    with Threads() as threads, pytest.raises(ZeroDivisionError):
        threads.map(lambda x: 1 / x, [1, 0, 2])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_a_sum_is_taken_in_order(parts):
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert Serial().sum(parts) == total
    tensors = [torch.tensor([part], dtype=torch.float64) for part in parts]
    assert Serial().sum(tensors).item() == total


def test_in_turn_stays_on_the_calling_thread_and_agrees_with_itself():
    with Serial() as serial:
        assert serial.map(lambda _: threading.get_ident(), range(3)) == [threading.get_ident()] * 3
        assert (serial.count,) == (1,)
