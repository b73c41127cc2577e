"""How far an image is resized, and the size of its nuclei, true and predicted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.postprocess.rescale import (
    DIAMETERS,
    FACTORS,
    WORTHWHILE,
    distinct_diameter,
    predicted_diameter,
    reduction,
    true_diameter,
    zoom,
)
from nucleate.postprocess.targets import centres
from nucleate.types import Maps


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


@pytest.mark.parametrize("size", range(5, 105, 5))
def test_nuclei_of_ordinary_size_are_not_reduced(size):
    assert reduction(lambda factor: max(6.0, size / factor)) == 1


@pytest.mark.parametrize("size", range(110, 600, 30))
def test_larger_nuclei_are_reduced_to_a_size_that_is_seen(size):
    # As measured: what is larger than some 100 pixels is seen as about 100.
    factor = reduction(lambda factor: min(100.0, size / factor))
    assert 20 <= size / factor <= 40


@pytest.mark.parametrize("seen", [{4: 0}, {4: 57, 2: 11}, {4: 20, 2: 22, 8: 30}])
def test_large_shapes_among_small_nuclei_and_empty_images_change_nothing(seen):
    assert reduction(lambda factor: seen[factor]) == 1


@pytest.mark.parametrize("radius", [3, 15])
def test_a_network_that_knows_one_size_does_not_make_nuclei_larger(radius):
    y, x = np.mgrid[:60, :60] % 12 - 6
    seen = (np.hypot(y, x) < 4).astype(np.float32)
    maps = Maps(seen, seen, np.zeros((2, 60, 60), np.float32), np.full((60, 60), radius, np.float32))
    assert distinct_diameter([maps]) == pytest.approx(min(2 * radius, 7.9), abs=0.6)
    assert distinct_diameter([]) == 0
