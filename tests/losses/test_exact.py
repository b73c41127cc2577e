"""Values and gradients against arbitrary precision, against PyTorch, and against worked examples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from mpmath import mp, mpf
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from nucleate import losses
from nucleate.losses import LogProbabilities, Probabilities

mp.dps = 60
EXTREME = [
    [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 9999.0, 9998.5], [-1e4, 0.0, 1.0], [88.7, -88.7, 0.0],
    [1e-4, -1e-4, 0.0],
]  # fmt: skip
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
rows = pytest.mark.parametrize("row", EXTREME, ids=str)


def exact_softmax(x: Tensor) -> list[mpf]:
    powers = [mpmath.exp(mpf(v)) for v in x.tolist()]
    return [e / sum(powers) for e in powers]


def close(found: float, exact: mpf, dtype: torch.dtype) -> None:
    """To a few roundings of the type; the absolute term is the smallest normal number's size of error."""
    assert abs(mpf(found) - exact) <= 16 * torch.finfo(dtype).eps * (abs(exact) + mpf(10) ** -30)


@dtypes
@rows
@pytest.mark.parametrize("label", [0, 1, 2])
def test_cross_entropy_and_its_gradient(row: list[float], label: int, dtype: torch.dtype) -> None:
    x = torch.tensor([row], dtype=dtype, requires_grad=True)
    q = exact_softmax(x[0].detach())
    value = losses.cross_entropy(x, torch.tensor([label]))
    value.backward()
    scale = max(1.0, *map(abs, row))
    assert abs(mpf(value.item()) + mpmath.log(q[label])) <= 4 * torch.finfo(dtype).eps * scale
    for c, slope in enumerate(x.grad[0].tolist()):
        assert abs(mpf(slope) - (q[c] - (c == label))) <= 8 * torch.finfo(dtype).eps


@dtypes
@rows
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal(row: list[float], gamma: float, dtype: torch.dtype) -> None:
    x = torch.tensor([row], dtype=dtype)
    for label in range(3):
        q = exact_softmax(x[0])
        exact = -((1 - q[label]) ** mpf(gamma)) * mpmath.log(q[label])
        found = losses.focal(x, torch.tensor([label]), gamma=gamma).item()
        scale = max(1.0, *map(abs, row))
        assert abs(mpf(found) - exact) <= 16 * torch.finfo(dtype).eps * scale


@dtypes
@pytest.mark.parametrize("x", [-1e4, -100.0, -1e-3, 0.0, 30.0, 1e4])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_binary_cross_entropy(x: float, t: float, dtype: torch.dtype) -> None:
    score, label = torch.tensor([x], dtype=dtype), torch.tensor([t], dtype=dtype)
    exact_x, exact_t = mpf(score.item()), mpf(label.item())
    exact = mpmath.log1p(mpmath.exp(-abs(exact_x))) + max(exact_x, mpf(0)) - exact_t * exact_x
    if t == 1 and x > 0:
        exact = mpmath.log1p(mpmath.exp(-exact_x))
    close(losses.binary_cross_entropy(score, label).item(), exact, dtype)


@dtypes
@rows
def test_entropy_and_divergences(row: list[float], dtype: torch.dtype) -> None:
    a, b = torch.tensor([row], dtype=dtype), torch.tensor([row[::-1]], dtype=dtype)
    p, q = exact_softmax(a[0]), exact_softmax(b[0])
    pairs = list(zip(p, q, strict=True))

    def kl(one: list[mpf], other: list[mpf]) -> mpf:
        return sum(x * mpmath.log(x / y) for x, y in zip(one, other, strict=True))

    middle = [(x + y) / 2 for x, y in pairs]
    exact = {
        "kl_divergence": kl(p, q),
        "jensen_shannon": (kl(p, middle) + kl(q, middle)) / 2,
        "total_variation": sum(abs(x - y) for x, y in pairs) / 2,
        "hellinger": mpmath.sqrt(sum((mpmath.sqrt(x) - mpmath.sqrt(y)) ** 2 for x, y in pairs) / 2),
        "renyi": -2 * mpmath.log(sum(mpmath.sqrt(x * y) for x, y in pairs)),
        "wasserstein_1d": abs(p[0] - q[0]) + abs(p[0] + p[1] - q[0] - q[1]),
    }
    scale = max(1.0, *map(abs, row))
    for name, value in exact.items():
        found = losses.by_name(name)(p=a, q=b).item()
        assert abs(mpf(found) - value) <= 16 * torch.finfo(dtype).eps * scale, name
    entropy = -sum(x * mpmath.log(x) for x in p)
    assert abs(mpf(losses.measures.entropy(a).item()) - entropy) <= 16 * torch.finfo(dtype).eps * 3


