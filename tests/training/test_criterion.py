"""The criterion: a sum and a weight, whatever the batches."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.batches import make_batch

from nucleate import losses
from nucleate.networks.unet import UNIT, split
from nucleate.training.criterion import SegmentationCriterion


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), huge=st.sampled_from([1e4, -1e4, 3e38]))
def test_unknown_pixels_change_neither_loss_nor_gradient(seed, huge):
    criterion, batch = SegmentationCriterion(), make_batch(2, seed)
    unknown = ~batch.targets.known
    maps = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(seed))
    wide = unknown[:, None].expand_as(maps)

    def judged(values, targets):
        values = values.clone().requires_grad_(True)
        totals = criterion.totals(values, targets)
        (slope,) = torch.autograd.grad(sum(totals.values()), values)
        return {name: total.item() for name, total in totals.items()}, slope

    expected, slope = judged(maps, batch.targets)
    t = batch.targets
    hidden = {"classes": 1 - t.classes, "heat": torch.ones_like(t.heat), "radius": torch.full_like(t.radius, 3.0)}
    hidden |= {"offset": torch.full_like(t.offset, abs(huge)), "weight": torch.full_like(t.weight, 7.0)}
    changed = dataclasses.replace(
        t,
        **{
            name: torch.where(unknown if value.ndim == 3 else unknown[:, None], value, getattr(t, name))
            for name, value in hidden.items()
        },
    )
    # What the network gives there may be huge, as long as it is a number.
    found, other = judged(torch.where(wide, huge / UNIT, maps), changed)
    assert found == expected
    assert not slope[wide].any() and not other[wide].any()
    assert torch.equal(slope, other) and torch.isfinite(slope).all()
    assert criterion.weights(changed) == criterion.weights(t)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("classes", [2, 3])
def test_totals_and_weights_are_those_of_the_losses(loss, classes):
    criterion, t = SegmentationCriterion(classes, loss), make_batch(3).targets
    maps = torch.randn(3, classes + 4, 16, 16)
    totals, weights, out = criterion.totals(maps, t), criterion.weights(t), split(maps, classes)
    known = t.known.unsqueeze(1)
    weight = t.weight.unsqueeze(1)
    expected = {
        loss: losses.total_and_weight(losses.by_name(loss), out.logits, t.classes, mask=t.known, weight=t.weight),
        "heat": losses.total_and_weight(losses.binary_cross_entropy, out.heat, t.heat, mask=known, weight=weight),
    }
    for name, (total, summed) in expected.items():
        assert float(totals[name]) == pytest.approx(float(total), rel=1e-5)
        assert weights[name] == pytest.approx(float(summed), rel=1e-6)
    nuclei = float(t.weight[t.known & (t.classes > 0)].sum())
    assert weights["offset"] == weights["radius"] == pytest.approx(nuclei) and nuclei > 0
    assert totals.keys() == weights.keys() == criterion.terms.keys()


def test_offset_and_radius_vanish_at_the_truth_and_grow_away_from_it():
    criterion, t = SegmentationCriterion(), make_batch(2).targets
    maps = torch.zeros(2, 6, 16, 16)
    maps[:, 3:5] = t.offset / UNIT
    maps[:, 5:] = (t.radius / UNIT).log()
    at = criterion.totals(maps, t)
    assert float(at["offset"]) == pytest.approx(0, abs=1e-3) and float(at["radius"]) == pytest.approx(0, abs=1e-3)
    away = [criterion.totals(maps + step, t) for step in (0.1, 0.5, 2.0)]
    for name in ("offset", "radius"):
        values = [float(one[name]) for one in (at, *away)]
        assert values == sorted(values) and values[1] > values[0] + 1e-3
