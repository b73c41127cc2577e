"""What `nucleate train --loss` takes."""

import dataclasses
import math

import pytest
import torch
from tests.training.batches import joined_targets, make_batch, part

from nucleate import losses
from nucleate.data.augment import Batch
from nucleate.errors import InputError
from nucleate.training.config import TrainingConfig
from nucleate.training.criterion import MAPS, SegmentationCriterion, sum_terms
from nucleate.training.pixel_loss import MARGIN, parse, pixel_losses, spelled

LOSSES = list(pixel_losses())


def test_losses_of_every_kind_fit_and_others_do_not():
    fit = {"cross_entropy", "focal", "multiclass_hinge", "hinge", "logistic", "dice", "jaccard", "tversky"}
    fit |= {"focal_tversky", "generalized_dice", "lovasz_softmax", "lovasz_hinge", "boundary", "binary_cross_entropy"}
    assert fit <= set(LOSSES)
    others = {"kl_divergence", "info_nce", "triplet_margin", "linear_cross_entropy", "margin_ranking", "sup_con"}
    measures = {"zero_one", "expected_calibration_error"}
    assert not set(LOSSES) & (others | measures)


def test_a_term_of_the_classes_never_has_the_name_of_a_map():
    assert not set(LOSSES) & set(MAPS)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_the_weight_is_that_of_the_loss_and_does_not_depend_on_what_the_network_says(name, classes):
    one, targets = pixel_losses()[name], make_batch(3).targets
    for seed in range(2):
        logits = torch.randn(3, classes, 16, 16, generator=torch.Generator().manual_seed(seed))
        total, weight = one._apply(logits, targets, "pair")
        assert one.weight(targets, classes) == pytest.approx(float(weight), rel=1e-5) and weight > 0
        assert float(one.total(logits, targets)) == pytest.approx(float(total), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_unknown_pixels_count_nothing_whatever_stands_there(name, classes):
    targets = make_batch(2, seed=1).targets
    logits, wide = torch.randn(2, classes, 16, 16), ~targets.known[:, None].expand(-1, classes, -1, -1)
    assert wide.any()
    found = []
    for fill in (0.0, 1e30, math.nan):
        x = torch.where(wide, fill, logits).requires_grad_()
        value = pixel_losses()[name].total(x, targets)
        found.append((value.detach(), torch.autograd.grad(value, x)[0]))
        assert not found[-1][1][wide].any() and found[-1][1].isfinite().all()
    for value, slope in found[1:]:
        assert torch.equal(value, found[0][0]) and torch.equal(slope, found[0][1])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_a_step_downhill_from_doubt_is_towards_the_label(name, classes):
    targets = make_batch(4, seed=2).targets
    targets = dataclasses.replace(targets, classes=targets.classes.clamp(max=1), known=torch.ones_like(targets.known))
    right = torch.nn.functional.one_hot(targets.classes.long(), classes).movedim(-1, 1).float()
    totals = [float(pixel_losses()[name].total(k * right, targets)) for k in (-2.0, 0.0, 2.0)]
    assert totals[0] > totals[2] and totals[1] >= totals[2]


def test_of_two_classes_a_yes_or_no_is_asked_of_the_difference_of_the_logits():
    targets, logits = make_batch(2).targets, 3 * torch.randn(2, 2, 16, 16)
    score, labels = logits[:, 1] - logits[:, 0], targets.classes
    for name, unit in (("binary_cross_entropy", 1.0), ("hinge", MARGIN)):
        expected = losses.by_name(name)(
            score / unit, labels, mask=targets.known, weight=targets.weight, reduction="sum"
        )
        assert float(pixel_losses()[name].total(logits, targets)) == pytest.approx(float(expected), rel=1e-5)


def test_binary_cross_entropy_of_two_classes_is_cross_entropy():
    targets, logits = make_batch(2).targets, 3 * torch.randn(2, 2, 16, 16)
    one, other = (
        float(pixel_losses()[name].total(logits, targets)) for name in ("cross_entropy", "binary_cross_entropy")
    )
    assert one == pytest.approx(other, rel=1e-5)


def test_a_margin_of_one_is_reached_where_a_nucleus_is_sure():
    """Else no model trained by a margin would reach the default threshold, and nothing would be found."""
    from nucleate.types import Thresholds

    assert torch.tensor(MARGIN).sigmoid() > Thresholds().seed_foreground > torch.tensor(1.0).sigmoid()


@pytest.mark.parametrize("loss", ["cross_entropy+0.5*dice", "boundary+2*lovasz_softmax+focal"])
def test_terms_of_a_sum_keep_their_own_totals_and_weights(loss):
    criterion, batch = SegmentationCriterion(2, loss), make_batch(3)
    maps = torch.randn(3, 6, 16, 16)
    alone = [SegmentationCriterion(2, name) for name in parse(loss)]
    totals, weights = criterion.totals(maps, batch.targets), criterion.weights(batch.targets)
    for one, (name, factor) in zip(alone, parse(loss).items(), strict=True):
        assert criterion.terms[name] == factor
        assert float(totals[name]) == float(one.totals(maps, batch.targets)[name])
        assert weights[name] == one.weights(batch.targets)[name]


@pytest.mark.parametrize("loss", [*LOSSES, "cross_entropy+0.5*dice"])
def test_totals_and_weights_of_parts_add_up_to_those_of_the_whole(loss):
    criterion, batch = SegmentationCriterion(2, loss), make_batch(4)
    maps = torch.randn(4, 6, 16, 16)
    parts = [part(Batch(maps, batch.targets), rows) for rows in torch.arange(4).split((1, 3))]
    whole = {name: float(total) for name, total in criterion.totals(maps, batch.targets).items()}
    added = sum_terms({name: float(v) for name, v in criterion.totals(p.image, p.targets).items()} for p in parts)
    assert added == pytest.approx(whole, rel=1e-4, abs=1e-4)
    assert sum_terms(criterion.weights(p.targets) for p in parts) == pytest.approx(criterion.weights(batch.targets))


def test_an_image_of_which_nothing_is_known_weighs_nothing_in_an_overlap():
    shown, hidden = make_batch(2), make_batch(1, seed=9)
    hidden.targets.known[:] = False
    both = joined_targets([shown.targets, hidden.targets])
    criterion = SegmentationCriterion(2, "dice+boundary")
    assert criterion.weights(both) == pytest.approx(criterion.weights(shown.targets))


@pytest.mark.parametrize(
    ("typed", "expected", "spelling"),
    [
        ("cross_entropy", {"cross_entropy": 1.0}, "cross_entropy"),
        ("cross_entropy+0.5*dice", {"cross_entropy": 1.0, "dice": 0.5}, "cross_entropy+0.5*dice"),
        (" .50 * dice + 1.0*focal ", {"dice": 0.5, "focal": 1.0}, "0.5*dice+focal"),
        ("1e-3*boundary+2*hinge", {"boundary": 0.001, "hinge": 2.0}, "0.001*boundary+2*hinge"),
    ],
)
def test_an_expression_is_read_and_has_one_spelling(typed, expected, spelling):
    assert parse(typed) == expected
    assert spelled(expected) == TrainingConfig(loss=typed).loss == spelling
    assert parse(spelling) == expected


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("crossentropy", "no loss crossentropy of pixel classes; did you mean cross_entropy"),
        ("info_nce", "info_nce does not fit pixel classes"),
        ("zero_one", "zero_one does not fit pixel classes"),
        ("nonsense", ", ".join(LOSSES)),
        ("cross_entropy+", "a loss is missing"),
        ("", "a loss is missing"),
        ("0.5*", "a loss is missing"),
        ("*dice", "'' is no factor"),
        ("half*dice", "'half' is no factor"),
        ("-1*dice", "'-1' is no factor"),
        ("0*dice", "'0' is no factor"),
        ("nan*dice", "'nan' is no factor"),
        ("inf*dice", "'inf' is no factor"),
        ("dice+2*dice", "dice stands in it twice"),
        ("cross_entropy-dice", "no loss cross_entropy-dice"),
    ],
)
def test_a_mistake_is_named(typed, said):
    with pytest.raises(InputError) as caught:
        TrainingConfig(loss=typed)
    assert said in str(caught.value) and repr(typed) in str(caught.value)
