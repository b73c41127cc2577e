"""Two views of a place: what both show is matched exactly, and they differ in all that the network is to overlook."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from nucleate.data.augment import AugmentationConfig
from nucleate.data.views import VISIBLE, ViewConfig, ViewSampler, contrast_at, draw_pair, draw_place, make_views

STILL = AugmentationConfig(
    crop=64, scale=1.4, stretch=1.1, gamma=0.0, gain=0.0, shift=0.0, noise=0.0, blurred=0.0, stain=0.0
)
"""Geometry alone."""

PLAIN = ViewConfig(STILL, place=0.15, points=40, hidden=0.0)


def smooth(height=150, width=190, channels=1):
    y, x = np.mgrid[:height, :width] / 20.0
    waves = [np.sin(y + one) + np.cos(1.3 * x - one) + 0.5 * np.sin(x + 2 * y) for one in range(channels)]
    return torch.tensor(np.stack(waves), dtype=torch.float32)


def at_points(views, points):
    """The values of views (N, C, S, S) at points (N, P, 2)."""
    return F.grid_sample(views, points[:, :, None], mode="bilinear", align_corners=False, padding_mode="border")[..., 0]


@given(st.integers(0, 10_000))
def test_a_smooth_image_has_the_same_values_at_matched_places(sample):
    image = smooth()
    views = ViewSampler([image], 0, PLAIN).batch(range(sample, sample + 1))
    first, second = (at_points(views.clean[:, j], views.points[:, j]) for j in range(2))
    assert (first - second).abs().max() < 0.03  # of values in -2.5..2.5: what interpolation leaves
    # At other places they differ, so the bound says something.
    assert (first - second.roll(1, dims=2)).abs().max() > 0.3


@given(st.integers(0, 10_000), st.integers(40, 300), st.integers(40, 300))
def test_matched_places_are_in_both_views_and_in_the_image(sample, height, width):
    image = torch.rand(1, height, width, generator=torch.Generator().manual_seed(0))
    place = draw_place(1, sample, [image], 64)
    draw = draw_pair(1, sample, place, (height, width), channels=1, config=PLAIN)
    assert draw.points.shape == (2, 40, 2) and (np.abs(draw.points) < 1).all()
    there = [
        view.matrix[:, :2] @ points[:, ::-1].T * 32 + view.matrix[:, 2:]
        for view, points in zip(draw.views, draw.points, strict=True)
    ]
    assert np.allclose(*there, atol=1e-9)
    assert ((there[0].T > -0.5) & (np.array([height, width]) - 0.5 > there[0].T)).all()


def test_views_differ_in_scale_angle_place_and_intensities():
    draws = [
        draw_pair(0, sample, (0, 90.0, 90.0), (180, 180), channels=3, config=ViewConfig()) for sample in range(200)
    ]
    pairs = [draw.views for draw in draws]
    scales = [[math.sqrt(abs(np.linalg.det(view.matrix[:, :2]))) for view in pair] for pair in pairs]
    angles = [[math.atan2(view.matrix[1, 1], view.matrix[0, 1]) for view in pair] for pair in pairs]
    shifts = [[view.matrix[:, 2] - 90 for view in pair] for pair in pairs]
    assert np.std(np.diff(np.log(scales))) > 0.05
    turned = np.sort(np.diff(angles)[:, 0] % (math.pi / 2))
    assert np.abs(turned - np.linspace(0, math.pi / 2, 200)).max() < 0.25, "any angle, not quarter turns alone"
    assert 4 < np.abs(shifts).max() <= 0.08 * 64
    for name in ("gamma", "gain", "shift"):
        values = np.array([[getattr(view, name) for view in pair] for pair in pairs]).reshape(200, 2, -1)
        assert (values[:, 0] != values[:, 1]).all(), name
    gains = np.array([view.gain for pair in pairs for view in pair])
    assert np.std(gains[:, 0] / gains[:, 1]) > 0.05, "stain: channels differ from one another"
    assert {bool(view.blur) for pair in pairs for view in pair} == {True, False}
    assert {bool(view.noise) for pair in pairs for view in pair} == {True, False}


def test_a_pair_depends_on_its_number_alone():
    images = [smooth(100, 120), smooth(90, 80)]
    sampler = ViewSampler(images, 3, ViewConfig(dataclasses.replace(STILL, noise=0.3, blurred=1.0, gain=0.3)))
    whole, part = sampler.batch(range(5)), sampler.batch(range(3, 4))
    for name in ("image", "clean", "weight", "points"):
        assert torch.equal(getattr(whole, name)[3:4], getattr(part, name))
    assert not torch.equal(whole.image[3], ViewSampler(images, 4, sampler.config).batch(range(3, 4)).image[0])


def test_hidden_squares_hold_noise_and_count_in_the_reconstruction():
    config = ViewConfig(STILL, hidden=0.25, square=16, visible=0.1)
    image = smooth(200, 200)
    draw = draw_pair(0, 0, (0, 100.0, 100.0), (200, 200), channels=1, config=config)
    views = make_views([image], [draw], config)
    assert draw.hidden.shape == (2, 4, 4) and draw.hidden.sum(axis=(1, 2)).tolist() == [4, 4]
    hidden = views.weight == 1
    assert hidden.float().mean() == 0.25 and views.weight.unique().tolist() == [pytest.approx(0.1), 1.0]
    changed = (views.image != views.clean)[:, :, 0]
    assert torch.equal(changed, hidden)
    of_noise, of_view = views.image[0, 0][:, hidden[0, 0]], views.clean[0, 0]
    assert (of_noise.mean() - of_view.mean()).abs() < 0.2 and 0.8 < of_noise.std() / of_view.std() < 1.2


def test_outside_the_image_there_is_nothing_and_nothing_to_reconstruct():
    views = ViewSampler([1 + smooth(40, 40).abs()], 0, PLAIN).batch(range(4))
    outside = views.weight == 0
    assert outside.any() and (views.clean[:, :, 0][outside] == 0).all() and (views.image[:, :, 0][outside] == 0).all()
    assert (views.clean[:, :, 0][~outside] != 0).all()


def test_places_show_something_where_there_is_something():
    image = torch.zeros(1, 300, 300)
    image[:, 100:200, 100:200] = smooth(100, 100)
    shown = [contrast_at(image, *draw_place(0, sample, [image], 64)[1:], 64) for sample in range(100)]
    assert np.mean(np.array(shown) >= VISIBLE) > 0.95
    assert draw_place(0, 0, [torch.zeros(1, 80, 90)], 64)[0] == 0, "of an empty image some place is given"
