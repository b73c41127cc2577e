"""Labels to targets, and that targets go back through grouping to the labels they came from."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleate.data.synthetic.microscopy import fluorescence, tissue
from nucleate.postprocess.instances_from_maps import instances_from_maps
from nucleate.postprocess.targets import Targets, centres, encode, importance, whole
from nucleate.types import Maps, Thresholds

PARTS = tuple(field.name for field in dataclasses.fields(Targets))

PLAIN = Thresholds(
    foreground=0.5, peak_threshold=0.3, nms_radius=0.6, assign_radius=0.7, min_area=1, seed_foreground=0.0
)

LABELS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-2, 4))


def maps_of(labels):
    """What a network without any error would give."""
    t = whole(labels)
    return Maps(
        t.classes[0].numpy().astype(np.float32), t.heat[0, 0].numpy(), t.offset[0].numpy(), t.radius[0].numpy()[0]
    )


def exact(true, found):
    """How many of the true nuclei are found as exactly the same pixels."""
    pairs, area = np.unique(np.stack([true.ravel(), found.ravel()]), axis=1, return_counts=True)
    whole_true, whole_found = np.bincount(true.ravel()), np.bincount(found.ravel())
    (t, f) = pairs
    return int(((t > 0) & (f > 0) & (area == whole_true[t]) & (area == whole_found[f])).sum())


@st.composite
def ellipses(draw):
    """Ellipses that may touch each other and the border, and do not overlap."""
    height, width = draw(st.integers(24, 72)), draw(st.integers(24, 72))
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.int32)
    for _ in range(draw(st.integers(1, 8))):
        cy, cx = draw(st.floats(0, height - 1)), draw(st.floats(0, width - 1))
        minor, aspect, angle = draw(st.floats(2, 9)), draw(st.floats(1, 2.5)), draw(st.floats(0, 3.15))
        along = (y - cy) * np.cos(angle) + (x - cx) * np.sin(angle)
        across = (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle)
        own = (along / (minor * aspect)) ** 2 + (across / minor) ** 2 <= 1
        # A sliver at the border is no nucleus of this shape; it has laws of its own below.
        if own.any() and not labels[own].any() and own[1:-1, 1:-1].sum() > 0.4 * np.pi * minor**2 * aspect:
            labels[own] = labels.max() + 1
    return labels


@settings(deadline=None, max_examples=120)
@given(labels=ellipses())
def test_ellipses_come_back_exactly(labels):
    found = instances_from_maps(maps_of(labels), PLAIN)
    assert found.labels.max() == labels.max()
    assert exact(labels, found.labels) == labels.max()
    assert not found.labels[labels == 0].any()


@pytest.mark.parametrize("style", [fluorescence, tissue])
def test_drawn_images_come_back_exactly(style):
    # Nuclei that hide one another partly are crescents and fragments; one in a hundred may be lost, no more.
    total = same = 0
    for seed in range(4):
        _, labels = style((seed, 77), 160, 200)
        total += int(labels.max())
        same += exact(labels, instances_from_maps(maps_of(labels), PLAIN).labels)
    assert total > 50
    assert same >= 0.99 * total


def test_discs_of_every_small_radius_come_back():
    for radius in (1.5, 2, 3, 5, 8, 13, 21, 34):
        side = int(2 * radius + 5)
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        labels = (y**2 + x**2 <= radius**2).astype(np.int32)
        np.testing.assert_array_equal(instances_from_maps(maps_of(labels), PLAIN).labels, labels)


@settings(deadline=None, max_examples=200)
@given(labels=LABELS)
def test_centres_are_centroids_or_own_pixels_nearest_to_them(labels):
    found = centres(labels)
    top = max(int(labels.max()), 0)
    assert found.position.shape == (top + 1, 2) and found.radius.shape == (top + 1,)
    for label in range(1, top + 1):
        own = np.argwhere(labels == label)
        if not len(own):
            continue
        assert found.radius[label] == pytest.approx(np.sqrt(len(own) / np.pi))
        centroid = own.mean(0)
        y, x = found.position[label]
        assert labels[int(y + 0.5), int(x + 0.5)] == label
        if not np.allclose([y, x], centroid, atol=1e-5):
            distance = ((own - centroid) ** 2).sum(1)
            assert [y, x] in own.tolist()
            assert ((np.array([y, x]) - centroid) ** 2).sum() == pytest.approx(distance.min(), abs=1e-5)
            assert labels[tuple(np.floor(centroid + 0.5).astype(int))] != label


def ring(radius, hole, height=40, width=40):
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2)
    return ((distance <= radius) & (distance > hole)).astype(np.int32)


def crescent():
    y, x = np.mgrid[:40, :40]
    return ((np.hypot(y - 20, x - 20) <= 15) & (np.hypot(y - 20, x - 24) > 15)).astype(np.int32)


@pytest.mark.parametrize(
    "labels",
    [ring(12, 6), ring(15, 13), crescent(), crescent().T],
    ids=["ring", "thin", "opening right", "opening down"],
)
def test_centres_of_rings_and_crescents_lie_in_them(labels):
    (y, x), inside = centres(labels).position[1], labels > 0
    assert inside[round(float(y)), round(float(x))]
    centroid = np.argwhere(inside).mean(0)
    assert not inside[tuple(np.rint(centroid).astype(int))]
    # The centre is a pixel of its own, so the heat reaches its highest value, and there.
    assert np.argwhere(whole(labels).heat[0, 0].numpy() == 1).tolist() == [[y, x]]


@settings(deadline=None, max_examples=150)
@given(labels=LABELS)
def test_targets_at_each_pixel(labels):
    t = whole(labels)
    nucleus = labels > 0
    np.testing.assert_array_equal(t.classes[0].numpy(), nucleus)
    np.testing.assert_array_equal(t.known[0].numpy(), labels >= 0)
    heat, offset, radius = t.heat[0, 0].numpy(), t.offset[0].numpy(), t.radius[0, 0].numpy()
    assert heat.shape == labels.shape and offset.shape == (2, *labels.shape)
    assert not heat[~nucleus].any() and not offset[:, ~nucleus].any()
    assert ((heat[nucleus] > 0) & (heat[nucleus] <= 1)).all()
    # Each pixel's offset leads to the centre of its own nucleus.
    found = centres(labels)
    there = np.moveaxis(np.indices(labels.shape) + offset, 0, 2)
    np.testing.assert_allclose(there[nucleus], found.position[labels[nucleus]], atol=1e-5)
    np.testing.assert_allclose(radius[nucleus], found.radius[labels[nucleus]])
    # The heat falls with the distance from the centre.
    for label in np.unique(labels[nucleus]):
        own = labels == label
        order = np.argsort(np.hypot(*offset[:, own]))
        assert (np.diff(heat[own][order]) <= 1e-6).all()


@settings(deadline=None, max_examples=60)
@given(labels=LABELS, seed=st.integers(0, 1000))
def test_numbers_of_the_nuclei_do_not_matter(labels, seed):
    order = np.random.default_rng(seed).permutation(np.arange(1, 30)).astype(np.int32)
    renumbered = np.where(labels > 0, order[np.maximum(labels, 1) - 1], labels)
    one, two = whole(labels), whole(renumbered)
    for name in PARTS:
        assert torch.equal(getattr(one, name), getattr(two, name)), name


@settings(deadline=None, max_examples=60)
@given(labels=ellipses(), dy=st.integers(0, 5), dx=st.integers(0, 5))
def test_moving_the_labels_moves_the_targets(labels, dy, dx):
    height, width = labels.shape
    one, two = whole(labels), whole(np.pad(labels, ((dy, 3), (dx, 2))))
    part = (..., slice(dy, dy + height), slice(dx, dx + width))
    assert torch.equal(two.classes[part], one.classes) and torch.equal(two.known[part], one.known)
    for name in ("heat", "offset", "radius", "weight"):
        torch.testing.assert_close(getattr(two, name)[part], getattr(one, name), atol=1e-4, rtol=1e-4)


def test_encode_treats_each_image_of_a_batch_alone():
    labels = torch.randint(-1, 3, (3, 5, 6))
    offset, radius, weight = torch.randn(3, 2, 5, 6), torch.rand(3, 1, 5, 6) * 9 + 1, torch.rand(3, 5, 6)
    batch = encode(labels, offset, radius, weight)
    for i in range(3):
        one = encode(labels[i : i + 1], offset[i : i + 1], radius[i : i + 1], weight[i : i + 1])
        assert all(torch.equal(getattr(one, name)[0], getattr(batch, name)[i]) for name in PARTS)
    assert (batch.classes.dtype, batch.known.dtype, batch.heat.dtype) == (torch.uint8, torch.bool, torch.float32)


@settings(deadline=None, max_examples=60)
@given(labels=LABELS)
def test_importance_is_positive_and_falls_with_the_radius(labels):
    radius = centres(labels).radius
    found = importance(labels, radius)
    assert found.shape == labels.shape and found.dtype == np.float32
    assert (found > 0).all() and np.isfinite(found).all()
    assert (importance(labels, 2 * radius) <= found).all()
    own = labels > 0
    order = np.argsort(radius[labels[own]])
    assert (np.diff(found[own][order]) <= 0).all()
    # The ground counts no more than the most important nucleus, and no less than without one.
    least = importance(np.zeros_like(labels), np.ones(1, np.float32))
    assert (found >= least).all() and (not own.any() or found[~own].max(initial=0) <= found[own].max())


def test_an_image_without_nuclei():
    t = whole(np.array([[0, 0], [-1, 0]], np.int32))
    assert not t.classes.any() and not t.heat.any() and not t.offset.any()
    assert t.known.tolist() == [[[True, True], [False, True]]]
    assert torch.isfinite(t.radius.log()).all()
