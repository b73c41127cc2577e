"""The tiles of a folder of images, what comes next, and the thread behind the page."""

import threading

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.errors import DatasetError, InputError
from nucleate.web.annotation.guesses import POOL, Guess, Guesses, checked
from nucleate.web.annotation.learner import entropy
from nucleate.web.annotation.places import Places
from nucleate.web.annotation.worker import Worker


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=3), st.integers(8, 40))
def test_tiles_cover_each_pixel_once_and_have_ids_of_their_own(tmp_path_factory, shapes, side):
    folder = tmp_path_factory.mktemp("images")
    for number, shape in enumerate(shapes):
        tifffile.imwrite(folder / f"{number}.tif", np.zeros(shape, np.uint8))
    places = Places(folder, side)
    covered = [np.zeros(shape, int) for shape in shapes]
    for number in range(len(places)):
        place = places[number]
        box = place.box
        assert place.number == number and 1 <= box.height <= side and 1 <= box.width <= side
        for length, whole in zip(box.shape, shapes[place.image], strict=True):
            assert length == whole or length >= side // 2
        covered[place.image][box.y : box.bottom, box.x : box.right] += 1
    assert all((one == 1).all() for one in covered)
    ids, again = [places[number].id for number in range(len(places))], Places(folder, side)
    assert len(set(ids)) == len(ids) and ids == [again[number].id for number in range(len(places))]
    assert sorted(places.shuffled(3)) == list(range(len(places)))
    assert places.shuffled(3) == places.shuffled(3)


def test_an_image_that_cannot_be_read_is_noted(tmp_path):
    tifffile.imwrite(tmp_path / "good.tif", np.zeros((9, 9), np.uint8))
    (tmp_path / "bad.tif").write_text("no")
    places = Places(tmp_path)
    assert len(places) == 1 and "bad.tif" in places.notes[0]
    (tmp_path / "good.tif").unlink()
    with pytest.raises(DatasetError, match=r"bad\.tif"):
        Places(tmp_path)


def test_each_image_of_a_file_with_several_is_one(tmp_path):
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as file:
        file.write(np.zeros((9, 9), np.uint8), metadata={"axes": "YX"})
        file.write(np.ones((7, 8), np.uint8), metadata={"axes": "YX"})
    places = Places(tmp_path)
    assert [source.name for source in places.sources] == ["two.ome.tif (1)", "two.ome.tif (2)"]
    assert [places[number].box.shape for number in (0, 1)] == [(9, 9), (7, 8)]


def guesses(means, order="entropy", failing=()):
    """Those of tiles of these mean entropies; what was predicted is listed."""
    asked = []

    def predict(number):
        asked.append(number)
        if number in failing:
            raise InputError("no")
        return Guess(np.zeros((2, 2), np.int32), np.full((2, 2), means[number], np.float32), len(asked))

    return Guesses(range(len(means)), order, predict), asked


def test_the_tile_of_the_highest_entropy_comes_next():
    known, asked = guesses([0.1, 0.9, 0.5, 0.9])
    assert known.best(set()) == 0  # as nothing is known of any
    for _ in range(4):
        known.make(known.oldest(set(), 1))
    assert sorted(asked) == [0, 1, 2, 3] and known.oldest(set(), 1) is None
    assert (
        known.best(set()) == 1
        and known.best({1}) == 3
        and known.best({1, 3}) == 2
        and known.best(set(range(4))) is None
    )
    assert known.oldest(set(), 9) == 0 and known.oldest({0}, 9) == 1


def test_random_takes_the_order_of_the_seed():
    known, _ = guesses([0.1, 0.9, 0.5], "random")
    for number in (0, 1, 2):
        known.make(number)
    assert [known.best(set()), known.best({0}), known.best({0, 1})] == [0, 1, 2]
    with pytest.raises(InputError, match="--order is best: give entropy or random"):
        checked("best")


def test_only_a_pool_is_looked_at_and_what_fails_is_left_out():
    known, asked = guesses([0.5] * (POOL + 10), failing={2})
    while (number := known.oldest({0}, 1)) is not None:
        try:
            known.make(number)
        except InputError:
            assert number == 2
    assert sorted(asked) == list(range(1, POOL + 2)) and known.failed(2) == "no"
    assert known.best({0}) != 2 and known.best(set(range(42)) - {2}) == 2


def test_entropy_is_that_of_two_outcomes():
    p = np.linspace(0, 1, 101, dtype=np.float32)[None]
    bits = entropy(p)
    with np.errstate(all="ignore"):
        twin = np.nan_to_num(-p * np.log2(p) - (1 - p) * np.log2(1 - p))
    np.testing.assert_allclose(bits, twin, atol=1e-6)
    assert bits.max() == 1 and (entropy(np.array([[-0.1, 1.1]], np.float32)) == 0).all()


def test_the_worker_does_one_thing_after_the_other_and_goes_on_after_an_error():
    begun, go, done = threading.Event(), threading.Event(), []
    worker = Worker()
    worker.start()
    worker.do("first", lambda: (begun.set(), go.wait(), done.append("first")))
    begun.wait()

    def fail():
        raise RuntimeError("it failed")

    worker.do("failing", fail)
    worker.do("second", lambda: done.append("second"))
    worker.do("second", lambda: done.append("again"))
    assert worker.waiting() == ["failing", "second"] and worker.doing == "first"
    ended = threading.Event()
    worker.do("last", ended.set)
    go.set()
    assert ended.wait(20)
    worker.close()
    assert done == ["first", "second"] and worker.doing is None


def test_the_worker_looks_again_when_it_is_woken():
    looked, often = threading.Semaphore(0), []

    def idle():
        often.append(1)
        looked.release()
        return len(often) < 3

    worker = Worker(idle)
    worker.start()
    for _ in range(3):
        assert looked.acquire(timeout=20)
    worker.wake()
    assert looked.acquire(timeout=20)
    worker.close()
    assert len(often) == 4


def test_an_error_is_said_until_something_succeeds():
    worker, done = Worker(), threading.Event()
    worker.start()

    def fail():
        raise RuntimeError("it failed")

    worker.do("failing", fail)
    worker.do("next", lambda: done.set() if worker.problem == "it failed" else None)
    assert done.wait(20)
    worker.close()
    assert worker.problem is None
