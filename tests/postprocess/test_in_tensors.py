"""Post-processing in operations on tensors gives the labels of the kernels, to the last pixel."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nucleate.postprocess import in_tensors, kernels
from nucleate.postprocess.instances_from_maps import instances_from_maps
from nucleate.types import Maps, Thresholds


def blobs(seed, shape, labels):
    """A label image of coarse random patches, with holes and pieces of one label that do not touch."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, labels + 1, (-(-shape[0] // 2), -(-shape[1] // 2)))
    fine = coarse.repeat(2, 0).repeat(2, 1)[: shape[0], : shape[1]]
    return np.where(rng.random(shape) < 0.1, 0, fine).astype(np.int32)


def maps_of(seed, shape, scale):
    """Maps such as no network gives: noise in which candidates crowd, offsets lead anywhere and heats are equal."""
    rng = np.random.default_rng(seed)

    def noise(low, high, *planes):
        small = rng.random((*planes, -(-shape[0] // 4), -(-shape[1] // 4)))
        values = small.repeat(4, -2).repeat(4, -1)[..., : shape[0], : shape[1]] + 0.2 * rng.random((*planes, *shape))
        return (low + (high - low) * values / 1.2).astype(np.float32)

    heat = np.round(noise(0, 1), 1 + seed % 3).astype(np.float32)
    return Maps(noise(0.2, 1.1).clip(0, 1), heat, noise(-scale, scale, 2), noise(0.5, scale))


SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(st.integers(0, 2**32 - 1), SHAPES, st.integers(1, 4), st.integers(0, 12))
@example(0, (1, 1), 1, 0)
def test_components_are_those_of_the_kernel(seed, shape, labels, min_area):
    image = blobs(seed, shape, labels)
    kept = in_tensors.largest_pieces(torch.from_numpy(image).long(), min_area)
    found = in_tensors.without_holes(kept)
    np.testing.assert_array_equal(found.numpy(), kernels.keep_largest_component(image, min_area))


def test_a_long_winding_piece_is_one():
    image = np.zeros((61, 61), np.int32)
    image[::4] = 1
    image[2::4] = 1
    image[1::4, -1] = 1
    image[3::4, 0] = 1
    assert len(np.unique(in_tensors.pieces(torch.from_numpy(image).long())[image > 0])) == 1


thresholds = st.builds(
    Thresholds,
    foreground=st.sampled_from([0.3, 0.5, 0.7]),
    peak_threshold=st.sampled_from([0.1, 0.3, 0.6]),
    nms_radius=st.sampled_from([0.0, 0.7, 1.2, 4.0]),
    assign_radius=st.sampled_from([0.0, 0.6, 1.0, 4.0]),
    min_area=st.integers(0, 30),
    seed_foreground=st.sampled_from([0.0, 0.5, 0.8]),
)


def found(maps, t):
    tensors = (torch.from_numpy(part) for part in (maps.foreground, maps.heat, maps.offset, maps.radius))
    limits = (t.foreground, t.peak_threshold, t.seed_foreground, t.nms_radius, t.assign_radius, t.min_area)
    return in_tensors.numbered(in_tensors.instances(*tensors, *limits))


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), SHAPES, st.sampled_from([3, 9, 90]), thresholds)
@example(0, (1, 1), 3, Thresholds(min_area=0, seed_foreground=0.0))
def test_instances_are_those_of_the_kernels(seed, shape, scale, limits):
    maps = maps_of(seed, shape, scale)
    labels = found(maps, limits)
    assert labels.dtype == torch.int32
    np.testing.assert_array_equal(labels.numpy(), instances_from_maps(maps, limits).labels)


def test_many_candidates_and_wide_centres_in_several_goes():
    rng, shape = np.random.default_rng(0), (230, 310)
    heat, radius = rng.random(shape, dtype=np.float32), 3 + 5 * rng.random(shape, dtype=np.float32)
    radius[100:104] = 60.0
    maps = Maps(np.ones(shape, np.float32), heat, rng.normal(0, 6, (2, *shape)).astype(np.float32), radius)
    limits = Thresholds(nms_radius=0.5, min_area=3)
    expected = instances_from_maps(maps, limits)
    assert len(expected.centre) > 1000
    np.testing.assert_array_equal(found(maps, limits).numpy(), expected.labels)
    place, radii = torch.from_numpy(expected.centre), torch.from_numpy(radius[tuple(expected.centre.T)])
    once = in_tensors.owners(place, radii, 1.0, *shape)
    for at_once in (1, 10_000):
        assert torch.equal(in_tensors.owners(place, radii, 1.0, *shape, at_once=at_once), once)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1)])
def test_no_candidate_gives_background(shape):
    empty = Maps(*(np.zeros((*planes, *shape), np.float32) for planes in ((), (), (2,), ())))
    assert not found(empty, Thresholds()).any()
