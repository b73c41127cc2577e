"""What is said of tiles is learnt from once, whenever the program ends."""

import time

import numpy as np
import pytest
import tifffile

from nucleate.errors import InputError
from nucleate.web.annotation.workplace import Workplace, numbered


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 60, (40, 50)).astype(np.uint16)
        pixels[5 : 15 + 5 * number, 5:20] += 900
        tifffile.imwrite(folder / f"cells {number}.tif", pixels)
    return folder


def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def works(takes):
    def opened(images, learner, **options):
        return Workplace(images, learner, takes, images.parent / "store", **options)

    return opened


def paint(work, tile, runs, name="stroke-0"):
    with work.sheet(tile) as sheet:
        sheet.apply(name, "brush", runs)


def test_a_finished_tile_is_recorded_and_learnt_from(images, works, stand_in):
    learner = stand_in()
    work = works(images, learner)
    place = work.next()
    paint(work, place.id, [0, 50, 0, 55, 4, 70_000, 105, 4, 131_072])
    assert work.finish(place.id)
    until(lambda: work.report()["corrections"] == 1)
    work.close()
    ((image, labels, name, window),) = learner.recorded
    whole = tifffile.imread(images / work.places.sources[place.image].name)
    np.testing.assert_array_equal(image.pixels[..., 0], whole)
    assert (labels[0] == 0).all() and (labels[1, 5:9] == 1).all() and (labels[2, 5:9] == 2).all()
    assert (labels == -1).sum() == 40 * 50 - 58
    assert window == pytest.approx(tuple(np.percentile(whole, [1, 99.8]))) and name.endswith("_y0_x0_r1")


def test_no_tile_comes_twice(images, works, stand_in):
    work = works(images, stand_in(), side=32)
    count = len(work.places)
    shown = []
    while (place := work.next()) is not None:
        shown.append(place.number)
        work.finish(place.id)
    work.close()
    assert sorted(shown) == list(range(count)) and count == 16
    assert work.report()["done"] == 0  # as nothing was said


def test_tiles_come_in_the_order_of_the_seed_or_by_entropy(images, works, stand_in):
    orders = []
    for seed in (0, 0, 1):
        work = works(images, stand_in(), order="random", seed=seed, side=25)
        orders.append([work.next().number for _ in range(len(work.places))])
        work.close()
    assert orders[0] == orders[1] != orders[2]
    work = works(images, learner := stand_in())
    until(lambda: learner.predicted == 4)
    work.close()
    means = {number: work._guesses.get(number).mean for number in range(4)}
    assert [work.next().number for _ in range(4)] == sorted(means, key=means.get, reverse=True)


def test_what_was_begun_comes_first_after_a_new_start(images, works, stand_in):
    work = works(images, stand_in())
    first, second = work.next(), work.next()
    paint(work, second.id, [0, 5, 1])
    work.close()
    again = works(images, stand_in())
    assert again.next() == second and again.next() != second
    with again.sheet(second.id) as sheet:
        assert (sheet.labels.reshape(-1)[:5] == 1).all()
    again.close()
    with pytest.raises(InputError, match="There is no such tile"):
        again.place("0" * 24)
    assert first.id != second.id


@pytest.mark.parametrize("ends", ["before recording", "after recording", "after learning"])
def test_a_tile_is_learnt_from_once_wherever_the_program_ends(images, ends, works, stand_in):
    learner = stand_in(fails=ends == "after recording")
    record = learner.record

    def stopped(*arguments):
        raise RuntimeError("killed")

    if ends == "before recording":
        learner.record = stopped
    work = works(images, learner)
    place = work.next()
    paint(work, place.id, [0, 5, 1])
    work.finish(place.id)
    paint(work, place.id, [5, 5, 2], "stroke-1")  # it is not a part of what was finished
    until(lambda: work.report()["problem"] or learner.learnt)
    work.close()
    learner.record, learner.fails = record, False
    for number in range(len(learner.learnt), len(learner.recorded)):
        learner.learn(number)  # as the learner does at its start
    again = works(images, learner)
    until(lambda: len(learner.learnt) == 1)
    again.close()
    assert len(learner.recorded) == len(learner.learnt) == 1
    assert set(np.unique(learner.recorded[0][1])) == {-1, 1}
    third = works(images, learner)
    assert third.report()["waiting"] == 0 and third.report()["done"] == 1
    third.close()


def test_a_tile_that_is_corrected_again_is_learnt_from_again(images, works, stand_in):
    learner = stand_in()
    work = works(images, learner)
    place = work.next()
    paint(work, place.id, [0, 5, 1])
    assert work.finish(place.id) and work.finish(place.id)
    paint(work, place.id, [5, 5, 2], "stroke-1")
    assert work.finish(place.id)
    until(lambda: len(learner.learnt) == 2)
    work.close()
    assert [labels.max() for _, labels, _, _ in learner.recorded] == [1, 2]


def test_a_suggestion_is_made_anew_once_the_model_has_learnt(images, works, stand_in):
    learner = stand_in()
    work = works(images, learner)
    place = work.next()
    until(lambda: work.guess(place.id) is not None)
    assert work.guess(place.id).version == 0
    paint(work, place.id, [0, 5, 1])
    work.finish(place.id)
    until(lambda: work.guess(place.id).version == 1)
    work.close()


def test_an_image_whose_channels_leave_a_choice_is_said(tmp_path, stand_in, takes):
    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "two.tif", np.zeros((2, 9, 9), np.uint8), imagej=True, metadata={"axes": "CYX"})
    work = Workplace(folder, stand_in(), takes, tmp_path / "store")
    place = work.next()

    def refused():
        try:
            return work.guess(place.id) and None
        except InputError as error:
            return str(error)

    until(refused)
    assert "--channel" in refused()
    work.close()
    work = Workplace(folder, stand_in(), takes, tmp_path / "store", channel="2")
    place = work.next()
    until(lambda: work.guess(place.id))
    work.close()


def test_records_of_other_images_are_left_alone(images, works, stand_in):
    work = works(images, stand_in())
    place = work.next()
    paint(work, place.id, [0, 5, 1])
    work.close()
    file = images.parent / "store" / f"{place.id}.jsonl"
    file.rename(file.with_name(f"{'0' * 24}.jsonl"))
    again = works(images, stand_in())
    assert "is of an image that is not in this folder" in again.notes[0] and again.report()["done"] == 0
    again.close()


def test_nuclei_are_numbered_from_one():
    labels = np.array([[-1, 0, 9, 65_537, 2**31 - 1, 9]], np.int32)
    assert numbered(labels).tolist() == [[-1, 0, 1, 2, 3, 1]] and numbered(labels).dtype == np.int32
