"""Backpropagation: the gradient of the whole, whatever the batches."""

import numpy as np
import pytest
import torch
from tests.training.batches import joined_targets, make_batch, part

from nucleate.data.augment import Batch
from nucleate.errors import TrainingError
from nucleate.networks.unet import Architecture, UNet
from nucleate.postprocess.targets import whole
from nucleate.training.criterion import SegmentationCriterion, sum_terms, weighted_mean
from nucleate.training.gradient import Backpropagation
from nucleate.training.parallel import Threads
from nucleate.training.pixel_loss import pixel_losses


def network(classes=2):
    torch.manual_seed(0)
    made = UNet(Architecture(classes=classes, widths=(8, 8)))
    torch.nn.init.normal_(made.heads.maps.weight, std=0.3)
    return made


def backward(made, batches, loss="cross_entropy", parallel=None):
    """In float32, so that equal sums are equal to its precision on every processor."""
    criterion = SegmentationCriterion(made.architecture.classes, loss)
    return Backpropagation(made).backward(criterion, batches, bfloat16=False, parallel=parallel)


def gradient(made, batches, loss="cross_entropy", parallel=None):
    made.zero_grad()
    value = backward(made, batches, loss, parallel)
    return value, [None if p.grad is None else p.grad.clone() for p in made.parameters()]


@pytest.mark.parametrize("loss", [*pixel_losses(), "cross_entropy+0.5*dice", "0.3*focal+lovasz_softmax+2*hinge"])
@pytest.mark.parametrize("sizes", [(2, 2), (3, 1), (1, 1, 1, 1), (1, 3)])
def test_the_gradient_does_not_depend_on_how_samples_are_spread(sizes, loss):
    made, batch = network(), make_batch(4)
    value, expected = gradient(made, [batch], loss)
    found, grads = gradient(made, [part(batch, rows) for rows in torch.arange(4).split(sizes)], loss)
    assert found == pytest.approx(value, rel=1e-5)
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (1, 1, 1, 1)])
def test_side_by_side_is_in_turn_and_the_same_to_the_last_bit_each_time(sizes):
    made, batch = network(), make_batch(4)
    batches = [part(batch, rows) for rows in torch.arange(4).split(sizes)]
    value, expected = gradient(made, batches)
    with Threads() as threads:
        first, before = gradient(made, batches, parallel=threads)
        assert first == pytest.approx(value, rel=1e-6)
        for one, other in zip(before, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        for _ in range(5):
            found, grads = gradient(made, batches, parallel=threads)
            assert found == first
            assert all(torch.equal(one, other) for one, other in zip(grads, before, strict=True))


def test_the_gradient_is_that_of_the_network_as_it_is():
    """Against one plain backward pass through everything, the standardisation of the weights included."""
    made, batch = network(), make_batch(3)
    value, found = gradient(made, [batch])
    made.zero_grad()
    criterion = SegmentationCriterion()
    totals, weights = criterion.totals(made(batch.image), batch.targets), criterion.weights(batch.targets)
    plain = sum(share * totals[name] / weights[name] for name, share in criterion.terms.items())
    plain.backward()
    assert value == pytest.approx(plain.item(), rel=1e-5)
    for one, parameter in zip(found, made.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-6)


def test_an_error_leaves_the_network_usable():
    made = network()
    wrong = Batch(torch.zeros(1, 1, 7, 7), make_batch(1).targets)
    with pytest.raises(RuntimeError):
        backward(made, [wrong])
    value, grads = gradient(made, [make_batch(2)])
    assert np.isfinite(value) and all(g is not None for g in grads)


def test_an_unknown_sample_beside_others_changes_nothing():
    made, batch = network(), make_batch(2)
    value, expected = gradient(made, [batch])
    hidden = make_batch(1, seed=9)
    hidden.targets.known[:] = False
    found, grads = gradient(made, [batch, hidden])
    assert found == pytest.approx(value, rel=1e-6)
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("batches", [1, 3])
def test_nothing_known_gives_zero_and_no_gradient(batches):
    made = network()
    parts = [make_batch(2, seed=i) for i in range(batches)]
    for one in parts:
        one.targets.known[:] = False
    value, grads = gradient(made, parts)
    assert value == 0
    assert all(g is None or not g.any() for g in grads)


def test_no_nucleus_leaves_the_terms_of_nuclei_out():
    made = network()
    batch = make_batch(2)
    empty = Batch(batch.image, joined_targets([whole(np.zeros((16, 16), np.int32))] * 2))
    value, grads = gradient(made, [empty])
    assert value > 0 and np.isfinite(value)
    assert all(torch.isfinite(g).all() for g in grads)
    weights = SegmentationCriterion().weights(empty.targets)
    assert weights["cross_entropy"] == weights["heat"] > 0 and weights["offset"] == weights["radius"] == 0


def test_the_value_is_the_mean_of_totals_over_weights():
    made, parts = network(), [make_batch(3, seed=1), make_batch(1, seed=2)]
    criterion = SegmentationCriterion()
    totals = sum_terms(
        {k: float(v) for k, v in criterion.totals(made(p.image).detach(), p.targets).items()} for p in parts
    )
    weights = sum_terms(criterion.weights(p.targets) for p in parts)
    expected = sum(share * totals[name] / weights[name] for name, share in criterion.terms.items())
    assert weighted_mean(totals, weights, criterion.terms) == pytest.approx(expected)
    assert gradient(made, parts)[0] == pytest.approx(expected, rel=1e-5)


def test_gradients_are_added_to_those_that_are_there():
    made, batch = network(), make_batch(2)
    _, once = gradient(made, [batch])
    backward(made, [batch])
    for parameter, grad in zip(made.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * grad, rtol=1e-4, atol=1e-7)


def test_a_loss_that_is_not_finite_is_an_error_with_advice():
    made, batch = network(), make_batch(1)
    with torch.no_grad():
        made.heads.maps.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="learning rate"):
        backward(made, [batch])


def test_a_step_downhill_lowers_the_loss():
    made, batch = network(), make_batch(4)
    optimiser = torch.optim.SGD(made.parameters(), lr=1e-3)
    values = []
    for _ in range(5):
        optimiser.zero_grad()
        values.append(backward(made, [batch]))
        optimiser.step()
    assert values == sorted(values, reverse=True) and values[-1] < values[0]


@pytest.mark.parametrize("bfloat16", [True, False])
def test_products_are_in_the_format_asked_for(bfloat16):
    seen = []

    class Spied(SegmentationCriterion):
        def derivative(self, packed, targets, shares):
            seen.append(packed.dtype)
            return super().derivative(packed, targets, shares)

    Backpropagation(network()).backward(Spied(), [make_batch(1)], bfloat16=bfloat16)
    assert seen == [torch.bfloat16 if bfloat16 else torch.float32]