@dtypes
@pytest.mark.parametrize("heat", [0.01, 0.1, 1.0])
def test_info_nce(heat: float, dtype: torch.dtype) -> None:
    a, b = torch.randn(5, 3).to(dtype), torch.randn(5, 3).to(dtype)
    found = losses.info_nce(a, b, temperature=heat, reduction="none").tolist()
    long_a, long_b = ([[mpf(v) for v in row] for row in x.tolist()] for x in (a, b))

    def cosine(x: list[mpf], y: list[mpf]) -> mpf:
        dot = sum(u * v for u, v in zip(x, y, strict=True))
        return dot / mpmath.sqrt(sum(u * u for u in x) * sum(v * v for v in y))

    for i in range(5):
        scores = [cosine(long_a[i], y) / mpf(heat) for y in long_b]
        exact = mpmath.log(sum(mpmath.exp(s - scores[i]) for s in scores))
        assert abs(mpf(found[i]) - exact) <= 8 * torch.finfo(dtype).eps / heat


# against PyTorch
@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"class_weight": torch.tensor([1.0, 2.0, 3.0]).double()}]
)
def test_cross_entropy_is_pytorchs(options: dict[str, Any]) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    t = torch.randint(0, 3, (2, 4, 5))
    theirs = {"weight" if name == "class_weight" else name: value for name, value in options.items()}
    torch.testing.assert_close(losses.cross_entropy(x, t, **options), F.cross_entropy(x, t, **theirs))
    t[0, 0] = -100
    ignored = losses.cross_entropy(x, t, ignore_index=-100, **options)
    torch.testing.assert_close(ignored, F.cross_entropy(x, t, **theirs))


@pytest.mark.parametrize(
    "kind", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.bool]
)
def test_class_indices_of_any_integer_type(kind: torch.dtype) -> None:
    x, t = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    assert losses.cross_entropy(x, t.to(kind)) == losses.cross_entropy(x, t)


def test_others_are_pytorchs() -> None:
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    t, sign = torch.randint(0, 4, (6,)), torch.randint(0, 2, (6, 4)) * 2 - 1
    kl = F.kl_div(y.log_softmax(1), x.log_softmax(1), reduction="batchmean", log_target=True)
    same = {
        "kl": (losses.kl_divergence(p=x, q=y), kl),
        "weston": (losses.multiclass_hinge(x, t, kind="weston-watkins") / 4, F.multi_margin_loss(x, t)),
        "soft": (losses.logistic(x, sign, labels="signed"), F.soft_margin_loss(x, sign)),
        "ranking": (
            losses.margin_ranking(x, y, sign, labels="signed", margin=0.2),
            F.margin_ranking_loss(x, y, sign, margin=0.2),
        ),
        "triplet": (losses.triplet_margin(x, y, x.roll(1, 0)), F.triplet_margin_loss(x, y, x.roll(1, 0), eps=0)),
        "binary": (
            losses.binary_cross_entropy(x, x.sigmoid(), positive_weight=2.0),
            F.binary_cross_entropy_with_logits(x, x.sigmoid(), pos_weight=torch.tensor(2.0)),
        ),
        "linear": (losses.linear_cross_entropy(x, y, t % 6), F.cross_entropy(F.linear(x, y), t % 6)),
    }
    for name, (ours, theirs) in same.items():
        torch.testing.assert_close(ours, theirs, msg=name)


