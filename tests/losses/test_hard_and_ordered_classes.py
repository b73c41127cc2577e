"""Cross entropy of the hardest positions, of labels that may be wrong, and of classes that have an order."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nucleate import losses
from nucleate.losses import LossInputError


def chosen(values: torch.Tensor, count: int) -> float:
    return float(values.flatten().sort(descending=True).values[:count].mean())


@pytest.mark.parametrize("k", [0.05, 0.1, 1 / 3, 0.5])
def test_the_hardest_are_those_that_sorting_finds(k: float) -> None:
    x, t = torch.randn(3, 4, 5, 6, dtype=torch.float64), torch.randint(0, 4, (3, 5, 6))
    values = F.cross_entropy(x, t, reduction="none")
    count = {0.05: 2, 0.1: 3, 1 / 3: 10, 0.5: 15}[k]
    by_image = sum(chosen(v, count) for v in values) / 3
    assert losses.topk_cross_entropy(x, t, k=k).item() == pytest.approx(by_image)
    of_all = {0.05: 5, 0.1: 9, 1 / 3: 30, 0.5: 45}[k]
    assert losses.topk_cross_entropy(x, t, k=k, over="batch").item() == pytest.approx(chosen(values, of_all))
    each = losses.topk_cross_entropy(x, t, k=k, reduction="none")
    assert ((each > 0).flatten(1).sum(1) == count).all()


def test_all_of_the_positions_are_cross_entropy() -> None:
    x, t = torch.randn(2, 3, 7, requires_grad=True), torch.randint(0, 3, (2, 7))
    options = {"class_weight": torch.rand(3), "label_smoothing": 0.1, "ignore_index": 1}
    ours, whole = losses.topk_cross_entropy(x, t, k=1.0, **options), losses.cross_entropy(x, t, **options)
    torch.testing.assert_close(ours, whole)
    torch.testing.assert_close(torch.autograd.grad(ours, x)[0], torch.autograd.grad(whole, x)[0])
    rows = torch.randn(6, 3)
    torch.testing.assert_close(losses.topk_cross_entropy(rows, t[0, :6]), losses.cross_entropy(rows, t[0, :6]))


def test_the_share_is_of_what_is_selected() -> None:
    x, t = torch.randn(1, 3, 40, dtype=torch.float64), torch.randint(0, 3, (1, 40))
    kept, weight = torch.arange(40).unsqueeze(0) < 20, torch.ones(1, 40, dtype=torch.float64)
    values = F.cross_entropy(x, t, reduction="none")[:, :20]
    weight[:, 20:] = 0
    for options in (
        {"mask": kept},
        {"weight": weight},
        {"target": t.masked_fill(~kept, 255), "ignore_index": 255},
    ):
        found = losses.topk_cross_entropy(x, **{"target": t, **options}, k=0.1)
        assert found.item() == pytest.approx(chosen(values, 2))
    labels, none = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2]]), torch.tensor([0.0, 1.0, 1.0])
    for options in ({"class_weight": none}, {"mask": labels != 0}, {"weight": none[labels].requires_grad_()}):
        pair = losses.total_and_weight(losses.topk_cross_entropy, x[..., :8], labels, k=0.5, **options)
        assert pair.weight == 2
    assert losses.topk_cross_entropy(x, t, k=0.0).item() == 0


def test_images_add_up() -> None:
    x, t = torch.randn(5, 3, 8, dtype=torch.float64), torch.randint(0, 3, (5, 8))
    parts = [losses.total_and_weight(losses.topk_cross_entropy, x[i], t[i]) for i in (slice(0, 2), slice(2, 5))]
    torch.testing.assert_close(losses.mean_of(parts), losses.topk_cross_entropy(x, t))


def test_what_cannot_be_ranked_is_said() -> None:
    x, t = torch.randn(3, 4), torch.tensor([0, 1, 2, 0])
    with pytest.raises(LossInputError, match="over='batch'"):
        losses.topk_cross_entropy(x, t, class_dim=0)
    assert losses.topk_cross_entropy(x, t, class_dim=0, over="batch").isfinite()
    with pytest.raises(LossInputError, match=r"k must lie in 0\.\.1, got 10"):
        losses.topk_cross_entropy(x.T, t, k=10)
    nan = x.T.clone()
    nan[0, 0] = torch.nan
    assert losses.topk_cross_entropy(nan, t, check=False).isnan()


# labels that may be wrong
def test_generalized_cross_entropy_between_its_ends() -> None:
    x, t = torch.randn(6, 4, dtype=torch.float64) * 9, torch.randint(0, 4, (6,))
    p = x.softmax(1)[torch.arange(6), t]
    for q in (0.3, 1.0):
        found = losses.generalized_cross_entropy(x, t, q=q, reduction="none")
        torch.testing.assert_close(found, (1 - p**q) / q)
        assert (found <= 1 / q).all()
    torch.testing.assert_close(losses.generalized_cross_entropy(x, t, q=0.0), losses.cross_entropy(x, t))
    torch.testing.assert_close(losses.generalized_cross_entropy(x, t, q=1e-9), losses.cross_entropy(x, t))
    hot = F.one_hot(t, 4)
    torch.testing.assert_close(losses.generalized_cross_entropy(x, hot), losses.generalized_cross_entropy(x, t))


def test_one_wrong_label_costs_little_and_pulls_little() -> None:
    x = torch.tensor([[1e4, -1e4, -torch.inf]], requires_grad=True)
    for label in (1, 2):
        for target in (torch.tensor([label]), F.one_hot(torch.tensor([label]), 3)):
            value = losses.generalized_cross_entropy(x, target, q=0.5)
            (slope,) = torch.autograd.grad(value, x)
            assert value == 2
            assert (slope == 0).all()


@pytest.mark.parametrize("name", ["generalized_cross_entropy", "ordinal", "cross_entropy", "topk_cross_entropy"])
@pytest.mark.parametrize("soft", [False, True])
def test_nan_under_a_class_of_weight_zero_is_left_out(name: str, soft: bool) -> None:
    x, t = torch.randn(4, 2 if name == "ordinal" else 3, 1), torch.tensor([[0], [1], [2], [1]])
    x[0] = torch.nan
    x.requires_grad_()
    target = F.one_hot(t, 3).movedim(-1, 1) if soft else t
    value = losses.by_name(name)(x, target, class_weight=torch.tensor([0.0, 1.0, 2.0]))
    assert (torch.autograd.grad(value, x)[0][0] == 0).all()


# ordered classes
def test_ordinal_is_the_sum_of_its_questions() -> None:
    x, t = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 1, 0])
    above = (t.unsqueeze(1) > torch.arange(3)).double()
    expected = F.binary_cross_entropy_with_logits(x, above, reduction="none").sum(1)
    torch.testing.assert_close(losses.ordinal(x, t, reduction="none"), expected)
    w = torch.rand(4, dtype=torch.float64)
    torch.testing.assert_close(losses.ordinal(x, t, class_weight=w), (w[t] * expected).sum() / w[t].sum())
    hot = F.one_hot(t, 4).double()
    torch.testing.assert_close(losses.ordinal(x, hot, class_weight=w), losses.ordinal(x, t, class_weight=w))


def test_ordinal_of_two_classes_is_binary_cross_entropy() -> None:
    x, t = torch.randn(5, 1), torch.randint(0, 2, (5,))
    torch.testing.assert_close(losses.ordinal(x, t), losses.binary_cross_entropy(x.squeeze(1), t))


def test_ordinal_of_probabilities_is_the_mean_over_their_classes() -> None:
    x, p = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64).softmax(1)
    each = torch.stack([losses.ordinal(x, torch.full((5,), c), reduction="none") for c in range(4)], 1)
    torch.testing.assert_close(losses.ordinal(x, p, reduction="none"), (p * each).sum(1))


def test_a_class_further_off_costs_more() -> None:
    sure = torch.tensor([[20.0, -20.0, -20.0]])  # class 1
    costs = [losses.ordinal(sure, torch.tensor([c])).item() for c in (1, 0, 2, 3)]
    assert costs == pytest.approx([0, 20, 20, 40], abs=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_ordinal_of_infinite_logits_that_are_right(soft: bool) -> None:
    x = torch.tensor([[torch.inf, 1e4, -torch.inf]], requires_grad=True)
    target = torch.tensor([2])
    value = losses.ordinal(x, F.one_hot(target, 4).float() if soft else target)
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


def test_ordinal_says_which_classes_there_are() -> None:
    with pytest.raises(LossInputError, match=r"class 4, .*0\.\.3"):
        losses.ordinal(torch.zeros(1, 3), torch.tensor([4]))
    with pytest.raises(LossInputError, match=r"logits of shape \(1, 3\), 3 thresholds .* 4 classes, shape \(1, 4\)"):
        losses.ordinal(torch.zeros(1, 3), torch.zeros(1, 3))
    weight = torch.tensor([0.0, 1.0])
    spoilt = torch.tensor([[torch.nan], [0.5]], requires_grad=True)
    value = losses.ordinal(spoilt, torch.tensor([1, 1]), weight=weight)
    value.backward()
    assert value.isfinite()
    assert spoilt.grad[0] == 0
