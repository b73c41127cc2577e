"""The mistakes that loss libraries are known for, one by one: impossible here, or said clearly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from nucleate import losses
from nucleate.losses import Logits, LogProbabilities, LossInputError, Probabilities

INF = math.inf


def doubles(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


# 1 KL: swapped arguments, probabilities taken for logarithms, a mean over the classes
def test_kl_cannot_be_called_by_position() -> None:
    with pytest.raises(TypeError):
        losses.kl_divergence(doubles(0.0, 1.0), doubles(1.0, 0.0))


@pytest.mark.parametrize("wrong", [Probabilities(doubles(-0.7, -0.7)), LogProbabilities(doubles(0.5, 0.5))])
def test_a_form_that_was_not_said_right_is_refused(wrong: losses.Distribution) -> None:
    with pytest.raises(LossInputError, match=r"probabilities, at least 0|must sum to 1"):
        losses.kl_divergence(p=wrong, q=doubles(0.0, 0.0))


def test_kl_has_one_mean_over_positions() -> None:
    p, q = torch.randn(3, 5, 2, dtype=torch.float64), torch.randn(3, 5, 2, dtype=torch.float64)
    by_hand = (p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum(1)
    torch.testing.assert_close(losses.kl_divergence(p=p, q=q), by_hand.mean())


# 2 0 * inf
@pytest.mark.parametrize("target", [torch.tensor([0]), doubles(1.0, 0.0, 0.0)], ids=["index", "soft"])
@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.focal])
def test_a_logit_of_minus_infinity_under_a_zero_target(loss: Callable[..., Tensor], target: Tensor) -> None:
    logits = doubles(1.0, -INF, 0.0).requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] == 0


def test_an_infinite_score_under_a_certain_label() -> None:
    logits = torch.tensor([INF, -INF], requires_grad=True)
    value = losses.binary_cross_entropy(logits, torch.tensor([1, 0]))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize(
    "name", ["kl_divergence", "jensen_shannon", "hellinger", "renyi", "total_variation", "wasserstein_1d"]
)
def test_divergences_of_certain_predictions(name: str) -> None:
    p = doubles(1.0, 0.0, 0.0).requires_grad_()
    q = doubles(0.5, 0.5, 0.0).requires_grad_()
    value = losses.by_name(name)(p=Probabilities(p), q=Probabilities(q))
    value.backward()
    assert value.isfinite()
    assert p.grad is not None
    assert q.grad is not None
    assert p.grad.isfinite().all()
    assert q.grad.isfinite().all()


# 3 N,C,H,W reshaped to rows without moving the class axis
def test_no_reshape_is_needed_and_the_wrong_one_is_wrong() -> None:
    logits = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    target = torch.randint(0, 2, (2, 3, 4))
    right = losses.cross_entropy(logits.movedim(1, -1).reshape(-1, 2), target.reshape(-1))
    wrong = losses.cross_entropy(logits.reshape(2 * 3 * 4, 2), target.reshape(-1))
    torch.testing.assert_close(losses.cross_entropy(logits, target), right)
    assert abs(wrong - right) > 1e-3


# 4 the mean of means
def test_accumulation_is_one_mean() -> None:
    logits = torch.randn(10, 3, dtype=torch.float64)
    target = torch.randint(0, 3, (10,))
    target[:4] = 255
    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
    whole = losses.cross_entropy(logits * scale, target, ignore_index=255)
    whole.backward()
    expected, scale.grad = scale.grad, None
    steps = losses.Accumulation()
    pairs = []
    for rows in (slice(0, 4), slice(4, 5), slice(5, 10)):
        pairs.append(
            losses.total_and_weight(losses.cross_entropy, logits[rows] * scale, target[rows], ignore_index=255)
        )
        steps.backward(pairs[-1])
    assert steps.finish([scale]) == pytest.approx(whole.item())
    torch.testing.assert_close(scale.grad, expected)
    torch.testing.assert_close(losses.mean_of(pairs), whole)


# 5 everything ignored
def test_everything_ignored_is_zero_with_a_zero_gradient() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    target = torch.full((2, 4), 255, dtype=torch.uint8)
    assert F.cross_entropy(logits, target.long(), ignore_index=255).isnan()
    pair = losses.total_and_weight(losses.cross_entropy, logits, target, ignore_index=255)
    assert (pair.total.item(), pair.weight.item()) == (0.0, 0.0)
    losses.cross_entropy(logits, target, ignore_index=255).backward()
    assert (logits.grad == 0).all()


# 6 index targets divided by weights, one-hot ones by N
@pytest.mark.parametrize("normalize", ["weight", "count"])
def test_indices_and_one_hot_rows_are_divided_by_one_rule(normalize: str) -> None:
    logits, target = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 2, 1])
    weight = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    hot = F.one_hot(target, 3).double()
    options = {"class_weight": weight, "normalize": normalize}
    by_index = losses.cross_entropy(logits, target, **options)
    torch.testing.assert_close(losses.cross_entropy(logits, hot, **options), by_index)
    torch.testing.assert_close(losses.cross_entropy(logits, hot.long(), **options), by_index)
    if normalize == "weight":
        torch.testing.assert_close(F.cross_entropy(logits, target, weight), by_index)
        assert not torch.allclose(F.cross_entropy(logits, hot, weight), by_index)
    else:
        torch.testing.assert_close(F.cross_entropy(logits, hot, weight), by_index)


# 7 label smoothing with weights and ignored positions
def test_label_smoothing_is_the_soft_target() -> None:
    logits, target = torch.randn(5, 4, 3, dtype=torch.float64), torch.randint(0, 4, (5, 3))
    mask = torch.rand(5, 3) > 0.3
    hot = F.one_hot(target, 4).movedim(-1, 1).double()
    options = {"class_weight": torch.tensor([1.0, 2.0, 0.0, 5.0], dtype=torch.float64), "mask": mask}
    smoothed = losses.cross_entropy(logits, 0.8 * hot + 0.2 / 4, **options)
    torch.testing.assert_close(losses.cross_entropy(logits, target, label_smoothing=0.2, **options), smoothed)
    torch.testing.assert_close(losses.cross_entropy(logits, hot, label_smoothing=0.2, **options), smoothed)
    ignored = target.masked_fill(~mask, -100)
    options = {"class_weight": options["class_weight"], "ignore_index": -100}
    torch.testing.assert_close(losses.cross_entropy(logits, ignored, label_smoothing=0.2, **options), smoothed)


# 8 ignore_index with soft targets
def test_ignore_index_with_probabilities_is_refused() -> None:
    with pytest.raises(LossInputError, match="mask="):
        losses.cross_entropy(torch.zeros(2, 3), torch.full((2, 3), 1 / 3), ignore_index=0)


# 9 half-precision sums
def test_half_precision_does_not_overflow_or_lose_the_count() -> None:
    pixels = 70_000
    logits = torch.zeros(1, 2, pixels, dtype=torch.float16)
    target = torch.zeros(1, pixels, dtype=torch.uint8)
    value = losses.cross_entropy(logits, target)
    assert value.item() == pytest.approx(math.log(2))
    pair = losses.total_and_weight(losses.cross_entropy, logits.bfloat16(), target, class_weight=torch.ones(2).half())
    assert pair.weight.item() == pixels
    assert pair.total.dtype == torch.float32


# 10 gathering across ranks is in test_ranks.py


# 11 InfoNCE at temperature 0.01
def test_info_nce_at_a_low_temperature_is_exact() -> None:
    a, b = torch.randn(64, 16), torch.randn(64, 16)
    exact = [x.double().requires_grad_() for x in (a, b)]
    held = [x.clone().requires_grad_() for x in (a, b)]
    losses.info_nce(*exact, temperature=0.01).backward()
    losses.info_nce(*held, temperature=0.01).backward()
    for x, y in zip(held, exact, strict=True):
        assert (x.grad - y.grad).norm() < 1e-4 * y.grad.norm()
    small = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: losses.info_nce(x, x.roll(1, 1), temperature=0.01), (small,))


# 12 anchors without a positive
def test_anchors_without_a_positive_are_left_out_and_counted() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    pair = losses.total_and_weight(losses.sup_con, x, torch.arange(5))
    assert (pair.total.item(), pair.weight.item()) == (0.0, 0.0)
    pair = losses.total_and_weight(losses.sup_con, x, torch.tensor([0, 0, 1, 2, 3]))
    assert pair.weight == 2
    pair.total.backward()
    assert x.grad.isfinite().all()


# 13 labels of the other kind
@pytest.mark.parametrize("name", ["hinge", "logistic", "exponential", "lovasz_hinge", "perceptron"])
def test_labels_are_what_was_said_and_never_guessed(name: str) -> None:
    loss, score = losses.by_name(name), torch.tensor([[0.3, -0.4]])
    with pytest.raises(LossInputError, match="labels='signed'"):
        loss(score, torch.tensor([[1, -1]]))
    with pytest.raises(LossInputError, match="labels='binary'"):
        loss(score, torch.tensor([[1, 0]]), labels="signed")
    ones = torch.tensor([[1, 1]])  # a batch of one kind only says nothing about the other
    assert loss(score, ones) == loss(score, ones, labels="signed")
    assert loss(score, torch.tensor([[True, False]])) == loss(score, torch.tensor([[1, -1]]), labels="signed")


def test_signed_labels_are_refused_by_binary_cross_entropy() -> None:
    with pytest.raises(LossInputError, match=r"0\.\.1"):
        losses.binary_cross_entropy(torch.zeros(2), torch.tensor([1, -1]))


# 14 log(1 + exp(-x))
@pytest.mark.parametrize("x", [-1e4, -100.0, 100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logistic_does_not_overflow(x: float, dtype: torch.dtype) -> None:
    score = torch.tensor([x], dtype=dtype, requires_grad=True)
    value = losses.logistic(score, torch.tensor([1]))
    value.backward()
    tail = math.exp(-abs(x))
    assert value.item() == pytest.approx(max(-x, 0.0) + tail, rel=1e-6)
    assert score.grad.item() == pytest.approx(-1.0 if x < 0 else -tail, rel=1e-6)


# 15 Dice on empty masks and soft labels
def test_dice_of_an_empty_mask() -> None:
    score = torch.full((1, 1, 8), -40.0, dtype=torch.float64)
    score[..., :4] = 40.0
    empty = torch.zeros(1, 1, 8)
    score.requires_grad_()
    skipped = losses.total_and_weight(losses.dice, score, empty, multilabel=True, empty="skip")
    assert (skipped.total.item(), skipped.weight.item()) == (0.0, 0.0)
    assert losses.dice(score, empty, multilabel=True).item() == pytest.approx(2 / 3)  # half of 4 pixels, a / (a + 1)
    hesitant = torch.zeros(1, 1, 8, requires_grad=True)
    losses.dice(hesitant, empty, multilabel=True).backward()
    assert (hesitant.grad > 0).all()  # less is better
    nothing = torch.full((1, 1, 8), -1e4, requires_grad=True)
    assert losses.dice(nothing, empty, multilabel=True) == 0


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "focal_tversky", "generalized_dice"])
@pytest.mark.parametrize("label", [0.1, 0.3, 0.5, 0.9])
def test_soft_labels_have_their_optimum_at_the_label(name: str, label: float) -> None:
    target = torch.full((1, 1, 4), label, dtype=torch.float64)
    tried = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    values = [
        losses.by_name(name)(Probabilities(torch.full_like(target, p)), target, multilabel=True).item() for p in tried
    ]
    assert tried[values.index(min(values))].item() == pytest.approx(label, abs=0.011)
    assert losses.by_name(name)(Probabilities(target), target, multilabel=True).item() == pytest.approx(0, abs=1e-9)


# 16 norms at distance zero, focal with gamma below 1
def test_norms_at_distance_zero() -> None:
    same = torch.ones(2, 3, requires_grad=True)
    losses.triplet_margin(same, same, same).backward()
    assert same.grad.isfinite().all()
    p = torch.zeros(1, 3, requires_grad=True)
    losses.hellinger(p=p, q=torch.zeros(1, 3)).backward()
    assert (p.grad == 0).all()
    zero = torch.zeros(3, 2, requires_grad=True)
    losses.info_nce(zero, zero).backward()
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9, 1.0, 2.0])
@pytest.mark.parametrize("lead", [0.0, 20.0, 40.0, 1e4])
@pytest.mark.parametrize("target", [torch.tensor([0]), doubles(1.0, 0.0)], ids=["index", "soft"])
def test_focal_has_a_finite_gradient_for_every_gamma(gamma: float, lead: float, target: Tensor) -> None:
    logits = doubles(lead, 0.0).requires_grad_()
    value = losses.focal(logits, target, gamma=gamma)
    (slope,) = torch.autograd.grad(value, logits, create_graph=True)
    (curve,) = torch.autograd.grad(slope[0, 0], logits)
    assert slope.isfinite().all()
    assert curve.isfinite().all()
    assert slope[0, 0] <= 0


def test_focal_tversky_at_a_perfect_prediction() -> None:
    logits = torch.tensor([[[1e4, -1e4], [-1e4, 1e4]]], requires_grad=True)
    losses.focal_tversky(logits, torch.tensor([[0, 1]]), gamma=0.5).backward()
    assert (logits.grad == 0).all()


# 17 silent broadcasting
@pytest.mark.parametrize(
    ("name", "inputs", "shapes"),
    [
        ("binary_cross_entropy", {"logits": (4, 1), "target": (4,)}, ["(4,)", "(4, 1)"]),
        ("hinge", {"score": (4, 1), "target": (1, 4)}, ["(1, 4)", "(4, 1)"]),
        ("kl_divergence", {"p": (2, 3), "q": (1, 3)}, ["(1, 3)", "(2, 3)"]),
        ("cross_entropy", {"logits": (2, 3, 4), "target": (2, 1)}, ["(2, 1)", "(2, 4)"]),
        ("dice", {"prediction": (2, 3, 4), "target": (4,)}, ["(4,)", "(2, 4)"]),
        ("margin_ranking", {"first": (3,), "second": (3, 1), "target": (3,)}, ["(3, 1)", "(3,)"]),
        ("triplet_margin", {"anchor": (3, 2), "positive": (1, 2), "negative": (3, 2)}, ["(1, 2)", "(3, 2)"]),
        ("info_nce", {"query": (3, 2), "key": (4, 2)}, ["(4, 2)", "(3, 2)"]),
        ("generalized_kl", {"p": (3, 2), "q": (3, 1)}, ["(3, 1)", "(3, 2)"]),
    ],
)
def test_shapes_that_differ_are_refused_and_printed(
    name: str, inputs: dict[str, tuple[int, ...]], shapes: list[str]
) -> None:
    tensors = {
        k: torch.zeros(s) if k != "target" or name == "binary_cross_entropy" else torch.zeros(s, dtype=torch.long)
        for k, s in inputs.items()
    }
    with pytest.raises(LossInputError) as raised:
        losses.by_name(name)(**tensors)
    assert all(s in str(raised.value) for s in shapes)


# bad input in general
@pytest.mark.parametrize("index", [3, -1])
def test_a_class_out_of_range_is_named(index: int) -> None:
    with pytest.raises(LossInputError, match=f"class {index}, .*0..2"):
        losses.cross_entropy(torch.zeros(2, 3), torch.tensor([0, index]))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: losses.cross_entropy(torch.zeros(2, 3), torch.zeros(2)), "neither class indices"),
        (lambda: losses.cross_entropy(torch.zeros(2, 3), torch.full((2, 3), 0.5)), "sum to 1"),
        (lambda: losses.cross_entropy(torch.zeros(2, 1), torch.zeros(2).long()), "binary_cross_entropy"),
        (lambda: losses.cross_entropy(torch.zeros(2, 3).long(), torch.zeros(2).long()), "floating-point"),
        (lambda: losses.cross_entropy(torch.zeros(2, 3), torch.zeros(2).long(), class_dim=2), "class_dim=2"),
        (
            lambda: losses.cross_entropy(torch.zeros(2, 3), torch.zeros(2).long(), class_weight=-torch.ones(3)),
            "at least 0",
        ),
        (
            lambda: losses.cross_entropy(torch.zeros(2, 3), torch.zeros(2).long(), weight=doubles(1.0, math.inf)[0]),
            "finite and at least 0, but holds inf",
        ),
        (lambda: losses.cross_entropy(torch.zeros(2, 3), torch.zeros(2).long(), class_weight=torch.ones(2)), r"\(3,\)"),
        (lambda: losses.cross_entropy(torch.zeros(2, 3), torch.zeros(2).long(), label_smoothing=1.5), "label_smooth"),
        (lambda: losses.cross_entropy(torch.zeros(2, 3), torch.zeros(2).long(), normalize="n"), "normalize"),
        (lambda: losses.measures.entropy(Probabilities(doubles(0.7, 0.7))), "sum to 1"),
        (lambda: losses.measures.entropy(torch.zeros(1, 2), base=1), "base"),
        (lambda: losses.generalized_kl(p=-torch.ones(1, 2), q=torch.ones(1, 2)), "not logits"),
        (lambda: losses.renyi(p=torch.zeros(1, 2), q=torch.zeros(1, 2), alpha=0), "alpha"),
        (lambda: losses.multiclass_hinge(torch.zeros(1, 2), doubles(0.5, 0.5).float()), "one-hot"),
        (lambda: losses.info_nce(torch.ones(2, 2), torch.ones(2, 2), temperature=0), "temperature"),
        (lambda: losses.info_nce(torch.ones(2), torch.ones(2)), r"\(N, D\)"),
        (lambda: losses.vicreg(torch.ones(2, 2), torch.ones(2, 2), reduction="none"), "whole"),
        (lambda: losses.dice(torch.zeros(2, 3), torch.zeros(2).long()), "over="),
        (lambda: losses.signed_distance(torch.zeros(2, 3)), "spatial"),
        (lambda: losses.measures.mutual_information([]), "at least one"),
        (lambda: losses.mean_of([]), "at least one"),
        (lambda: losses.by_name("lovasz"), "lovasz_hinge"),
        (lambda: losses.CrossEntropy(smoothing=0.1), "label_smoothing"),
        (lambda: losses.total_and_weight(losses.hinge, reduction="mean"), "reduction="),
        (lambda: losses.measures.entropy(Logits([0.0, 1.0])), "list"),
    ],
)
def test_bad_input_gets_one_clear_sentence(call: Callable[[], object], said: str) -> None:
    with pytest.raises(LossInputError, match=said) as raised:
        call()
    assert isinstance(raised.value, ValueError)
    assert "\n" not in str(raised.value)


def test_checks_that_read_values_can_be_turned_off() -> None:
    logits = torch.full((1, 2), torch.nan)
    target = torch.tensor([0])
    with pytest.raises(LossInputError):
        losses.cross_entropy(logits, target)
    assert losses.cross_entropy(logits, target, check=False).isnan()
    with losses.use_checks(False):
        assert losses.cross_entropy(logits, target).isnan()
        with pytest.raises(LossInputError):
            losses.cross_entropy(logits, target, check=True)
    losses.use_checks(False)
    assert losses.cross_entropy(logits, target).isnan()
    losses.use_checks(None)
    with pytest.raises(LossInputError):
        losses.cross_entropy(logits, target)