# worked examples
def test_hinge_of_the_handbook() -> None:
    """Decisions -2.18, 2.36 and 0.09 for the labels -1, 1 and 1: (0 + 0 + 0.91) / 3."""
    score, label = torch.tensor([-2.18, 2.36, 0.09]), torch.tensor([-1, 1, 1])
    assert losses.hinge(score, label, labels="signed").item() == pytest.approx(0.91 / 3, abs=1e-6)


def test_three_classes_with_label_b() -> None:
    said = Probabilities(torch.tensor([[0.228, 0.619, 0.153]], dtype=torch.float64))
    label = Probabilities(torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64))
    cross = losses.cross_entropy(said.tensor.log(), label.tensor)
    assert cross.item() == pytest.approx(-math.log(0.619), rel=1e-12)
    assert losses.measures.information(said, torch.tensor([1])).item() == pytest.approx(0.47965, abs=1e-6)
    sum_of_both = losses.measures.entropy(label) + losses.kl_divergence(p=label, q=said)
    assert sum_of_both.item() == pytest.approx(cross.item(), rel=1e-12)


def test_forms_of_one_distribution_agree() -> None:
    p, q = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    expected = losses.kl_divergence(p=p, q=q)
    for one in (Probabilities(p.softmax(1)), LogProbabilities(p.log_softmax(1))):
        for other in (Probabilities(q.softmax(1)), LogProbabilities(q.log_softmax(1)), q):
            torch.testing.assert_close(losses.kl_divergence(p=one, q=other), expected)


# kinks, from both sides
KINKS: dict[str, tuple[float, ...]] = {
    "hinge": (1.0,), "squared_hinge": (1.0,), "smoothed_hinge": (0.0, 1.0), "modified_huber": (-1.0, 1.0),
    "perceptron": (0.0,), "ramp": (0.0, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("side", [-1e-4, 1e-4])
@pytest.mark.parametrize(("name", "at"), [(n, z) for n, kinks in KINKS.items() for z in kinks])
def test_margin_losses_on_both_sides_of_a_kink(name: str, at: float, side: float) -> None:
    loss = losses.by_name(name)
    score = torch.tensor([at + side], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda s: loss(s, torch.tensor([1])), (score,), eps=1e-6)
    below, kink, above = (loss(torch.tensor([at + d]), torch.tensor([1])).item() for d in (-1e-4, 0.0, 1e-4))
    assert abs(below - kink) < 1e-3
    assert abs(above - kink) < 1e-3


Call = Callable[[Tensor], Tensor]


@pytest.mark.parametrize("side", [-1e-4, 1e-4])
@pytest.mark.parametrize(
    "call",
    [
        lambda d: losses.multiclass_hinge(torch.cat((1 + d, d * 0), 1), torch.tensor([0])),
        lambda d: losses.margin_ranking(d[0], d[0] * 0, torch.tensor([1])),
        lambda d: losses.triplet_margin(d * 0, 1 + d, d * 0 + 2, margin=1.0),
        lambda d: losses.total_variation(p=torch.cat((d, d * 0), 1), q=torch.zeros(1, 2).double()),
        lambda d: losses.wasserstein_1d(p=torch.cat((d, d * 0), 1), q=torch.zeros(1, 2).double()),
        lambda d: losses.lovasz_hinge(torch.cat((1 + d, d * 0 + 0.5), 1), torch.tensor([[1, 0]])),
        lambda d: losses.lovasz_hinge(torch.cat((0.5 + d, d * 0 - 0.5), 1), torch.tensor([[1, 0]])),
        lambda d: losses.dice(
            Probabilities((0.3 + d).reshape(1, 1, 1)), torch.full((1, 1, 1), 0.3).double(), multilabel=True
        ),
        lambda d: losses.vicreg(
            torch.cat((d - 1, 1 - d)) / math.sqrt(2), torch.cat((d - 1, 1 - d)) / math.sqrt(2), deviation=1.0
        ),
    ],
)
def test_other_losses_on_both_sides_of_a_kink(call: Call, side: float) -> None:
    assert gradcheck(call, (torch.tensor([[side]], dtype=torch.float64, requires_grad=True),), eps=1e-6)
