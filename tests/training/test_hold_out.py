"""What is held out: every labelled pixel is on one side, and a fifth of the nuclei to be judged on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleate.data.synthetic.microscopy import fluorescence
from nucleate.training.hold_out import ENOUGH, FEWEST, hold_out

LABELS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14), elements=st.integers(-2, 5)
)


def pair_of(labels):
    return np.zeros((1, *labels.shape), np.float32), np.ascontiguousarray(labels, np.int32)


def drawn(count, height=64, width=64, seed=0):
    return [pair_of(fluorescence((seed, i), height, width, diameter=14)[1]) for i in range(count)]


def row(*columns, width=40, height=20):
    """One image with a nucleus of 3 x 3 pixels at each of these columns."""
    labels = np.zeros((height, width), np.int32)
    for number, column in enumerate(columns, start=1):
        labels[8:11, column : column + 3] = number
    return pair_of(labels)


def same(pairs, others):
    """Whether these are the same images, each with all of its labels."""
    return len(pairs) == len(others) and all(
        one[0] is other[0] and np.array_equal(one[1], other[1]) for one, other in zip(pairs, others, strict=True)
    )


def nuclei(pairs):
    return sum(np.unique(labels[labels > 0]).size for _, labels in pairs)


def side(pairs, image):
    """The labels of an image on one side; all unknown where it is not there."""
    return next((labels for other, labels in pairs if other is image), np.full(image.shape[1:], -1, np.int32))


def check_sides(pairs):
    """Each labelled pixel is on one side and no nucleus on both; returns how many nuclei are held out."""
    training, validation, rule = hold_out(pairs)
    assert training and len(training) <= len(pairs)
    if not validation:
        assert "no score" in rule and same(training, pairs)
        return 0
    for image, labels in pairs:
        kept, held = side(training, image), side(validation, image)
        known = labels >= 0
        np.testing.assert_array_equal((kept >= 0) ^ (held >= 0), known)
        np.testing.assert_array_equal(np.where(kept >= 0, kept, held)[known], labels[known])
        assert not set(kept[kept > 0]) & set(held[held > 0])
    total, held = nuclei(pairs), nuclei(validation)
    assert nuclei(training) + held == total and 0 < held < total
    assert rule.startswith(f"{held} of {total} nuclei ")
    return held


@settings(deadline=None, max_examples=200)
@given(images=st.lists(LABELS, min_size=1, max_size=14))
def test_each_labelled_pixel_is_on_one_side(images):
    check_sides([pair_of(labels) for labels in images])


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=25))
def test_nuclei_are_held_out_wherever_two_can_be_told_apart(counts):
    pairs = [row(*range(2, 2 + 6 * count, 6)) for count in counts]
    held = check_sides(pairs)
    assert held == 0 if sum(counts) < 2 else sum(counts) / 5 <= held <= sum(counts) / 2


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("shape", [(60, 200), (200, 60), (96, 96)])
def test_few_images_give_both_sides_a_strip(count, shape):
    pairs = drawn(count, *shape)
    training, validation, _ = hold_out(pairs)
    long = int(shape[1] >= shape[0])
    for (image, labels), (shown, _), (judged, held) in zip(pairs, training, validation, strict=True):
        assert shown is image and judged is image
        assert 0.1 < (held >= 0).sum() / (labels >= 0).sum() < 0.45
        # The strip lies at the end of the longer side.
        where = np.nonzero(held >= 0)[long]
        assert where.min() > 0.5 * shape[long] and where.max() == shape[long] - 1


def test_strips_that_hold_a_fifth_are_the_last_fifth():
    pairs = [row(1, 7, 13, 19, 34), row(2, 8, 14, 20, 35)]
    training, validation, rule = hold_out(pairs)
    assert rule == "2 of 10 nuclei are held out for validation: those in the last fifth of each of 2 labelled images."
    assert all((labels[:, 32:] == -1).all() for _, labels in training)
    assert all((labels[:, :32] == -1).all() for _, labels in validation)


@pytest.mark.parametrize("columns", [(1, 5, 9, 13, 17), (1, 5, 9, 13), (1, 5, 9)])
def test_where_the_end_is_empty_the_strip_is_laid_where_nuclei_are(columns):
    training, validation, rule = hold_out([row(*columns)])
    assert nuclei(validation) == 1 and nuclei(training) == len(columns) - 1
    assert rule == f"1 of {len(columns)} nuclei is held out for validation: those in a part of the labelled image."


def test_of_images_with_one_nucleus_each_some_are_held_out_whole():
    pairs = [row(18) for _ in range(6)]
    training, validation, rule = hold_out(pairs)
    assert same(validation, pairs[4:]) and same(training, pairs[:4])
    assert rule == "2 of 6 nuclei are held out for validation: from 2 of 6 labelled images."


def test_the_only_nucleus_is_learnt_from():
    pairs = [row(18), row()]
    training, validation, rule = hold_out(pairs)
    assert same(training, pairs) and validation == []
    assert rule == "The only labelled nucleus cannot be held out for validation, so there is no score."


def many(count, each=ENOUGH):
    return [pair_of(np.arange(each).reshape(10, -1) + 1) for _ in range(count)]


@settings(deadline=None, max_examples=30)
@given(count=st.integers(FEWEST, 60))
def test_of_many_images_every_tenth_is_held_out_whole(count):
    pairs = many(count)
    training, validation, rule = hold_out(pairs)
    assert same(validation, pairs[4::10])
    assert same(training, [pair for index, pair in enumerate(pairs) if index % 10 != 4])
    assert f"{len(validation)} of {count} labelled images" in rule


def test_one_more_image_moves_no_other_to_the_other_side():
    # In the order of names: an image added at the end leaves those before it where they were.
    pairs = many(40)
    for count in range(FEWEST, 40):
        few, more = (hold_out(pairs[:number])[1] for number in (count, count + 1))
        assert all(any(one[0] is other[0] for other in more) for one in few)


@pytest.mark.parametrize("full", [(0, 3, 8), (4, 5), range(12), (11, 2, 1)])
def test_of_many_images_those_with_nuclei_are_held_out(full):
    pairs = [row(1, 7, 13, 19, 25, 31) if index in full else row() for index in range(12)]
    held = check_sides(pairs)
    _, validation, _ = hold_out(pairs)
    assert held >= 6 * len(full) / 5 and all((labels > 0).any() for _, labels in validation)


def test_nuclei_in_one_of_many_images_are_held_out_by_a_strip():
    pairs = [row(1, 7, 13, 19, 25, 34) if index == 4 else row() for index in range(12)]
    training, validation, _ = hold_out(pairs)
    assert (nuclei(training), nuclei(validation)) == (4, 2)
