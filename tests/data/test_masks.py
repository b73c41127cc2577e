"""What the values of a mask mean: numbered nuclei pass whatever their numbers; what only looks like them does not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nucleate.data.masks import choice, interpret
from nucleate.errors import InputError

RNG = np.random.default_rng(3)
ROWS, COLUMNS = np.mgrid[:120, :120]


def discs(count=12, radius=8, seed=0):
    """A numbered mask of discs on a grid, a little out of place."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((120, 120), np.int32)
    places = [(y, x) for y in range(15, 120, 30) for x in range(15, 120, 30)][:count]
    for number, (y, x) in enumerate(places, start=1):
        dy, dx = rng.integers(-4, 5, 2)
        labels[np.hypot(ROWS - y - dy, COLUMNS - x - dx) < radius] = number
    return labels


NUMBERED = discs()
NUCLEUS = NUMBERED > 0
CORE = ndimage.binary_erosion(NUCLEUS, iterations=2)
PICTURE = (12 + RNG.normal(0, 3, NUCLEUS.shape) + 100 * ndimage.gaussian_filter(NUCLEUS * 1.0, 1)).clip(0, 255)

CLASSES = {
    "0 and 255": NUCLEUS * 255,
    "0 and 1": NUCLEUS * 1,
    "0 and 65535": NUCLEUS * 65535,
    "two of 1": np.isin(NUMBERED, (1, 2)) * 1,
    "ground 1, nuclei 2": NUCLEUS + 1,
    "ground 2, nuclei 1": 2 - NUCLEUS,
    "inverted": ~NUCLEUS * 1,
    "inverted 255": ~NUCLEUS * 255,
    "one of them inverted": (NUMBERED != 3) * 255,
    "core and border": np.where(CORE, 1, NUCLEUS * 2),
    "border and core": np.where(CORE, 255, NUCLEUS * 128),
    "three kinds": np.where(NUCLEUS, NUMBERED % 3 + 1, 0),
}
GROUND = {
    "1": np.where(NUCLEUS, NUMBERED + 1, 1),
    "65535": np.where(NUCLEUS, NUMBERED, 65535),
    "1, and lines of 0": np.where(NUCLEUS, NUMBERED + 1, ~ndimage.binary_dilation(NUCLEUS) * 1),
}
PICTURES = {
    "8 bit": PICTURE,
    "16 bit": PICTURE * 200 + RNG.integers(0, 200, PICTURE.shape),
    "without noise": ndimage.gaussian_filter(PICTURE, 3),
    "on a black ground": np.where(NUCLEUS, PICTURE, 0),
    "a class mask with soft borders": ndimage.gaussian_filter(NUCLEUS * 255.0, 1).round(),
}


def mask(values):
    return np.ascontiguousarray(values, np.int32)


def circle(radius):
    return mask(np.hypot(ROWS - 60, COLUMNS - 60) < radius)


def sparse():
    """Two nuclei labelled, all else unknown."""
    return np.where(np.isin(NUMBERED, (3, 4)), NUMBERED, -1)


SOUND = {
    "numbered": NUMBERED,
    "no nucleus": NUMBERED * 0,
    "one nucleus": (NUMBERED == 5) * 1,
    "one with another number": (NUMBERED == 5) * 5,
    "one huge nucleus": circle(55),
    "one that fills the image": circle(75),
    "one with a slip of the brush": circle(30) | ((ROWS < 2) & (COLUMNS < 2)),
    "one with a small hole": circle(75) & ~circle(3),
    "most is unknown": sparse(),
    "one known nucleus, all else unknown": np.where(NUMBERED == 3, 1, -1),
    "no ground between": mask(1 + ROWS // 20 + 6 * (COLUMNS // 20)),
    "tiny": discs(radius=2.2),
    "dots": mask((ROWS % 10 == 5) & (COLUMNS % 10 == 5)).cumsum().reshape(120, 120)
    * ((ROWS % 10 == 5) & (COLUMNS % 10 == 5)),
    "two": np.where(np.isin(NUMBERED, (3, 4)), NUMBERED - 2, 0),
}


@pytest.mark.parametrize("name", SOUND)
def test_numbered_masks_are_taken_as_they_are(name):
    for masks in ("auto", "labels", "binary"):
        found = interpret(mask(SOUND[name]), masks)
        assert found.mistake is None
        if masks != "binary" or np.unique(SOUND[name]).size > 3:
            np.testing.assert_array_equal(found.labels, SOUND[name])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 2**31 - 1), min_size=12, max_size=12, unique=True), st.integers(0, 9))
