"""The loss of pre-training and its gradient: the same however a batch is spread, and each term can be off."""

import dataclasses
import math

import pytest
import torch

from nucleate import losses
from nucleate.data.augment import AugmentationConfig, joined
from nucleate.data.views import ViewConfig, ViewSampler
from nucleate.errors import InputError, TrainingError
from nucleate.networks.equivariant import ELEMENTS, transform
from nucleate.networks.pretraining import PretrainingNetwork
from nucleate.networks.unet import Architecture
from nucleate.training.contrast import PairBackpropagation, PretrainingConfig, PretrainingCriterion

VIEW = ViewConfig(AugmentationConfig(crop=32, blurred=0.0), points=12)
ALL = PretrainingConfig(view=VIEW)
TERMS = ("views", "places", "variance", "covariance", "reconstruction")


def network(seed=0, channels=1):
    torch.manual_seed(seed)
    return PretrainingNetwork(Architecture(channels=channels, widths=(8, 16)))


def sampler(channels=1):
    random = torch.Generator().manual_seed(0)
    return ViewSampler([torch.rand(channels, 60, 70, generator=random) for _ in range(3)], 0, VIEW)


def gradients(config, parts, channels=1, **options):
    """The value and the gradient of parts of a batch, each a range of pairs."""
    one, source = network(channels=channels), sampler(channels)
    made = PairBackpropagation(one, PretrainingCriterion(config))
    value = made.of_pairs([source.batch(part) for part in parts], bfloat16=False, **options)
    return value, {name: parameter.grad for name, parameter in one.named_parameters()}


def plain(config, pairs, channels=1):
    """The same by automatic differentiation of the network itself."""
    one, criterion = network(channels=channels), PretrainingCriterion(config)
    embedded = criterion.embed(one, sampler(channels).batch(pairs))
    value = sum(
        config_weight * term(embedded.views, embedded.places)
        for term, config_weight in ((term, criterion.terms[name]) for name, term in criterion.contrasts(None).items())
    )
    if config.reconstruction:
        value = value + config.reconstruction * embedded.total / embedded.weight
    value.backward()
    return float(value.detach()), {name: parameter.grad for name, parameter in one.named_parameters()}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_is_that_of_automatic_differentiation(channels):
    value, found = gradients(ALL, [range(4)], channels)
    expected, wanted = plain(ALL, range(4), channels)
    assert value == pytest.approx(expected, rel=1e-5)
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, atol=2e-5 * max(1.0, gradient.abs().max().item())), name
        assert gradient.abs().max() > 0 or "bias" in name, name


def test_parts_of_a_batch_give_the_gradient_of_the_whole():
    whole, of_whole = gradients(ALL, [range(6)])
    value, found = gradients(ALL, [range(0, 1), range(1, 4), range(4, 6)])
    assert value == pytest.approx(whole, rel=1e-5)
    assert all(torch.allclose(found[name], of_whole[name], atol=1e-4) for name in found)


@pytest.mark.parametrize("name", TERMS)
def test_each_term_can_be_off_and_the_loss_is_their_sum(name):
    values = {one: gradients(_only(one), [range(4)])[0] for one in TERMS}
    without, _ = gradients(dataclasses.replace(ALL, **{name: 0.0}), [range(4)])
    assert without == pytest.approx(sum(value for one, value in values.items() if one != name), rel=1e-4)


def _only(name):
    others = {one: 0.0 for one in TERMS if one != name}
    if name in ("variance", "covariance"):  # which do not count alone: beside a contrast of no weight to speak of
        others["views"] = 1e-12
    return dataclasses.replace(ALL, **others)


def test_a_batch_joined_of_parts_is_the_batch():
    source = sampler()
    one = joined([source.batch(range(2)), source.batch(range(2, 5))])
    whole = source.batch(range(5))
    assert all(torch.equal(getattr(one, name), getattr(whole, name)) for name in ("image", "clean", "weight", "points"))


def test_where_nothing_is_learnt_the_contrasts_are_the_logarithm_of_their_rows():
    criterion = PretrainingCriterion(ALL)
    views, places = torch.ones(8, 2, 16), torch.ones(8, 2, 4, 12)
    found = {name: float(term(views, places)) for name, term in criterion.contrasts(None).items()}
    assert found["views"] == pytest.approx(math.log(15), rel=1e-5)
    assert found["places"] == pytest.approx(math.log(8 * 12), rel=1e-5)
    assert found["variance"] == pytest.approx(0.99, rel=1e-3) and found["covariance"] == 0


def test_the_terms_are_those_of_the_losses():
    criterion, source = PretrainingCriterion(ALL), sampler()
    embedded = criterion.embed(network(), source.batch(range(3)))
    found = criterion.values([embedded])
    views, places = embedded.views.detach(), embedded.places.detach()
    assert found["views"] == pytest.approx(losses.nt_xent(views[:, 0], views[:, 1]).item())
    rows = [places[:, side].permute(0, 2, 1).reshape(36, -1) for side in range(2)]
    both = [losses.info_nce(*rows).item(), losses.info_nce(*rows[::-1]).item()]
    assert found["places"] == pytest.approx(sum(both) / 2, rel=1e-5)


def test_an_embedding_does_not_change_where_a_view_is_turned_or_mirrored():
    one, image = network(), sampler().batch(range(2)).image[:, 0]
    with torch.no_grad():
        own = one.embedding(image)
        for element in ELEMENTS:
            assert torch.allclose(one.embedding(transform(image, element)), own, atol=1e-5)
        assert not torch.allclose(own[0], own[1], atol=1e-3)


def test_what_is_learnt_is_encoder_and_decoder_and_the_last_layer_is_new():
    one = network(3)
    learnt = one.learnt(seed=5)
    assert learnt.architecture == one.architecture and type(learnt).__name__ == "UNet"
    for name, tensor in learnt.state_dict().items():
        if not name.startswith("heads"):
            assert torch.equal(tensor, one.state_dict()[name])
    assert torch.equal(learnt.heads.maps.weight, one.learnt(seed=5).heads.maps.weight)
    assert not torch.equal(learnt.heads.maps.weight, one.learnt(seed=6).heads.maps.weight)


def test_a_loss_that_is_not_finite_is_named():
    one, source = network(), sampler()
    one.encoder.stem.bias.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        PairBackpropagation(one, PretrainingCriterion(ALL)).of_pairs([source.batch(range(2))], bfloat16=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"views": -1.0}, "views is -1"),
        ({"reconstruction": float("nan")}, "reconstruction is nan"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"views": 0.0, "places": 0.0, "reconstruction": 0.0}, "nothing would be learnt"),
    ],
)
def test_weights_that_mean_nothing_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        PretrainingConfig(**options)
