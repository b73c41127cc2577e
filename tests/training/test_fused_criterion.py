"""The compiled criterion against its plain twin."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nucleate.postprocess.targets import Targets, whole
from nucleate.training import fused_criterion
from nucleate.training.criterion import SegmentationCriterion

PARTS = tuple(field.name for field in dataclasses.fields(Targets))

TERMS = SegmentationCriterion().terms


def case(seed, images, height, width, *, spread=3.0, nuclei=True):
    rng = np.random.default_rng(seed)
    targets = []
    for _ in range(images):
        coarse = rng.integers(0, 6, (-(-height // 8), -(-width // 8))) * (rng.random() < 0.9) * nuclei
        labels = np.kron(coarse, np.ones((8, 8), np.int32))[:height, :width].astype(np.int32)
        labels[rng.random(labels.shape) < 0.3 * rng.random()] = -1
        targets.append(whole(labels))
    joined = Targets(**{name: torch.cat([getattr(one, name) for one in targets]) for name in PARTS})
    values = rng.normal(0, spread, (images, 24, height // 2, width // 2)).astype(np.float32)
    return torch.from_numpy(values).contiguous(memory_format=torch.channels_last), joined


def plain(packed, targets, shares):
    """By the definition: rearranged maps, the totals of `SegmentationCriterion`, and what autograd makes of them."""
    packed = packed.detach().float().requires_grad_()
    totals = SegmentationCriterion().totals(F.pixel_shuffle(packed, 2), targets)
    (gradient,) = torch.autograd.grad(sum(shares[name] * totals[name] for name in TERMS), packed)
    return {name: total.item() for name, total in totals.items()}, gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 3),
    height=st.sampled_from([64, 96]),
    width=st.sampled_from([64, 98]),
    spread=st.sampled_from([0.0, 1.0, 30.0]),
)
def test_equal_to_the_plain_twin(dtype, seed, images, height, width, spread):
    packed, targets = case(seed, images, height, width, spread=spread)
    packed = packed.to(dtype)
    shares = dict(zip(TERMS, (0.3, 0.1, 0.7, 2.0), strict=True))
    found = fused_criterion.derivative(packed, targets, shares)
    if packed.numel() < 1 << 15:
        assert found is None  # too small to be worth the call
        return
    totals, gradient = found
    expected, slope = plain(packed, targets, shares)
    for name in TERMS:
        assert totals[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-4)
    assert gradient.dtype == dtype and gradient.stride() == packed.stride()
    # Relative. The log radius less its truth loses digits, and smooth L1 is four times as steep.
    error = {torch.float32: 4e-6, torch.bfloat16: 4e-3}[dtype]
    torch.testing.assert_close(gradient.float(), slope, rtol=10 * error, atol=error * float(slope.abs().max()))


@pytest.mark.parametrize("huge", [1e30, -1e30, float("inf"), float("nan")])
def test_what_stands_at_unknown_pixels_reaches_neither_totals_nor_gradient(huge):
    packed, targets = case(3, 2, 64, 64)
    shares = dict.fromkeys(TERMS, 1.0)
    totals, gradient = fused_criterion.derivative(packed, targets, shares)
    unknown = ~targets.known
    assert unknown.any()
    wide = F.pixel_unshuffle(unknown[:, None].expand(-1, 6, -1, -1).float(), 2) > 0
    hidden = torch.where(wide, huge, packed).contiguous(memory_format=torch.channels_last)
    found, slope = fused_criterion.derivative(hidden, targets, shares)
    assert found == totals and torch.equal(slope, gradient)
    assert not slope[wide].any()


def test_no_nucleus_gives_no_gradient_to_the_maps_of_nuclei():
    packed, targets = case(1, 1, 128, 128, nuclei=False)
    totals, gradient = fused_criterion.derivative(packed, targets, dict.fromkeys(TERMS, 1.0))
    assert totals["offset"] == totals["radius"] == 0 and totals["cross_entropy"] > 0
    assert not gradient[:, 12:].any() and gradient[:, :12].any()


def test_a_network_that_has_lost_its_mind_is_seen():
    packed, targets = case(2, 1, 128, 128)
    packed[:] = float("nan")
    totals, _ = fused_criterion.derivative(packed, targets, dict.fromkeys(TERMS, 1.0))
    assert all(np.isnan(total) for total in totals.values())


def test_maps_that_are_not_channels_last_are_left_to_the_plain_twin():
    packed, targets = case(2, 2, 64, 64)
    assert fused_criterion.derivative(packed.contiguous(), targets, dict.fromkeys(TERMS, 1.0)) is None
    totals, gradient = SegmentationCriterion().derivative(packed.contiguous(), targets, dict.fromkeys(TERMS, 1.0))
    expected, slope = plain(packed, targets, dict.fromkeys(TERMS, 1.0))
    assert totals == pytest.approx(expected)
    torch.testing.assert_close(gradient, slope)