def test_the_numbers_themselves_do_not_matter(numbers, seed):
    labels = discs(seed=seed)
    found = interpret(mask(np.array([0, *numbers])[labels]))
    assert found.mistake is None and found.oddities == ()


@pytest.mark.parametrize("name", CLASSES)
def test_class_masks_are_mistakes_and_binary_makes_their_pieces_nuclei(name):
    labels = mask(CLASSES[name])
    found = interpret(labels)
    assert (
        found.mistake is not None and "--masks binary" in found.mistake.mend and "--masks labels" in found.mistake.mend
    )
    assert found.mistake.sentence("a.tif").startswith("a.tif has ") and found.mistake.sentence("a.tif").count(". ") == 0
    separated = interpret(labels, "binary")
    assert separated.mistake is None
    nucleus = (
        NUMBERED == 3
        if name == "one of them inverted"
        else NUMBERED * np.isin(NUMBERED, (1, 2))
        if "two" in name
        else NUMBERED
    )
    expected, count = ndimage.label(nucleus)
    np.testing.assert_array_equal(separated.labels > 0, expected > 0)
    assert np.unique(separated.labels[separated.labels > 0]).size == count
    as_it_is = interpret(labels, "labels")
    assert as_it_is.mistake is None
    np.testing.assert_array_equal(as_it_is.labels, labels)


@pytest.mark.parametrize("name", GROUND)
def test_a_background_with_a_number_is_a_mistake_and_binary_sets_it_to_0(name):
    labels = mask(GROUND[name])
    found = interpret(labels)
    assert f"has the label {name.split(',')[0]} on " in found.mistake.what and "background" in found.mistake.mend
    taken = interpret(labels, "binary")
    assert taken.mistake is None
    np.testing.assert_array_equal(taken.labels > 0, NUCLEUS)
    assert np.unique(taken.labels).size == np.unique(NUMBERED).size


@pytest.mark.parametrize("name", PICTURES)
def test_an_image_in_a_masks_place_is_a_mistake_that_binary_does_not_mend(name):
    for masks in ("auto", "binary"):
        assert "as an image does" in interpret(mask(PICTURES[name]), masks).mistake.what
    assert interpret(mask(PICTURES[name]), "labels").mistake is None


def test_a_constant_mask_is_a_mistake():
    assert "label 1 on 100%" in interpret(np.ones((50, 50), np.int32)).mistake.what


def test_unknown_pixels_stay_unknown():
    labels = mask(NUCLEUS * 1)
    labels[:20] = -1
    np.testing.assert_array_equal(interpret(labels, "binary").labels == -1, labels == -1)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (NUMBERED * 0, "The mask has no nucleus."),
        (circle(30) * 255, "The mask has the single value 255 in 1 piece"),
        (np.where(circle(50), 1, mask((ROWS > 110) & (COLUMNS > 110)) * 2), "Label 1 covers 54% of the image"),
        (
            np.where(circle(20), 1, mask((ROWS < 9) & (COLUMNS < 9)) * 2) + 2 * mask((ROWS > 110) & (COLUMNS > 110)),
            "far",
        ),
        (np.where((ROWS < 2) & (COLUMNS < 2), 2, circle(20)), "1 nucleus of fewer than 10 pixels."),
    ],
)
def test_what_may_be_wrong_is_told(values, says):
    found = interpret(mask(values))
    assert found.mistake is None and len(found.oddities) == 1 and says in found.oddities[0]


def test_outlines_are_one_nucleus_each_in_however_many_pieces():
    assert interpret(mask(NUCLEUS * 1), outlines=True).mistake is None
    tissue = np.where(NUCLEUS, NUMBERED + 1, 1)
    assert "has the label 1" in interpret(mask(tissue), outlines=True).mistake.what


def test_only_three_choices():
    assert [choice(one) for one in ("auto", "labels", "binary")] == ["auto", "labels", "binary"]
    with pytest.raises(InputError, match="no --masks classes: choose one of auto, labels, binary"):
        choice("classes")
