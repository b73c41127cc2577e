"""The training step: a sum and a weight, whatever the batches."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate import losses
from nucleate.data.augment import Batch
from nucleate.errors import TrainingError
from nucleate.networks.unet import UNIT, Architecture, UNet, split
from nucleate.postprocess.targets import Targets, whole
from nucleate.training.criterion import LOSSES, TERMS, Averaged, Objective, added, backward, mean
from nucleate.training.parallel import Cores

CPU = torch.device("cpu")
HERE = {"where": CPU, "bfloat16": False}  # so that equal sums are equal to float32's precision on every processor
PARTS = tuple(field.name for field in dataclasses.fields(Targets))


def network(classes=2):
    torch.manual_seed(0)
    made = UNet(Architecture(classes=classes, widths=(8, 8)))
    torch.nn.init.normal_(made.heads.maps.weight, std=0.3)
    return made


def joined(parts):
    return Targets(**{name: torch.cat([getattr(one, name) for one in parts]) for name in PARTS})


def make(count, seed=0, size=16):
    """Samples whose shares of nuclei and of unknown pixels differ, so that a mean of means would be wrong."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(count):
        labels = np.where(rng.random((size, size)) < rng.random(), rng.integers(1, 6, (size, size)), 0)
        labels[rng.random((size, size)) < 0.5 * rng.random()] = -1
        parts.append(whole(labels.astype(np.int32)))
    image = rng.normal(size=(count, 1, size, size)).astype(np.float32)
    return Batch(torch.from_numpy(image), joined(parts))


def part(batch, rows):
    return Batch(batch.image[rows], Targets(**{name: getattr(batch.targets, name)[rows] for name in PARTS}))


def gradient(made, batches, loss="cross_entropy", cores=None):
    made.zero_grad()
    value = backward(made, Objective(made.architecture.classes, loss), batches, **HERE, cores=cores)
    return value, [None if p.grad is None else p.grad.clone() for p in made.parameters()]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", [(2, 2), (3, 1), (1, 1, 1, 1), (1, 3)])
def test_the_gradient_does_not_depend_on_how_samples_are_spread(sizes, loss):
    made, batch = network(), make(4)
    value, expected = gradient(made, [batch], loss)
    found, grads = gradient(made, [part(batch, rows) for rows in torch.arange(4).split(sizes)], loss)
    assert found == pytest.approx(value, rel=1e-5)
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (1, 1, 1, 1)])
def test_side_by_side_is_in_turn_and_the_same_to_the_last_bit_each_time(sizes):
    made, batch = network(), make(4)
    batches = [part(batch, rows) for rows in torch.arange(4).split(sizes)]
    value, expected = gradient(made, batches)
    with Cores() as cores:
        first, before = gradient(made, batches, cores=cores)
        assert first == pytest.approx(value, rel=1e-6)
        for one, other in zip(before, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        for _ in range(5):
            found, grads = gradient(made, batches, cores=cores)
            assert found == first
            assert all(torch.equal(one, other) for one, other in zip(grads, before, strict=True))


def test_the_gradient_is_that_of_the_network_as_it_is():
    """Against one plain backward pass through everything, the standardisation of the weights included."""
    made, batch = network(), make(3)
    value, found = gradient(made, [batch])
    made.zero_grad()
    objective = Objective()
    totals, weights = objective.totals(made(batch.image), batch.targets), objective.weights(batch.targets)
    plain = sum(share * totals[name] / weights[name] for name, share in TERMS.items())
    plain.backward()
    assert value == pytest.approx(plain.item(), rel=1e-5)
    for one, parameter in zip(found, made.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-6)


def test_an_error_leaves_the_network_usable():
    made = network()
    wrong = Batch(torch.zeros(1, 1, 7, 7), make(1).targets)
    with pytest.raises(RuntimeError):
        backward(made, Objective(), [wrong], **HERE)
    value, grads = gradient(made, [make(2)])
    assert np.isfinite(value) and all(g is not None for g in grads)


def test_an_unknown_sample_beside_others_changes_nothing():
    made, batch = network(), make(2)
    value, expected = gradient(made, [batch])
    hidden = make(1, seed=9)
    hidden.targets.known[:] = False
    found, grads = gradient(made, [batch, hidden])
    assert found == pytest.approx(value, rel=1e-6)
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), huge=st.sampled_from([1e4, -1e4, 3e38]))
def test_unknown_pixels_change_neither_loss_nor_gradient(seed, huge):
    objective, batch = Objective(), make(2, seed)
    unknown = ~batch.targets.known
    maps = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(seed))
    wide = unknown[:, None].expand_as(maps)

    def judged(values, targets):
        values = values.clone().requires_grad_(True)
        totals = objective.totals(values, targets)
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
    assert objective.weights(changed) == objective.weights(t)


@pytest.mark.parametrize("batches", [1, 3])
def test_nothing_known_gives_zero_and_no_gradient(batches):
    made = network()
    parts = [make(2, seed=i) for i in range(batches)]
    for one in parts:
        one.targets.known[:] = False
    value, grads = gradient(made, parts)
    assert value == 0
    assert all(g is None or not g.any() for g in grads)


def test_no_nucleus_leaves_the_terms_of_nuclei_out():
    made = network()
    batch = make(2)
    empty = Batch(batch.image, joined([whole(np.zeros((16, 16), np.int32))] * 2))
    value, grads = gradient(made, [empty])
    assert value > 0 and np.isfinite(value)
    assert all(torch.isfinite(g).all() for g in grads)
    weights = Objective().weights(empty.targets)
    assert weights["classes"] == weights["heat"] > 0 and weights["offset"] == weights["radius"] == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("classes", [2, 3])
