"""The cache: what is kept, what is forgotten, and that nothing is made twice at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.io.cache import Cache


def reference(keys, limit, at_least, sizes):
    """Which requests had to be made, by the definition: a list, the last used at its end."""
    kept, made = [], []
    for key in keys:
        made.append(key not in kept)
        if key in kept:
            kept.remove(key)
        elif sizes[key] > limit:
            kept.clear()
        kept.append(key)
        while sum(sizes[one] for one in kept) > limit and len(kept) > at_least:
            del kept[0]
    return made


@given(
    keys=st.lists(st.integers(0, 5), max_size=30),
    limit=st.integers(0, 30),
    at_least=st.integers(0, 3),
    sizes=st.lists(st.integers(1, 12), min_size=6, max_size=6),
)
def test_the_values_used_last_are_kept_as_far_as_the_limit_goes(keys, limit, at_least, sizes):
    cache, made = Cache(limit, at_least), []
    for key in keys:
        calls = []

        def make(key=key, calls=calls):
            calls.append(key)
            return np.full(sizes[key], key, np.uint8)

        assert (cache.get(key, sizes[key], make) == key).all()
        made.append(bool(calls))
    assert made == reference(keys, limit, at_least, sizes)


def test_what_many_threads_ask_for_at_once_is_made_once():
    cache, calls, start = Cache(10**6), [], threading.Barrier(8)

    def make():
        calls.append(1)
        return np.arange(9)

    def ask(_):
        start.wait()
        return cache.get("a", 72, make)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(8)))
    assert len(calls) == 1 and all(one is found[0] for one in found)


def test_a_failure_is_told_to_all_who_wait_and_not_kept():
    cache, begun, go = Cache(100), threading.Event(), threading.Event()

    def fail():
        begun.set()
        go.wait()
        raise ValueError("broken")

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.get, "a", 1, fail)
        begun.wait()
        second = threads.submit(cache.get, "a", 1, fail)
        go.set()
        for one in (first, second):
            with pytest.raises(ValueError, match="broken"):
                one.result()
    assert cache.get("a", 1, lambda: np.zeros(1)).size == 1


def test_what_is_larger_than_the_limit_is_made_one_after_the_other():
    cache, inside, most = Cache(10), [], []

    def make():
        inside.append(1)
        most.append(len(inside))
        value = np.zeros(100, np.uint8)
        inside.pop()
        return value

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: cache.get(key, 100, make), range(40)))
    assert max(most) == 1


@pytest.mark.parametrize("limit", [1, 10**6])
def test_making_one_may_ask_for_another(limit):
    cache = Cache(limit)

    def below(level):
        return cache.get(level, 8, lambda: np.array([level]) + (below(level - 1) if level else 0))

    assert below(5).tolist() == [15]
