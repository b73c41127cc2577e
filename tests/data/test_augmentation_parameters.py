"""The plan of a run: a function of the seed and the sample's number, and of nothing else."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.data.augmentation_parameters import MANY_IMAGES, Draw, Variation, draw

SHAPES = st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=5)
SEED, SAMPLE = st.integers(0, 2**31), st.integers(0, 2**40)
VARIATION = Variation(crop=64, scale=1.4, stretch=1.2, turn=math.pi, turned=0.5)


def values(one: Draw):
    return (one.index, one.matrix.tolist(), one.blur, one.gamma, one.gain, one.shift, one.noise, one.noise_seed)


@settings(deadline=None, max_examples=80)
@given(seed=SEED, sample=SAMPLE, shapes=SHAPES, channels=st.integers(1, 3), others=st.lists(SAMPLE, max_size=3))
def test_a_draw_depends_on_seed_and_number_alone(seed, sample, shapes, channels, others):
    first = draw(seed, sample, shapes, channels=channels, variation=VARIATION)
    np.random.default_rng().random(3)
    for other in others:
        draw(seed, other, shapes, channels=channels, variation=VARIATION)
    assert values(draw(seed, sample, list(shapes), channels=channels, variation=VARIATION)) == values(first)


@settings(deadline=None, max_examples=60)
@given(seed=SEED, sample=st.integers(0, 2**31))
def test_other_samples_and_other_seeds_are_other_draws(seed, sample):
    shapes = [(300, 200), (64, 64)]
    one, *others = (
        values(draw(*numbers, shapes, channels=1, variation=VARIATION))
        for numbers in ((seed, sample), (seed, sample + 1), (seed + 1, sample), (sample + 2**32, seed))
    )
    assert all(one[1] != other[1] and one[-1] != other[-1] for other in others)


@settings(deadline=None, max_examples=150)
@given(seed=SEED, sample=SAMPLE, shapes=SHAPES, channels=st.integers(1, 3))
def test_every_draw_lies_within_its_bounds(seed, sample, shapes, channels):
    v = VARIATION
    one = draw(seed, sample, shapes, channels=channels, variation=v)
    assert 0 <= one.index < len(shapes)
    linear = one.matrix[:, :2]
    # The stretches of the two axes are 1 / (scale * stretch) and stretch / scale, whatever the turn.
    longest = v.scale * v.stretch * (1 + 1e-9)
    sizes = np.linalg.svd(linear, compute_uv=False)
    assert (sizes <= longest).all() and (sizes >= 1 / longest).all()
    assert 1 / v.scale**2 * (1 - 1e-9) <= abs(np.linalg.det(linear)) <= v.scale**2 * (1 + 1e-9)
    assert len(one.gain) == len(one.shift) == channels
    assert all(gain > 0 for gain in one.gain) and one.gamma > 0
    assert 0 <= one.noise <= v.noise and 0 <= one.blur <= max(v.blur, 0.3)


@settings(deadline=None, max_examples=150)
@given(seed=SEED, sample=SAMPLE, height=st.integers(4, 900), width=st.integers(4, 900))
def test_a_crop_holds_as_much_of_the_image_as_it_can(seed, sample, height, width):
    one = draw(seed, sample, [(height, width)], channels=1, variation=VARIATION)
    reach = np.abs(one.matrix[:, :2]).sum(1) * VARIATION.crop / 2
    for size, centre, half in zip((height, width), one.matrix[:, 2], reach, strict=True):
        low, high = centre - half, centre + half
        edges = -0.5 - 1e-6, size - 0.5 + 1e-6
        if 2 * half <= size:
            assert edges[0] <= low and high <= edges[1]
        else:
            assert low <= edges[0] + 2e-6 and high >= edges[1] - 2e-6


def test_without_variation_only_flips_and_quarter_turns_are_left():
    still = Variation(crop=32, scale=1, stretch=1, turned=0, gamma=0, gain=0, shift=0, noise=0, blurred=0, stain=0)
    seen = set()
    for sample in range(200):
        one = draw(0, sample, [(100, 100)], channels=2, variation=still)
        assert (one.blur, one.gamma, one.noise) == (0, 1, 0)
        assert one.gain == (1, 1) and one.shift == (0, 0)
        linear = np.rint(one.matrix[:, :2])
        np.testing.assert_allclose(one.matrix[:, :2], linear, atol=1e-12)
        seen.add(tuple(linear.ravel()))
    assert len(seen) == 8


@pytest.mark.parametrize(("nuclei", "shares"), [([3, 63, 0], [2, 8, 1]), (None, [1, 1, 1])])
def test_images_with_more_nuclei_are_drawn_more_often_but_every_one_is_drawn(nuclei, shares):
    shapes = [(100, 100), (100, 100), (90, 120)]
    drawn = np.bincount([draw(1, i, shapes, channels=1, counts=nuclei).index for i in range(1500)], minlength=3)
    # By the root of one more than the nuclei. The bounds are 5 standard deviations.
    expected = 1500 * np.array(shares) / sum(shares)
    assert (np.abs(drawn - expected) < 5 * np.sqrt(expected)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_draws_hold_plain_numbers(channels):
    one = draw(3, 4, [(50, 60)], channels=channels)
    assert one.matrix.shape == (2, 3) and one.matrix.dtype == np.float64 and np.isfinite(one.matrix).all()
    assert isinstance(one.index, int) and isinstance(one.noise_seed, int)


def test_few_images_are_varied_no_less_in_any_way():
    few, many = Variation.suited(MANY_IMAGES - 1), Variation.suited(MANY_IMAGES)
    assert many == Variation()
    assert all(getattr(few, name) >= getattr(many, name) for name in Variation.__dataclass_fields__)
    assert few != many
