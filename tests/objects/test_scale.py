"""How far an image is resized, and the size of its nuclei, true and predicted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nucleate.objects.grouping import Maps
from nucleate.objects.scale import (
    DIAMETERS,
    FACTORS,
    SOFTEST,
    WORTHWHILE,
    Edges,
    predicted_diameter,
    true_diameter,
    zoom,
)
from nucleate.objects.targets import centres


@given(st.floats(0, 1e6))
def test_the_factor_is_bounded_and_never_small(diameter):
    factor, (least, most) = zoom(diameter), FACTORS
    assert factor == 1 or WORTHWHILE <= factor <= most or least <= factor <= 1 / WORTHWHILE


@given(st.floats(0.1, 1e3), st.floats(0.1, 1e3))
def test_smaller_nuclei_are_enlarged_no_less(a, b):
    assert zoom(min(a, b)) >= zoom(max(a, b))


@given(st.floats(0.1, 1e3))
def test_resized_nuclei_are_nearer_to_the_sizes_that_are_learnt(diameter):
    factor, (least, most), (small, large) = zoom(diameter), FACTORS, DIAMETERS
    if factor == 1:
        assert small / WORTHWHILE <= diameter <= large * WORTHWHILE
    elif least < factor < most:
        assert factor * diameter == pytest.approx(small if factor > 1 else large)
    else:
        assert diameter <= small / most if factor > 1 else diameter >= large / least


def discs(radii):
    """One disc of each radius, in a row."""
    side = 2 * max(radii) + 3
    y, x = np.indices((side, side)) - side // 2
    return np.concatenate([np.where(y**2 + x**2 <= r**2, i + 1, 0) for i, r in enumerate(radii)], axis=1).astype(
        np.int32
    )


@given(st.lists(st.integers(2, 12), min_size=1, max_size=7))
def test_a_perfect_network_predicts_the_true_diameter(radii):
    labels = discs(radii)
    radius = centres(labels).radius[labels]
    nothing = np.zeros(labels.shape, np.float32)
    maps = Maps((labels > 0).astype(np.float32), nothing, np.stack([nothing, nothing]), radius)
    found = predicted_diameter([maps])
    # The weighted median is one of the diameters; the median of an even number may lie between two of them.
    diameters = np.sort(2 * centres(labels).radius[1:])
    middle = diameters[[(len(radii) - 1) // 2, len(radii) // 2]]
    assert middle[0] - 1e-3 <= found <= middle[1] + 1e-3
    assert middle[0] - 1e-3 <= true_diameter(labels) <= middle[1] + 1e-3


def seen(radii, foreground):
    """Maps of one row, a pixel for each place: its radius and its foreground."""
    radius, foreground = (np.array([values], np.float32) for values in (radii, foreground))
    return Maps(foreground, np.zeros_like(radius), np.zeros((2, *radius.shape), np.float32), radius)


def test_pixels_that_are_not_sure_do_not_count():
    assert predicted_diameter([seen([5, 5, 9, 9, 9], [0.8, 0.8, 0.6, 0.6, 0.6])]) == 10
    assert predicted_diameter([seen([5, 9], [0.6, 0.69])]) == 0


def test_a_little_below_the_middle_is_taken_for_it():
    # Twenty nuclei, each of as many pixels as the square of its radius: 0.45 of them are nine.
    radii = np.repeat(np.arange(11, 31), np.arange(11, 31) ** 2)
    assert predicted_diameter([seen(radii, np.ones(len(radii)))]) == 2 * 19


def test_without_nuclei_no_size_is_known():
    empty = np.zeros((8, 8), np.int32)
    nothing = np.zeros((8, 8), np.float32)
    assert true_diameter(empty) == 0
    assert predicted_diameter([Maps(nothing, nothing, np.stack([nothing, nothing]), nothing)]) == 0


@given(st.floats(0.1, 1e3), st.floats(1e-3, 2.0), st.floats(1e-3, 2.0))
def test_softer_outlines_are_enlarged_no_further(diameter, a, b):
    soft, steep = zoom(diameter, min(a, b)), zoom(diameter, max(a, b))
    assert soft <= steep <= zoom(diameter)
    if soft < zoom(diameter):
        assert 1 <= soft <= max(1.0, min(a, b) / SOFTEST)
    elif soft > 1:  # as they are seen, they are as steep as they have to be
        assert min(a, b) / soft >= SOFTEST * (1 - 1e-9)


def plain_steepness(image, labels):
    """Pixel by pixel."""
    steps, inside, outside = [], [], []
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            if labels[y, x] >= 0:
                (inside if labels[y, x] > 0 else outside).append(image[:, y, x])
            for v, u in ((y + 1, x), (y, x + 1)):
                if v < height and u < width and min(labels[y, x], labels[v, u]) == 0 < max(labels[y, x], labels[v, u]):
                    sign = 1 if labels[y, x] > 0 else -1
                    steps.append(sign * (image[:, y, x] - image[:, v, u]))
    if not steps:
        return math.inf
    contrast = np.mean(inside, axis=0, dtype=np.float64) - np.mean(outside, axis=0, dtype=np.float64)
    along = np.mean(steps, axis=0, dtype=np.float64) @ contrast
    return along / (contrast @ contrast) if along > 0 else math.inf


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
VALUES = st.integers(-8, 8).map(float)


@given(st.data(), SHAPES)
def test_steepness_is_that_of_the_pairs_one_by_one(data, shape):
    image = data.draw(arrays(np.float32, shape, elements=VALUES))
    labels = data.draw(arrays(np.int32, shape[1:], elements=st.integers(-2, 3)))
    expected = plain_steepness(image, labels)
    assert Edges.of(image, labels).steepness == pytest.approx(expected)
    # Which side is up, which nucleus is which, and how bright the image is do not matter.
    for turned in (Edges.of(image[:, ::-1], labels[::-1]), Edges.of(image.swapaxes(1, 2), labels.T)):
        assert turned.steepness == pytest.approx(expected)
    assert Edges.of(image, np.sign(labels)).steepness == pytest.approx(expected)
    assert Edges.of(4 * image - 3, labels).steepness == pytest.approx(expected)


@given(st.data(), SHAPES, SHAPES)
def test_several_views_are_added_up(data, one, two):
    # Side by side, with an unknown column between them, they are one view.
    one, two = (one[0], 5, one[2]), (one[0], 5, two[2])
    images = [data.draw(arrays(np.float32, shape, elements=VALUES)) for shape in (one, two)]
    labels = [data.draw(arrays(np.int32, shape[1:], elements=st.integers(-1, 2))) for shape in (one, two)]
    both = Edges.of(images[0], labels[0]) + Edges.of(images[1], labels[1])
    between = np.zeros((one[0], 5, 1), np.float32), np.full((5, 1), -1, np.int32)
    image = np.concatenate([images[0], between[0], images[1]], axis=2)
    whole = Edges.of(image, np.concatenate([labels[0], between[1], labels[1]], axis=1))
    assert both.steepness == pytest.approx(whole.steepness)


def test_blur_makes_outlines_soft_and_noise_does_not_make_them_steep():
    labels = discs([9, 12, 15])
    sharp = (labels > 0).astype(np.float32)[None]
    assert Edges.of(sharp, labels).steepness == 1
    values = [Edges.of(ndimage.gaussian_filter(sharp, (0, s, s)), labels).steepness for s in (1, 2, 3)]
    assert 0.5 > values[0] > values[1] > values[2] > 0.05
    noise = np.random.default_rng(0).normal(0, 0.2, sharp.shape).astype(np.float32)
    noisy = Edges.of(ndimage.gaussian_filter(sharp, (0, 2, 2)) + noise, labels).steepness
    assert noisy == pytest.approx(values[1], rel=0.25)


def test_of_no_outline_and_of_no_contrast_nothing_is_said():
    flat, labels = np.ones((1, 4, 4), np.float32), np.eye(4, dtype=np.int32)
    assert Edges.of(flat, np.zeros((4, 4), np.int32)).steepness == math.inf
    assert Edges.of(flat, labels).steepness == math.inf
    assert zoom(1.0, math.inf) == zoom(1.0)
