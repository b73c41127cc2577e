"""Draws to batches: geometry that agrees with the labels, and samples that do not know of each other."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.data.augment import (
    MANY_IMAGES,
    AugmentationConfig,
    CropParameters,
    TrainingImage,
    draw_parameters,
    joined,
    make_batch,
)
from nucleate.data.synthetic.microscopy import fluorescence
from nucleate.postprocess.targets import Targets, whole

PARTS = tuple(field.name for field in dataclasses.fields(Targets))


def labelled(seed=0, height=64, width=64, channels=1):
    _, labels = fluorescence(seed, height, width, diameter=14)
    image = np.random.default_rng(seed).normal(0.5, 0.5, (channels, height, width)).astype(np.float32)
    return image, labels


def plain(linear, centre, index=0, **changes):
    matrix = np.column_stack([np.asarray(linear, float), np.asarray(centre, float)])
    values = {"blur": 0.0, "gamma": 1.0, "gain": (1.0,), "shift": (0.0,), "noise": 0.0, "noise_seed": 0} | changes
    return CropParameters(index=index, matrix=matrix, **values)


def same(one, two):
    return torch.equal(one.image, two.image) and all(
        torch.equal(getattr(one.targets, part), getattr(two.targets, part)) for part in PARTS
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_identity_gives_the_image_back(channels):
    image, labels = labelled(channels=channels)
    labels[:5, :7] = -1
    one = plain(np.eye(2), (31.5, 31.5), gain=(1.0,) * channels, shift=(0.0,) * channels)
    batch = make_batch([TrainingImage.of(image, labels)], [one], 64)
    torch.testing.assert_close(batch.image[0], torch.from_numpy(image), atol=1e-4, rtol=1e-4)
    expected = whole(labels)
    assert torch.equal(batch.targets.classes, expected.classes) and torch.equal(batch.targets.known, expected.known)
    for part in ("heat", "offset", "radius"):
        torch.testing.assert_close(getattr(batch.targets, part), getattr(expected, part), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_quarter_turns_and_flips_are_those_of_arrays(quarters, flip):
    image, labels = labelled(seed=1)
    # Crop pixel (y, x), from the centre, shows image pixel linear @ (y, x).
    linear = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarters) @ np.diag([-1 if flip else 1, 1])
    batch = make_batch([TrainingImage.of(image, labels)], [plain(linear, (31.5, 31.5))], 64)
    y, x = np.rint(linear @ (np.indices((64, 64)).reshape(2, -1) - 31.5) + 31.5).astype(int)
    np.testing.assert_array_equal(batch.targets.classes[0], (labels > 0)[y, x].reshape(64, 64))
    np.testing.assert_allclose(batch.image[0, 0], image[0, y, x].reshape(64, 64), atol=1e-4)
    expected = whole(np.ascontiguousarray(labels[y, x].reshape(64, 64)))
    torch.testing.assert_close(batch.targets.heat, expected.heat, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(batch.targets.offset, expected.offset, atol=1e-4, rtol=1e-4)


SOURCES = [TrainingImage.of(*labelled(seed, 50 + 20 * seed, 90 - 20 * seed, channels=2)) for seed in range(3)]
STRONG = AugmentationConfig(crop=40, scale=1.6, stretch=1.3, noise=0.1, blur=1.5, blurred=0.5)


def draws(seed, numbers):
    shapes = [source.shape for source in SOURCES]
    return [draw_parameters(seed, number, shapes, channels=2, variation=STRONG) for number in numbers]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), numbers=st.lists(st.integers(0, 10**6), min_size=1, max_size=6))
def test_a_sample_does_not_know_of_its_batch(seed, numbers):
    chosen = draws(seed, numbers)
    batch = make_batch(SOURCES, chosen, STRONG.crop)
    assert batch.image.shape == (len(numbers), 2, 40, 40) and batch.image.dtype == torch.float32
    for i, one in enumerate(chosen):
        alone = make_batch(SOURCES, [one], STRONG.crop)
        assert torch.equal(alone.image[0], batch.image[i])
        for part in PARTS:
            assert torch.equal(getattr(alone.targets, part)[0], getattr(batch.targets, part)[i]), part


def test_parts_of_a_batch_joined_are_the_batch():
    chosen = draws(0, range(5))
    parts = [make_batch(SOURCES, chosen[:2], STRONG.crop), make_batch(SOURCES, chosen[2:], STRONG.crop)]
    assert same(joined(parts), make_batch(SOURCES, chosen, STRONG.crop))


def test_sources_are_left_as_they_were():
    image, labels = labelled(seed=2)
    before = image.copy(), labels.copy()
    shapes = [(64, 64)]
    chosen = [draw_parameters(0, number, shapes, channels=1, variation=STRONG) for number in range(8)]
    source = TrainingImage.of(image, labels)
    assert source.shape == (64, 64)
    make_batch([source], chosen, STRONG.crop)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


def linear_maps():
    """Turns, flips and scales of 2/3 to 3/2 along each axis."""
    size = st.floats(2 / 3, 3 / 2)
    return st.builds(
        lambda angle, a, b, flip: (
            np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            @ np.diag([-a if flip else a, b])
        ),
        st.floats(-math.pi, math.pi),
        size,
        size,
        st.booleans(),
    )


@settings(deadline=None, max_examples=40)
@given(linear=linear_maps(), centre=st.tuples(st.floats(-10, 80), st.floats(-10, 80)), seed=st.integers(0, 3))
def test_offsets_lead_to_one_point_and_it_is_the_centre(linear, centre, seed):
    image, labels = labelled(seed, 70, 66)
    # A nucleus is told from another by the centre that its pixels name.
    source, crop = TrainingImage.of(image, labels), 48
    batch = make_batch([source], [plain(linear, centre)], crop)
    t = batch.targets
    nucleus = t.classes[0].bool().numpy()
    pixels = np.argwhere(nucleus)
    there = pixels + t.offset[0].numpy()[:, nucleus].T
    true = np.linalg.solve(linear, source.centres.position[1:].T - np.array(centre)[:, None]).T + (crop - 1) / 2
    distance = np.linalg.norm(there[:, None] - true[None], axis=2)
    assert (distance.min(axis=1) < 2e-3).all()
    # And it is the centre of the nucleus that the pixel shows, away from the edges, where rounding decides.
    shown = linear @ (pixels.T - (crop - 1) / 2) + np.array(centre)[:, None]
    clear = (np.abs(shown - np.rint(shown)) < 0.45).all(axis=0)
    row, column = np.rint(shown[:, clear]).astype(int)
    assert (labels[row, column] == 1 + distance[clear].argmin(axis=1)).all()
    # Areas change by the determinant, so radii by its root.
    radius = source.centres.radius[1:] / math.sqrt(abs(np.linalg.det(linear)))
    np.testing.assert_allclose(t.radius[0, 0].numpy()[nucleus], radius[distance.argmin(axis=1)], rtol=1e-3)


@settings(deadline=None, max_examples=40)
@given(linear=linear_maps(), centre=st.tuples(st.floats(-30, 90), st.floats(-30, 90)), sample=st.integers(0, 99))
def test_outside_the_image_is_zero_and_unknown(linear, centre, sample):
    image, labels = labelled(3, 60, 44)
    image += 5
    crop = 40
    shown = linear @ (np.indices((crop, crop)).reshape(2, -1) - (crop - 1) / 2) + np.array(centre)[:, None]
    y, x = shown.reshape(2, crop, crop)
    inside = (y > -0.49) & (y < 59.49) & (x > -0.49) & (x < 43.49)
    outside = (y < -0.51) | (y > 59.51) | (x < -0.51) | (x > 43.51)
    one = plain(linear, centre, blur=0.8, gamma=1.2, gain=(1.1,), shift=(0.1,), noise=0.05, noise_seed=sample)
    batch = make_batch([TrainingImage.of(image, labels)], [one], crop)
    known = batch.targets.known[0].numpy()
    assert known[inside].all() and not known[outside].any()
    assert not batch.image[0, 0].numpy()[outside].any()
    # The image is about 5 everywhere; the zeros around it are not mixed in further than the blur.
    well = (y > 3) & (y < 56) & (x > 3) & (x < 40)
    assert (batch.image[0, 0].numpy()[well] > 1).all()
    assert not batch.targets.heat[0, 0].numpy()[outside].any()


def test_unknown_pixels_stay_unknown():
    image, labels = labelled(4)
    labels[20:40, 10:30] = -7
    for number in range(6):
        one = draw_parameters(0, number, [(64, 64)], channels=1, variation=STRONG)
        batch = make_batch([TrainingImage.of(image, labels)], [one], STRONG.crop)
        y, x = one.matrix[:, :2] @ (np.indices((40, 40)).reshape(2, -1) - 19.5) + one.matrix[:, 2:]
        row, column = np.rint([y, x]).astype(int)
        inside = (row >= 0) & (row < 64) & (column >= 0) & (column < 64)
        clear = (np.abs(y - row) < 0.45) & (np.abs(x - column) < 0.45) & inside
        known = batch.targets.known[0].numpy().ravel()[clear]
        np.testing.assert_array_equal(known, labels[row[clear], column[clear]] >= 0)


def test_intensities_change_as_the_draw_says():
    image = np.full((2, 32, 32), 0.5, np.float32)
    source = TrainingImage.of(image, np.zeros((32, 32), np.int32))

    def centre_of(**changes):
        still = {"gain": (1.0, 1.0), "shift": (0.0, 0.0)}
        batch = make_batch([source], [plain(np.eye(2), (15.5, 15.5), **(still | changes))], 16)
        return batch.image[0].mean((1, 2)).tolist(), batch.image[0].std((1, 2)).tolist()

    assert centre_of()[0] == pytest.approx([0.5, 0.5], abs=1e-5)
    assert centre_of(gain=(2.0, 3.0))[0] == pytest.approx([1.0, 1.5], abs=1e-5)
    assert centre_of(gain=(2.0, 3.0), shift=(0.1, -0.1))[0] == pytest.approx([1.1, 1.4], abs=1e-5)
    assert centre_of(gamma=2.0)[0] == pytest.approx([0.25, 0.25], abs=1e-5)
    assert centre_of(blur=1.0)[0] == pytest.approx([0.5, 0.5], abs=1e-5)
    mean, spread = centre_of(noise=0.1, noise_seed=1)
    assert mean == pytest.approx([0.5, 0.5], abs=0.03) and spread == pytest.approx([0.1, 0.1], rel=0.25)
    assert centre_of(noise=0.1, noise_seed=1) == centre_of(noise=0.1, noise_seed=1)
    assert centre_of(noise=0.1, noise_seed=1) != centre_of(noise=0.1, noise_seed=2)


def test_blur_spreads_a_point_and_keeps_its_sum():
    image = np.zeros((1, 33, 33), np.float32)
    image[0, 16, 16] = 1
    batch = make_batch(
        [TrainingImage.of(image, np.zeros((33, 33), np.int32))], [plain(np.eye(2), (16, 16), blur=1.5)], 33
    )
    spread = batch.image[0, 0].numpy()
    assert spread.sum() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(spread, spread.T, atol=1e-5)
    np.testing.assert_allclose(spread, spread[::-1, ::-1], atol=1e-5)
    y, _ = np.indices(spread.shape)
    assert (spread * (y - 16) ** 2).sum() == pytest.approx(1.5**2, rel=0.15)


SHAPES = st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=5)
SEED, SAMPLE = st.integers(0, 2**31), st.integers(0, 2**40)
VARIATION = AugmentationConfig(crop=64, scale=1.4, stretch=1.2, turn=math.pi, turned=0.5)


def values(one: CropParameters):
    return (one.index, one.matrix.tolist(), one.blur, one.gamma, one.gain, one.shift, one.noise, one.noise_seed)


@settings(deadline=None, max_examples=80)
@given(seed=SEED, sample=SAMPLE, shapes=SHAPES, channels=st.integers(1, 3), others=st.lists(SAMPLE, max_size=3))
def test_a_draw_depends_on_seed_and_number_alone(seed, sample, shapes, channels, others):
    first = draw_parameters(seed, sample, shapes, channels=channels, variation=VARIATION)
    np.random.default_rng().random(3)
    for other in others:
        draw_parameters(seed, other, shapes, channels=channels, variation=VARIATION)
    assert values(draw_parameters(seed, sample, list(shapes), channels=channels, variation=VARIATION)) == values(first)


@settings(deadline=None, max_examples=60)
@given(seed=SEED, sample=st.integers(0, 2**31))
def test_other_samples_and_other_seeds_are_other_draws(seed, sample):
    shapes = [(300, 200), (64, 64)]
    one, *others = (
        values(draw_parameters(*numbers, shapes, channels=1, variation=VARIATION))
        for numbers in ((seed, sample), (seed, sample + 1), (seed + 1, sample), (sample + 2**32, seed))
    )
    assert all(one[1] != other[1] and one[-1] != other[-1] for other in others)


@settings(deadline=None, max_examples=150)
@given(seed=SEED, sample=SAMPLE, shapes=SHAPES, channels=st.integers(1, 3))
def test_every_draw_lies_within_its_bounds(seed, sample, shapes, channels):
    v = VARIATION
    one = draw_parameters(seed, sample, shapes, channels=channels, variation=v)
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
    one = draw_parameters(seed, sample, [(height, width)], channels=1, variation=VARIATION)
    reach = np.abs(one.matrix[:, :2]).sum(1) * VARIATION.crop / 2
    for size, centre, half in zip((height, width), one.matrix[:, 2], reach, strict=True):
        low, high = centre - half, centre + half
        edges = -0.5 - 1e-6, size - 0.5 + 1e-6
        if 2 * half <= size:
            assert edges[0] <= low and high <= edges[1]
        else:
            assert low <= edges[0] + 2e-6 and high >= edges[1] - 2e-6


def test_without_variation_only_flips_and_quarter_turns_are_left():
    still = AugmentationConfig(
        crop=32, scale=1, stretch=1, turned=0, gamma=0, gain=0, shift=0, noise=0, blurred=0, stain=0
    )
    seen = set()
    for sample in range(200):
        one = draw_parameters(0, sample, [(100, 100)], channels=2, variation=still)
        assert (one.blur, one.gamma, one.noise) == (0, 1, 0)
        assert one.gain == (1, 1) and one.shift == (0, 0)
        linear = np.rint(one.matrix[:, :2])
        np.testing.assert_allclose(one.matrix[:, :2], linear, atol=1e-12)
        seen.add(tuple(linear.ravel()))
    assert len(seen) == 8


@pytest.mark.parametrize(("nuclei", "shares"), [([3, 63, 0], [2, 8, 1]), (None, [1, 1, 1])])
def test_images_with_more_nuclei_are_drawn_more_often_but_every_one_is_drawn(nuclei, shares):
    shapes = [(100, 100), (100, 100), (90, 120)]
    drawn = np.bincount(
        [draw_parameters(1, i, shapes, channels=1, counts=nuclei).index for i in range(1500)], minlength=3
    )
    # By the root of one more than the nuclei. The bounds are 5 standard deviations.
    expected = 1500 * np.array(shares) / sum(shares)
    assert (np.abs(drawn - expected) < 5 * np.sqrt(expected)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_draws_hold_plain_numbers(channels):
    one = draw_parameters(3, 4, [(50, 60)], channels=channels)
    assert one.matrix.shape == (2, 3) and one.matrix.dtype == np.float64 and np.isfinite(one.matrix).all()
    assert isinstance(one.index, int) and isinstance(one.noise_seed, int)


def test_few_images_are_varied_no_less_in_any_way():
    few, many = AugmentationConfig.suited(MANY_IMAGES - 1), AugmentationConfig.suited(MANY_IMAGES)
    assert many == AugmentationConfig()
    assert all(getattr(few, name) >= getattr(many, name) for name in AugmentationConfig.__dataclass_fields__)
    assert few != many
