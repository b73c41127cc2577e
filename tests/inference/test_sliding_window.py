"""An image through the network by blocks: what the whole gives, to the last bit, resized or not."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nucleate.inference import sliding_window
from nucleate.inference.backends import TorchBackend
from nucleate.inference.sliding_window import APART, AROUND, GLANCE, JUDGED, LARGE, BlankCache, SlidingWindow, windows
from nucleate.networks.unet import UNIT, Architecture, UNet
from nucleate.postprocess.rescale import zoom
from nucleate.types import Box


class Exact:
    """Stands for a network: each output is the largest input within `reach`, times a power of two. No rounding, so
    the output of a pixel is the same in each block that holds what it depends on, and in no other."""

    def __init__(self, reach=3, radius=14.0, stride=4):
        self.architecture = Architecture(widths=(8,) * int(math.log2(stride)))
        self.reach, self.radius, self.shapes, self.expected = reach, radius, [], []

    def expect(self, height, width):
        self.expected.append((height, width))

    def raw(self, image):
        self.shapes.append(tuple(image.shape[-2:]))
        stride = self.architecture.stride
        padded = F.pad(image, (0, -image.shape[3] % stride, 0, -image.shape[2] % stride))
        most = F.max_pool2d(padded, 2 * self.reach + 1, 1, self.reach)[..., : image.shape[2], : image.shape[3]]
        radius = torch.full_like(most, math.log(self.radius / UNIT))
        return torch.cat([-most, most, most / 2, most / 4, most * 2, radius], dim=1)


def image_of(seed, shape):
    return torch.from_numpy(np.random.default_rng(seed).random((1, 1, *shape)).astype(np.float32))


def reader_of(image):
    return lambda box: image[..., *box.within(Box(0, 0, *image.shape[-2:]))].clone()


def plan_of(network, image, side):
    return SlidingWindow.plan(network, tuple(image.shape[-2:]), reader_of(image), side=side)


def whole_of(network, image, side):
    return plan_of(network, image, side).whole(reader_of(image))


@pytest.mark.parametrize(("shape", "side", "many"), [((61, 61), 48, False), ((150, 149), 48, True)])
def test_the_network_is_told_of_the_one_shape_that_many_blocks_have(shape, side, many):
    network = Exact(reach=2)
    image = image_of(0, shape)
    cut = plan_of(network, image, side)
    assert (len(cut.blocks) >= sliding_window.MANY) == many
    network.shapes.clear()
    cut.whole(reader_of(image))
    stride = network.architecture.stride
    padded = {tuple(-(-n // stride) * stride for n in shape) for shape in network.shapes}
    assert network.expected == ([*padded] if many else [])


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    side=st.integers(60, 120),
    radius=st.floats(3.0, 40.0),
    reach=st.integers(0, 4),
)
def test_blocks_give_the_whole_to_the_last_bit(seed, shape, side, radius, reach):
    image = image_of(seed, shape)
    one, network = Exact(reach, radius), Exact(reach, radius)
    expected, cut = whole_of(one, image, 10**4), plan_of(network, image, side)
    assert torch.equal(cut.whole(reader_of(image)), expected)
    # Whatever is around what a block writes holds, too.
    for block in cut.blocks:
        assert block.context == block.write_region.grown(AROUND, within=shape)
        found = cut.forward(block, reader_of(image)(block.read_region))
        assert torch.equal(found, expected[..., *block.context.within(Box(0, 0, *shape))])
    # One shape for all blocks, made up to the stride.
    assert len({tuple(-(-n // 4) * 4 for n in seen) for seen in network.shapes[1:]}) <= 1


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 400), st.integers(1, 400)), side=st.integers(60, 200), radius=st.floats(3.0, 40.0)
)
def test_no_block_takes_more_than_its_side_in_the_image_or_in_the_network(shape, side, radius):
    network = Exact(2, radius)
    blocks = plan_of(network, image_of(0, shape), side).blocks
    whole = side * sliding_window.WHOLE // sliding_window.SIDE
    for block in blocks:
        sizes = (block.write_region, block.input_region)
        if len(blocks) == 1:
            # Of no more pixels than its square; made up to the stride.
            assert all(math.prod(box.shape) <= whole**2 for box in sizes)
        else:
            assert all(max(box.shape) <= side for box in sizes)


@settings(deadline=None, max_examples=40)
@given(shape=st.tuples(st.integers(1, 90), st.integers(1, 90)), radius=st.floats(3.0, 40.0))
def test_the_whole_is_interpolated_as_pytorch_does(shape, radius):
    image, network = image_of(0, shape), Exact(2, radius)
    found = plan_of(network, image, 10**4)
    assert found.factor == pytest.approx(zoom(2 * radius), rel=1e-5)
    size = [round(found.factor * length) for length in shape]
    raw = network.raw(F.interpolate(image, size=size, mode="bilinear", align_corners=False))
    raw = F.interpolate(raw, size=shape, mode="bilinear", align_corners=False)
    raw[:, 3:5] /= found.factor
    raw[:, 5] -= math.log(found.factor)
    torch.testing.assert_close(found.whole(reader_of(image)), raw, atol=2e-5, rtol=1e-5)


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 100), shape=st.tuples(st.integers(1, 100), st.integers(60, 140)), radius=st.floats(4, 30))
def test_blocks_of_a_network_give_its_whole(seed, shape, radius):
    torch.manual_seed(seed)
    made = UNet(Architecture(widths=(8, 8)))
    torch.nn.init.normal_(made.heads.maps.weight, std=0.1)
    with torch.no_grad():
        made.heads.maps.weight[20:] = 0
        made.heads.maps.bias[20:] = math.log(radius / UNIT)
        made.heads.maps.bias[4:8] = 1.0
    engine, image = TorchBackend(made, bfloat16=False), image_of(seed, shape)
    whole = whole_of(engine, image, 10**4)
    torch.testing.assert_close(whole_of(engine, image, 100), whole, atol=1e-5, rtol=1e-5)


def test_a_small_image_that_is_not_resized_is_seen_once():
    network, image = Exact(), image_of(0, (20, 30))
    assert torch.equal(whole_of(network, image, 100), Exact().raw(image))
    assert network.shapes == [(20, 30)]
    network = Exact(radius=6.0)
    whole_of(network, image, 100)
    assert network.shapes == [(20, 30), (40, 60)]


@settings(deadline=None, max_examples=60)
@given(shape=st.tuples(st.integers(1, LARGE), st.integers(1, LARGE)))
def test_size_is_judged_in_the_middles_of_equal_parts(shape):
    found = windows(shape)
    assert len(found) == (1 if max(shape) <= GLANCE else 2)
    for places, side in zip(found, (GLANCE, JUDGED), strict=False):
        assert {place.shape for place in places} == {(min(shape[0], side), min(shape[1], side))}
        for axis, length in enumerate(shape):
            begins = sorted({(place.y, place.x)[axis] for place in places})
            long = places[0].shape[axis]
            assert len(begins) == min(3, max(1, length // max(APART, side)))
            gaps = [begins[0], *(b - a - long for a, b in itertools.pairwise(begins)), length - begins[-1] - long]
            # As much around the first and the last as half of what is between two, but for rounding.
            assert min(gaps) >= 0 and abs(gaps[0] - gaps[-1]) <= 1
            assert all(abs(gap - 2 * gaps[0]) <= 3 for gap in gaps[1:-1])
        assert len(places) == len({p.y for p in places}) * len({p.x for p in places})


def test_larger_images_are_judged_in_more_places():
    counts = [len(windows((side, side))[0]) for side in (256, 500, 700, 1100, 4000)]
    assert counts == [1, 1, 4, 9, 9]


@pytest.mark.parametrize(("place", "shapes"), [(250, [(192, 192)]), (80, [(192, 192), (384, 384)])])
def test_where_the_middle_shows_no_nucleus_more_of_the_image_is_looked_at(place, shapes):
    network, image = Exact(radius=6.0), torch.full((1, 1, 500, 500), -1.0)
    image[..., place, place] = 1.0
    assert plan_of(network, image, 10**4).factor == pytest.approx(2.0)
    assert network.shapes == shapes


def test_what_any_window_shows_counts():
    network, image = Exact(radius=6.0), torch.full((1, 1, 500, 1000), -1.0)
    image[..., 250, 833] = 1.0  # in the last of three
    assert plan_of(network, image, 10**4).factor == pytest.approx(2.0)
    assert network.shapes == [(192, 192)] * 3


def test_what_any_window_of_a_large_image_shows_counts():
    network, image = Exact(radius=6.0), torch.full((1, 1, 64, LARGE + 1), -1.0)
    image[..., LARGE // 2 :] = 1.0  # in the last of the windows alone
    assert plan_of(network, image, 10**4).factor == pytest.approx(2.0)
    assert plan_of(network, torch.full_like(image, -1.0), 10**4).factor == 1.0


@settings(deadline=None, max_examples=60)
@given(shape=st.tuples(st.integers(1, 200_000), st.integers(LARGE + 1, 200_000)))
def test_the_size_in_a_large_image_is_judged_all_over_it(shape):
    (found,) = windows(shape)
    assert 1 < len(found) <= 64 and len(set(found)) == len(found)
    assert all(window.common(Box(0, 0, *shape)) == window for window in found)
    columns = sorted({window.x for window in found})
    gaps = [columns[0], *(b - a - JUDGED for a, b in itertools.pairwise(columns))]
    assert max(gaps) <= max(shape[1] / 8, 2 * sliding_window.WHOLE)
    assert len({window.shape for window in found}) == 1


@settings(deadline=None, max_examples=30)
@given(shape=st.tuples(st.integers(1, 200), st.integers(1, 200)), side=st.integers(60, 120), data=st.data())
def test_the_blocks_that_meet_a_box_are_found(shape, side, data):
    window = plan_of(Exact(2), image_of(0, shape), side)
    y, x = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    box = Box(y, x, data.draw(st.integers(1, shape[0] - y)), data.draw(st.integers(1, shape[1] - x)))
    expected = [n for n, block in enumerate(window.blocks) if block.write_region.common(box) is not None]
    assert window.meeting(box) == expected != []


def test_blank_images_go_through_the_network_once_for_each_shape_and_colour():
    network = Exact()
    cached = BlankCache(network)
    blank, image = torch.full((1, 1, 20, 30), 0.25), image_of(0, (20, 30))
    assert all(torch.equal(cached.raw(blank), Exact().raw(blank)) for _ in range(3)) and len(network.shapes) == 1
    assert all(torch.equal(cached.raw(image), Exact().raw(image)) for _ in range(2)) and len(network.shapes) == 3
    for other in (blank + 0.5, blank[..., :19, :]):
        assert torch.equal(cached.raw(other), Exact().raw(other))
    assert len(network.shapes) == 5


def test_making_a_window_runs_nothing():
    network = Exact()
    assert SlidingWindow(network, (9, 9), 1.0, (9, 9), ()).meeting(Box(0, 0, 9, 9)) == [] == network.shapes
