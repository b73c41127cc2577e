"""A folded network that learns again computes what it did."""

import pytest
import torch

from nucleate.errors import ModelError
from nucleate.networks import store
from nucleate.networks.unet import Architecture, GroupConvolution, UNet
from nucleate.networks.unfold import negated, unfolded, with_channels


def learnt(architecture, seed=0):
    """A network as it is after some training: no parameter is as it began, kernels have grown."""
    torch.manual_seed(seed)
    network = UNet(architecture)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter)).mul_(1.5)
    return network


@pytest.mark.parametrize("architecture", [Architecture(widths=(8, 16)), Architecture(3, 4, (16, 8, 24))], ids=str)
def test_unfolded_computes_the_same_and_learns(architecture):
    network = learnt(architecture)
    image = torch.rand(2, architecture.channels, 32, 48)
    again = unfolded(network.folded())
    expected = network(image)
    torch.testing.assert_close(again(image), expected, rtol=1e-4, atol=1e-4)
    again(image).square().sum().backward()
    assert all(parameter.grad is not None for parameter in again.parameters())


def test_kernels_get_the_length_that_they_begin_with():
    for module in unfolded(learnt(Architecture()).folded()).modules():
        if isinstance(module, GroupConvolution):
            fan_in = module.weight[0].numel()
            torch.testing.assert_close(module.weight.flatten(1).norm(dim=1), torch.full((len(module.weight),), 1.0))
            fresh = type(module)(module.in_channels, module.out_channels, module.kernel_size[0])
            assert fresh.weight.std().item() * fan_in**0.5 == pytest.approx(1, rel=0.1)


def test_the_embedded_model_comes_back_within_half_precision():
    folded = store.read(store.locate("fluorescence")).network
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before, after = folded(image), unfolded(folded)(image)
    assert (before - after).abs().max() < 1e-3 * before.abs().max()


def test_a_network_without_the_symmetry_is_refused():
    folded = learnt(Architecture(widths=(8, 16))).folded()
    folded.encoder.down[0].weight[-1].mul_(-1)
    with pytest.raises(ModelError, match="train it again"):
        unfolded(folded)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 4)])
def test_other_channels_that_are_all_alike_give_the_same(before, after):
    network, image = learnt(Architecture(before, widths=(8, 16))), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        expected = network(image.repeat(1, before, 1, 1))
        found = with_channels(network, after)(image.repeat(1, after, 1, 1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_negated_changes_the_sign_of_the_first_layer_alone():
    network = learnt(Architecture(widths=(8, 16)))
    other = negated(network)
    differing = {
        name for name, value in network.state_dict().items() if not torch.equal(value, other.state_dict()[name])
    }
    assert differing == {"encoder.stem.weight"}
    assert torch.equal(other.encoder.stem.weight, -network.encoder.stem.weight)
