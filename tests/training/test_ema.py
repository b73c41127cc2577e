"""The moving average of weights."""

import itertools

import torch

from nucleate.networks.unet import Architecture, UNet
from nucleate.training.ema import ExponentialMovingAverage


def network():
    torch.manual_seed(0)
    return UNet(Architecture(widths=(8, 8)))


def test_the_average_of_constant_weights_is_those_weights():
    made = network()
    average = ExponentialMovingAverage(made)
    for step in range(50):
        average.update(made, step)
    for a, w in zip(average.network.parameters(), made.parameters(), strict=True):
        assert torch.equal(a, w)
    assert not any(p.requires_grad for p in average.network.parameters())


def test_the_average_comes_to_new_weights_and_lies_between_old_and_new():
    made = network()
    average = ExponentialMovingAverage(made, decay=0.8)
    old = [p.detach().clone() for p in made.parameters()]
    with torch.no_grad():
        for p in made.parameters():
            p.add_(1)
    left = []
    for step in range(120):
        average.update(made, step)
        gaps = [(w - a).flatten() for a, w in zip(average.network.parameters(), made.parameters(), strict=True)]
        left.append(torch.cat(gaps).mean().item())
    # Nearer with each step, until float32 ends it, and never beyond.
    assert all(0 < b < a for a, b in itertools.pairwise([1.0, *left[:20]]))
    assert abs(left[-1]) < 1e-5
    # The weights of the network itself are not touched.
    for p, before in zip(made.parameters(), old, strict=True):
        torch.testing.assert_close(p.detach(), before + 1)


def test_the_average_is_the_formula():
    made = network()
    average = ExponentialMovingAverage(made, decay=0.5)
    a, w = next(average.network.parameters()), next(made.parameters())
    for step in (0, 3, 100):
        with torch.no_grad():
            w.normal_()
        d = min(0.5, (1 + step) / (10 + step))
        expected = a + (1 - d) * (w.detach() - a)
        average.update(made, step)
        torch.testing.assert_close(a, expected)


def test_an_average_of_trained_weights_moves_at_the_decay_from_the_first_step_on():
    made, other = UNet(Architecture(widths=(8, 8))), UNet(Architecture(widths=(8, 8)))
    average = ExponentialMovingAverage(made, decay=0.9)
    average.update(other)
    for one, old, new in zip(average.network.parameters(), made.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, 0.9 * old + 0.1 * new)