def test_totals_and_weights_are_those_of_the_losses(loss, classes):
    objective, t = Objective(classes, loss), make(3).targets
    maps = torch.randn(3, classes + 4, 16, 16)
    totals, weights, out = objective.totals(maps, t), objective.weights(t), split(maps, classes)
    known = t.known.unsqueeze(1)
    weight = t.weight.unsqueeze(1)
    expected = {
        "classes": losses.total_and_weight(LOSSES[loss], out.logits, t.classes, mask=t.known, position_weight=t.weight),
        "heat": losses.total_and_weight(losses.binary_cross_entropy, out.heat, t.heat, mask=known, weight=weight),
    }
    for name, (total, summed) in expected.items():
        assert float(totals[name]) == pytest.approx(float(total), rel=1e-5)
        assert weights[name] == pytest.approx(float(summed), rel=1e-6)
    nuclei = float(t.weight[t.known & (t.classes > 0)].sum())
    assert weights["offset"] == weights["radius"] == pytest.approx(nuclei) and nuclei > 0
    assert totals.keys() == weights.keys() == TERMS.keys()


def test_offset_and_radius_vanish_at_the_truth_and_grow_away_from_it():
    objective, t = Objective(), make(2).targets
    maps = torch.zeros(2, 6, 16, 16)
    maps[:, 3:5] = t.offset / UNIT
    maps[:, 5:] = (t.radius / UNIT).log()
    at = objective.totals(maps, t)
    assert float(at["offset"]) == pytest.approx(0, abs=1e-3) and float(at["radius"]) == pytest.approx(0, abs=1e-3)
    away = [objective.totals(maps + step, t) for step in (0.1, 0.5, 2.0)]
    for name in ("offset", "radius"):
        values = [float(one[name]) for one in (at, *away)]
        assert values == sorted(values) and values[1] > values[0] + 1e-3


def test_the_value_is_the_mean_of_totals_over_weights():
    made, parts = network(), [make(3, seed=1), make(1, seed=2)]
    objective = Objective()
    totals = added({k: float(v) for k, v in objective.totals(made(p.image).detach(), p.targets).items()} for p in parts)
    weights = added(objective.weights(p.targets) for p in parts)
    expected = sum(TERMS[name] * totals[name] / weights[name] for name in TERMS)
    assert mean(totals, weights) == pytest.approx(expected)
    assert gradient(made, parts)[0] == pytest.approx(expected, rel=1e-5)


def test_gradients_are_added_to_those_that_are_there():
    made, batch = network(), make(2)
    _, once = gradient(made, [batch])
    backward(made, Objective(), [batch], **HERE)
    for parameter, grad in zip(made.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * grad, rtol=1e-4, atol=1e-7)


def test_a_loss_that_is_not_finite_is_an_error_with_advice():
    made, batch = network(), make(1)
    with torch.no_grad():
        made.heads.maps.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="learning rate"):
        backward(made, Objective(), [batch], **HERE)


def test_a_step_downhill_lowers_the_loss():
    made, batch = network(), make(4)
    optimiser = torch.optim.SGD(made.parameters(), lr=1e-3)
    values = []
    for _ in range(5):
        optimiser.zero_grad()
        values.append(backward(made, Objective(), [batch], **HERE))
        optimiser.step()
    assert values == sorted(values, reverse=True) and values[-1] < values[0]


def test_the_average_of_constant_weights_is_those_weights():
    made = network()
    averaged = Averaged(made)
    for step in range(50):
        averaged.update(made, step)
    for a, w in zip(averaged.network.parameters(), made.parameters(), strict=True):
        assert torch.equal(a, w)
    assert not any(p.requires_grad for p in averaged.network.parameters())


def test_the_average_comes_to_new_weights_and_lies_between_old_and_new():
    made = network()
    averaged = Averaged(made, decay=0.8)
    old = [p.detach().clone() for p in made.parameters()]
    with torch.no_grad():
        for p in made.parameters():
            p.add_(1)
    left = []
    for step in range(120):
        averaged.update(made, step)
        gaps = [(w - a).flatten() for a, w in zip(averaged.network.parameters(), made.parameters(), strict=True)]
        left.append(torch.cat(gaps).mean().item())
    # Nearer with each step, until float32 ends it, and never beyond.
    assert all(0 < b < a for a, b in itertools.pairwise([1.0, *left[:20]]))
    assert abs(left[-1]) < 1e-5
    # The weights of the network itself are not touched.
    for p, before in zip(made.parameters(), old, strict=True):
        torch.testing.assert_close(p.detach(), before + 1)


def test_the_average_is_the_formula():
    made = network()
    averaged = Averaged(made, decay=0.5)
    a, w = next(averaged.network.parameters()), next(made.parameters())
    for step in (0, 3, 100):
        with torch.no_grad():
            w.normal_()
        d = min(0.5, (1 + step) / (10 + step))
        expected = a + (1 - d) * (w.detach() - a)
        averaged.update(made, step)
        torch.testing.assert_close(a, expected)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_products_are_in_the_format_asked_for(monkeypatch, bfloat16):
    seen, derivative = [], Objective.derivative

    def spied(self, packed, targets, shares):
        seen.append(packed.dtype)
        return derivative(self, packed, targets, shares)

    monkeypatch.setattr(Objective, "derivative", spied)
    backward(network(), Objective(), [make(1)], where=CPU, bfloat16=bfloat16)
    assert seen == [torch.bfloat16 if bfloat16 else torch.float32]
