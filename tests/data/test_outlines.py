"""Masks that lie on their images, and masks that do not."""

from itertools import pairwise

import numpy as np
import pytest

from nucleate.data.outlines import outlines_fit, pieces
from nucleate.data.synthetic import fluorescence
from nucleate.types import Image


def dark_nuclei(seed):
    image, labels = fluorescence(seed)
    return Image(image.name, 255 - image.pixels, image.channels), labels


@pytest.mark.parametrize("draw", [fluorescence, dark_nuclei])
@pytest.mark.parametrize("seed", range(4))
def test_true_masks_fit(draw, seed):
    image, labels = draw(seed)
    assert outlines_fit([(image, labels)])


@pytest.mark.parametrize("draw", [fluorescence, dark_nuclei])
@pytest.mark.parametrize(
    "misplaced",
    [lambda mask: mask[::-1], lambda mask: mask.T, lambda mask: np.roll(mask, 25, axis=1), lambda mask: mask[:, ::-1]],
)
def test_mirrored_turned_and_moved_masks_do_not(draw, misplaced):
    assert not outlines_fit([(image, misplaced(labels)) for image, labels in map(draw, range(3))])


def test_masks_of_other_images_do_not():
    drawn = [fluorescence(seed) for seed in range(4)]
    assert not outlines_fit([(image, labels) for (image, _), (_, labels) in pairwise(drawn)])


def test_what_cannot_be_judged_is_not_blamed():
    flat = Image("flat", np.full((32, 32, 1), 7, np.uint8), ("grey",))
    assert outlines_fit([(flat, np.eye(32, dtype=np.int32))]) and outlines_fit([])


def test_unnumbered_nuclei_are_more_pieces_than_numbers():
    _, labels = fluorescence(seed=0)
    numbers, apart = pieces(labels)
    assert numbers >= apart and numbers == labels.max()
    assert pieces((labels > 0).astype(np.int32)) == (1, apart)
