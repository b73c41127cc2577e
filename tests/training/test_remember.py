"""The loss that holds an update near the model before."""

import dataclasses

import numpy as np
import torch
from tests.training.batches import make_batch
from torch.nn import functional as F

from nucleate.networks.unet import Architecture, UNet, split
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.gradient import Backpropagation
from nucleate.training.remember import KL, OFFSET, RADIUS, RememberedTargets, RememberingCriterion

CRITERION = RememberingCriterion(SegmentationCriterion(), 2, 0.5)


def remembered(seed=0, replayed=(True, False, True)):
    batch = make_batch(3, seed)
    before = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 6, 16, 16)).astype(np.float32))
    return batch, RememberedTargets.of(batch.targets, before, torch.tensor(replayed)), before


def plain(maps, before, mask):
    """Pixel by pixel, in nats, in float64."""
    total = 0.0
    for n, y, x in np.argwhere(mask.numpy()):
        for logits in (slice(0, 2), None):
            pair = [one[n, logits, y, x] if logits else torch.stack([torch.zeros(()), one[n, 2, y, x]])
                    for one in (before, maps)]  # fmt: skip
            p, q = (one.double().softmax(0) for one in pair)
            total += float((p * (p / q).log()).sum())
    return total


def test_the_divergence_is_the_plain_sum():
    _, targets, before = remembered()
    maps = torch.randn(3, 6, 16, 16, generator=torch.Generator().manual_seed(1))
    found = float(CRITERION.distances(maps, targets)[KL])
    assert abs(found - plain(maps, before, targets.replayed)) < 1e-3 * found
    assert CRITERION.weights(targets)[KL] == float(targets.replayed.sum())


def test_offset_and_radius_are_those_of_the_loss_with_the_model_before_for_truth():
    _, targets, before = remembered()
    maps = torch.randn(3, 6, 16, 16, generator=torch.Generator().manual_seed(1))
    found, said = CRITERION.distances(maps, targets), split(before, 2)
    truth = dataclasses.replace(targets, known=targets.replayed, offset=said.offset, radius=said.log_radius.exp())
    expected = CRITERION.criterion.totals(maps, truth)
    assert found[OFFSET] == expected["offset"] and found[RADIUS] == expected["radius"] > 0


def test_it_is_nothing_where_nothing_has_changed():
    _, targets, before = remembered()
    assert abs(float(sum(CRITERION.distances(before, targets).values()))) < 1e-4


def test_unknown_and_new_pixels_do_not_count():
    batch, targets, before = remembered()
    assert not targets.replayed[1].any() and not (targets.replayed & ~batch.targets.known).any()
    maps = before.clone()
    maps[~targets.replayed[:, None].expand_as(maps)] = 9.0
    assert abs(float(sum(CRITERION.distances(maps, targets).values()))) < 1e-4


def test_the_derivative_is_that_of_the_sum():
    _, targets, _ = remembered()
    maps = torch.randn(3, 6, 16, 16, generator=torch.Generator().manual_seed(1))
    packed = F.pixel_unshuffle(maps, 2).contiguous(memory_format=torch.channels_last)
    shares = dict.fromkeys(CRITERION.terms, 0.3)
    totals, gradient = CRITERION.derivative(packed, targets, shares)
    leaf = packed.detach().clone().requires_grad_()
    whole = F.pixel_shuffle(leaf, 2)
    own = CRITERION.criterion.totals(whole, targets)
    value = sum(own.values()) + sum(CRITERION.distances(whole, targets).values())
    (expected,) = torch.autograd.grad(0.3 * value, leaf)
    assert torch.allclose(gradient, expected, atol=1e-4)
    assert totals.keys() == CRITERION.terms.keys()


def test_batches_that_are_apart_give_the_gradient_of_one():
    batch, targets, _ = remembered()
    torch.manual_seed(0)
    network = UNet(Architecture(widths=(8, 8)))
    found = []
    for groups in ([[0, 1, 2]], [[0], [1, 2]]):
        network.zero_grad()
        parts = [
            dataclasses.replace(
                batch, image=batch.image[rows],
                targets=dataclasses.replace(
                    targets, **{f.name: getattr(targets, f.name)[rows] for f in dataclasses.fields(targets)}
                ),
            )
            for rows in groups
        ]  # fmt: skip
        Backpropagation(network).backward(CRITERION, parts, bfloat16=False)
        found.append(torch.cat([one.grad.reshape(-1) for one in network.parameters()]))
    assert torch.allclose(*found, rtol=1e-4, atol=1e-6)
