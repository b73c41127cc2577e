"""Losses without negatives, with angular margins and of labelled pairs: beside plain formulas, and at their edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nucleate import losses
from nucleate.losses import LossInputError

seeds = st.integers(0, 2**31 - 1)
LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 1, 3])  # the labels 2 and 3 have one row each


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


# without negatives
def test_byol_and_simsiam_are_their_cosines() -> None:
    p, z, q, y = (normal(k, 6, 4) for k in range(4))
    each = losses.byol(p, z, reduction="none")
    torch.testing.assert_close(each, torch.stack([2 - 2 * cosine(a, b) for a, b in zip(p, z, strict=True)]))
    both = [-(cosine(p[i], y[i]) + cosine(q[i], z[i])) / 2 for i in range(6)]
    torch.testing.assert_close(losses.simsiam(p, z, q, y, reduction="none"), torch.stack(both))
    weight = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(losses.byol(p, z, weight=weight), (each * weight).sum() / 8)


def test_no_gradient_reaches_a_teacher_or_a_projection() -> None:
    x = [normal(k, 6, 4).requires_grad_() for k in range(4)]
    losses.simsiam(*x).backward()
    assert [t.grad is None for t in x] == [False, True, False, True]
    student, teacher = (normal(k, 6, 4).requires_grad_() for k in range(2))
    center = torch.zeros(4, requires_grad=True)
    (losses.dino(student, teacher, center=center) + losses.byol(student, teacher)).backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert center.grad is None


@given(seeds)
def test_losses_without_negatives_do_not_see_lengths_or_order(seed: int) -> None:
    x = [normal(seed + k, 5, 3) for k in range(4)]
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    for name, count in (("byol", 2), ("simsiam", 4)):
        loss = losses.by_name(name)
        torch.testing.assert_close(loss(*(3.0 * t[order] for t in x[:count])), loss(*x[:count]))
    same = losses.byol(x[0], 2 * x[0], reduction="none")
    assert ((same >= 0) & (same < 1e-12)).all()
    torch.testing.assert_close(losses.byol(x[0], -x[0]).item(), 4.0)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_dino_is_the_cross_entropy_of_sharpened_shares(kind: torch.dtype) -> None:
    student, teacher, center = normal(1, 5, 6).to(kind), normal(2, 5, 6).to(kind), normal(3, 6)
    wide = teacher.double() if kind == torch.float64 else teacher.float()
    share = ((wide - center.to(wide.dtype)) / 0.04).exp()
    share = share / share.sum(1, keepdim=True)
    log = (student.to(wide.dtype) / 0.1).exp()
    log = (log / log.sum(1, keepdim=True)).log()
    found = losses.dino(student, teacher, center=center, reduction="none")
    torch.testing.assert_close(found, -(share * log).sum(1))
    pixels = losses.dino(student.T.reshape(6, 5, 1), teacher.T.reshape(6, 5, 1), center=center, class_dim=0)
    torch.testing.assert_close(pixels, found.mean())


@given(seeds)
def test_dino_is_least_where_student_and_teacher_agree(seed: int) -> None:
    teacher, other = normal(seed, 5, 4), normal(seed + 1, 5, 4)
    options = {"student_temperature": 0.3, "teacher_temperature": 0.3, "reduction": "none"}
    entropy = losses.measures.entropy(teacher / 0.3, reduction="none")
    torch.testing.assert_close(losses.dino(teacher, teacher, **options), entropy)
    assert (losses.dino(other, teacher, **options) >= entropy - 1e-12).all()


def test_a_center_is_the_moving_average_of_all_selected_positions() -> None:
    center = losses.DINOCenter(3, momentum=0.75).double()
    teacher, mask = normal(0, 2, 3, 4), torch.rand(2, 4) > 0.4
    teacher = teacher.masked_fill(~mask.unsqueeze(1), torch.nan)
    center.update(teacher, mask=mask)
    mean = torch.stack([teacher[:, k][mask].mean() for k in range(3)])
    torch.testing.assert_close(center.value, mean / 4)
    center.update(teacher.movedim(1, 2), class_dim=-1, mask=mask)
    torch.testing.assert_close(center.value, mean / 4 * 0.75 + mean / 4)
    before = center.value.clone()
    center.update(teacher, mask=torch.zeros_like(mask))
    center.update(teacher[:0])
    assert torch.equal(center.value, before)
    assert list(center.state_dict()) == ["value"]
    with pytest.raises(LossInputError, match="3 scores along dimension 1"):
        center.update(torch.zeros(2, 4))


# angular margins
def angular(x: Tensor, vectors: Tensor, label: Tensor, scale: float, moved: Any) -> Tensor:
    values = []
    for row, y in zip(x, label.tolist(), strict=True):
        cosines = [cosine(row, v) for v in vectors]
        scores = torch.stack([scale * (moved(c) if k == y else c) for k, c in enumerate(cosines)])
        values.append(scores.exp().sum().log() - scores[y])
    return torch.stack(values)


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.2])
def test_angular_margins_are_their_formulas(margin: float) -> None:
    x, vectors, label = normal(0, 40, 3), normal(1, 5, 3), torch.arange(40) % 5

    def hard(c: Tensor) -> Tensor:
        angle = c.acos() + margin
        return angle.cos() if angle <= math.pi else c - margin * math.sin(margin)

    def easy(c: Tensor) -> Tensor:
        return (c.acos() + margin).cos() if c >= 0 else c

    for name, moved, options in (
        ("cosface", lambda c: c - margin, {}),
        ("arcface", hard, {}),
        ("arcface", easy, {"easy_margin": True}),
    ):
        options |= {"margin": margin, "scale": 8.0}
        leaves = [[t.clone().requires_grad_() for t in (x, vectors)] for _ in range(2)]
        found = losses.by_name(name)(*leaves[0], label, reduction="none", **options)
        expected = angular(*leaves[1], label, 8.0, moved)
        torch.testing.assert_close(found, expected)
        for one, other in zip(
            *(torch.autograd.grad(v.sum(), t) for v, t in zip((found, expected), leaves, strict=True)), strict=True
        ):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["cosface", "arcface"])
def test_rows_parallel_to_a_class_have_finite_derivatives(name: str, dtype: torch.dtype) -> None:
    vectors = normal(0, 4, 7).to(dtype).requires_grad_()
    x = torch.cat((3 * vectors.detach(), -2 * vectors.detach())).requires_grad_()
    label = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    value = losses.by_name(name)(x, vectors, label)
    first = torch.autograd.grad(value, (x, vectors), create_graph=True)
    assert all(g.isfinite().all() for g in first)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, vectors))
    assert all(g.isfinite().all() for g in second)
    zero = torch.zeros(1, 7, dtype=dtype, requires_grad=True)
    losses.by_name(name)(zero, vectors, label[:1]).backward()
    assert zero.grad.isfinite().all()


def test_a_small_angle_is_exact_in_float32() -> None:
    """sqrt(1 - cos^2) would round an angle of 1e-4 to 0 or 3e-4."""
    x, vectors = torch.tensor([[1.0, 1e-4]]), torch.eye(2)
    found = losses.arcface(x, vectors, torch.tensor([0]), scale=1.0, margin=1.5)
    exact = losses.arcface(x.double(), vectors.double(), torch.tensor([0]), scale=1.0, margin=1.5)
    assert abs(found.item() - exact.item()) < 2e-7


@given(seeds, st.floats(0, 1.5))
def test_a_margin_costs_and_none_is_the_cross_entropy_of_cosines(seed: int, margin: float) -> None:
    x, vectors, label = normal(seed, 6, 4), normal(seed + 1, 5, 4), torch.arange(6) % 5
    plain = losses.cross_entropy(3 * F.normalize(x) @ F.normalize(vectors).T, label, reduction="none")
    for loss in (losses.cosface, losses.arcface):
        torch.testing.assert_close(loss(x, vectors, label, scale=3.0, margin=0.0, reduction="none"), plain)
        assert (loss(2 * x, vectors / 3, label, scale=3.0, margin=margin, reduction="none") >= plain - 1e-12).all()


@given(st.floats(0, math.pi), st.floats(0, math.pi), st.floats(0, math.pi / 2))
def test_arcface_grows_with_the_angle_up_to_pi(one: float, other: float, margin: float) -> None:
    def value(angle: float) -> float:
        x = torch.tensor([[math.cos(angle), math.sin(angle), 0.0]], dtype=torch.float64)
        vectors = torch.tensor([[1.0, 0, 0], [0, 0, 1]], dtype=torch.float64)
        return losses.arcface(x, vectors, torch.tensor([0]), scale=2.0, margin=margin).item()

    low, high = sorted((one, other))
    assert value(low) <= value(high) + 1e-9


def test_one_hot_rows_and_weights_are_as_in_cross_entropy() -> None:
    x, vectors, label = normal(0, 6, 4), normal(1, 3, 4), torch.tensor([0, 1, 2, 2, 1, 9])
    weight, class_weight = torch.rand(6).double(), torch.tensor([1.0, 2.0, 0.0]).double()
    options = {"class_weight": class_weight, "weight": weight}
    each = losses.cosface(x[:5], vectors, label[:5], reduction="none")
    share = class_weight[label[:5]] * weight[:5]
    found = losses.cosface(x, vectors, label, ignore_index=9, **options)
    torch.testing.assert_close(found, (each * share).sum() / share.sum())
    hot = F.one_hot(label[:5], 3)
    torch.testing.assert_close(losses.cosface(x[:5], vectors, hot, reduction="none"), each)


# labelled pairs
def circle_by_hand(x: Tensor, labels: list[int], margin: float, scale: float) -> list[Tensor]:
    values = []
    for i, mine in enumerate(labels):
        partners = [cosine(x[i], x[j]) for j, y in enumerate(labels) if y == mine and j != i]
        others = [cosine(x[i], x[j]) for j, y in enumerate(labels) if y != mine]
        if partners:
            pull = sum((-scale * (1 + margin - s).detach().clamp(min=0) * (s - 1 + margin)).exp() for s in partners)
            push = sum((scale * (s + margin).detach().clamp(min=0) * (s - margin)).exp() for s in others)
            values.append((1 + pull * push).log())
    return values


def multi_similarity_by_hand(x: Tensor, labels: list[int], a: float, b: float, t: float, e: float) -> list[Tensor]:
    values = []
    for i, mine in enumerate(labels):
        partners = [cosine(x[i], x[j]) for j, y in enumerate(labels) if y == mine and j != i]
        others = [cosine(x[i], x[j]) for j, y in enumerate(labels) if y != mine]
        if partners:
            hard = [s for s in partners if s < max(others) + e]
            near = [s for s in others if s > min(partners) - e]
            pull = sum(((-a * (s - t)).exp() for s in hard), torch.ones(()).double()).log() / a
            values.append(pull + sum(((b * (s - t)).exp() for s in near), torch.ones(()).double()).log() / b)
    return values


@pytest.mark.parametrize("seed", range(3))
def test_losses_of_labelled_pairs_are_their_sums(seed: int) -> None:
    for loss, by_hand, options, numbers in (
        ("circle", circle_by_hand, {"margin": 0.25, "scale": 6.0}, (0.25, 6.0)),
        ("multi_similarity", multi_similarity_by_hand, {}, (2.0, 50.0, 0.5, math.inf)),
        ("multi_similarity", multi_similarity_by_hand, {"mining": 0.1, "beta": 40.0}, (2.0, 40.0, 0.5, 0.1)),
    ):
        one, other = (normal(seed, 8, 3).requires_grad_() for _ in range(2))
        values = by_hand(other, LABELS.tolist(), *numbers)  # type: ignore[operator]
        total, anchors = losses.total_and_weight(losses.by_name(loss), one, LABELS, **options)
        assert anchors == len(values) == 6
        torch.testing.assert_close(total, torch.stack(values).sum())
        total.backward()
        torch.stack(values).sum().backward()
        torch.testing.assert_close(one.grad, other.grad)


PAIRS = pytest.mark.parametrize("loss", [losses.circle, losses.multi_similarity])


@PAIRS
@given(seed=seeds)
def test_losses_of_labelled_pairs_do_not_see_order_lengths_or_names(loss: Any, seed: int) -> None:
    x, order = normal(seed, 8, 3), torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    value = loss(x, LABELS)
    assert value >= 0
    torch.testing.assert_close(loss(5 * x[order], LABELS[order]), value)
    torch.testing.assert_close(loss(x, (7 - LABELS).to(torch.uint8)), value)


@PAIRS
def test_anchors_without_partners_are_not_counted(loss: Any) -> None:
    x = normal(0, 5, 3).requires_grad_()
    pair = losses.total_and_weight(loss, x, torch.arange(5))
    assert (pair.total.item(), pair.weight.item()) == (0.0, 0.0)
    alone = losses.total_and_weight(loss, x, torch.zeros(5).long())  # without negatives
    assert alone.weight == 5
    (pair.total + alone.total).backward()
    assert x.grad.isfinite().all()
    assert (losses.circle(x, torch.zeros(5).long(), reduction="none") == 0).all()
    each = loss(x, torch.tensor([0, 1, 2, 0, 3]), reduction="none")
    assert (each[[1, 2, 4]] == 0).all()


@PAIRS
def test_embeddings_that_are_all_one_have_a_finite_gradient(loss: Any) -> None:
    for x in (torch.ones(8, 3), torch.zeros(8, 3)):
        x.requires_grad_()
        loss(x, LABELS).backward()
        assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: losses.byol(torch.ones(2, 3), torch.ones(3, 3)), r"target has shape \(3, 3\).*\(2, 3\)"),
        (lambda: losses.simsiam(*[torch.ones(2, 3)] * 3, torch.ones(2, 4)), "second_projection"),
        (lambda: losses.dino(torch.ones(2, 3), torch.ones(2, 3), teacher_temperature=0.0), "teacher_temperature"),
        (lambda: losses.dino(torch.ones(2, 3), torch.ones(2, 3), center=torch.ones(2)), r"center.*\(3,\)"),
        (lambda: losses.dino(torch.ones(2, 3), torch.ones(3, 2)), r"teacher has shape \(3, 2\)"),
        (lambda: losses.arcface(torch.ones(2, 3), torch.ones(4, 2), torch.zeros(2).long()), r"\(classes, D\)"),
        (lambda: losses.arcface(torch.ones(2, 3), torch.ones(4, 3), torch.full((2,), 4)), "class 4, .*0..3"),
        (lambda: losses.arcface(torch.ones(2, 3), torch.ones(4, 3), torch.zeros(2).long(), margin=2.0), "margin"),
        (lambda: losses.cosface(torch.ones(2, 3), torch.ones(4, 3), torch.zeros(2).long(), scale=0.0), "scale"),
        (lambda: losses.circle(torch.ones(2, 3), torch.ones(2)), "integer"),
        (lambda: losses.circle(torch.ones(2, 3), torch.ones(2, 1).long()), r"\(2, 1\).*\(2,\)"),
        (lambda: losses.circle(torch.ones(2, 3), torch.ones(2).long(), margin=1.5), "0..1"),
        (lambda: losses.multi_similarity(torch.ones(2, 3), torch.ones(2).long(), mining=-0.1), "mining"),
        (lambda: losses.DINOCenter(3, momentum=2.0), "momentum"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, said: str) -> None:
    with pytest.raises(LossInputError, match=said):
        call()


@pytest.mark.parametrize("name", ["byol", "simsiam", "dino", "cosface", "arcface", "circle", "multi_similarity"])
def test_a_row_of_weight_zero_is_not_selected(name: str) -> None:
    x = [normal(k, 5, 3) for k in range(4)]
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.5], dtype=torch.float64)
    rest = {"cosface": (x[1], torch.tensor([0, 1, 2, 3, 4])), "simsiam": x[1:]}
    rest["arcface"] = rest["cosface"]
    rest["circle"] = rest["multi_similarity"] = (torch.tensor([0, 1, 0, 0, 1]),)

    def run(first: Tensor) -> tuple[Tensor, Tensor]:
        leaf = first.clone().requires_grad_()
        value = losses.by_name(name)(leaf, *rest.get(name, [x[1]]), weight=weight)
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    silenced = torch.where((weight == 0).unsqueeze(1), torch.nan, x[0])
    other = torch.where((weight == 0).unsqueeze(1), x[2], x[0])
    for one, two in zip(run(silenced), run(other), strict=True):
        torch.testing.assert_close(one, two)
    assert (run(silenced)[1][weight == 0] == 0).all()
