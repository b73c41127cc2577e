"""float32 at the ends of its range and near the optimum, against the same formula in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nucleate import losses
from nucleate.losses.embeddings import unit


def both(name: str, options: dict[str, Any], **inputs: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Value and gradients in float32 and in float64."""
    found: list[Tensor] = []
    gradients: list[list[Tensor]] = []
    for dtype in (torch.float32, torch.float64):
        leaves = {
            k: v.detach().clone().to(dtype).requires_grad_() if v.is_floating_point() else v for k, v in inputs.items()
        }
        value = losses.by_name(name)(**leaves, **options)
        value.backward()
        found.append(value.detach().double())
        gradients.append([x.grad.double() for x in leaves.values() if x.grad is not None])
    return found[0], found[1], gradients[0], gradients[1]


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("rows", [6, 70_000])
def test_the_length_of_embeddings_does_not_matter(scale: float, rows: int) -> None:
    """Also of those so many that they take a backward pass of their own."""
    a, b = torch.randn(rows, 16), torch.randn(rows, 16)
    if rows == 6:
        for name in ("info_nce", "nt_xent", "siglip"):
            first, second = ("query", "key") if name == "info_nce" else ("first", "second")
            found, expected, by, right = both(name, {}, **{first: a * scale, second: b * scale})
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
            for x, y in zip(by, right, strict=True):
                torch.testing.assert_close(x * scale, y * scale, rtol=1e-4, atol=1e-6)
        return
    x, y = (a * scale).requires_grad_(), a.clone().requires_grad_()
    made = [unit(v) for v in (x, y)]
    torch.testing.assert_close(*made)
    for v in made:
        (v * b).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * scale, y.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("score", [-3e38, -1e10, 1e10, -torch.inf, torch.inf])
@pytest.mark.parametrize("name", ["ramp", "smoothed_hinge", "modified_huber", "hinge", "perceptron", "logistic"])
def test_margins_far_from_zero(name: str, score: float) -> None:
    """Finite where the loss is, and a finite slope everywhere."""
    found, expected, (by,), (right,) = both(name, {}, score=torch.tensor([score]), target=torch.tensor([1]))
    if expected < 3e38:
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert by.isfinite().all()
    torch.testing.assert_close(by, right)


@pytest.mark.parametrize("gap", [1e-2, 1e-3])
@pytest.mark.parametrize("name", ["kl_divergence", "jensen_shannon"])
def test_divergences_of_nearly_equal_logits(name: str, gap: float) -> None:
    p = torch.randn(4, 5)
    q = p + gap * torch.randn(4, 5)
    found, expected, by, right = both(name, {}, p=p, q=q)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=3e-8)  # what log softmax rounds
    for x, y in zip(by, right, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("gap", [1e-3, 0.1, 0.49, 0.51, 0.9])
def test_generalized_kl_of_amounts_of_any_size(size: float, gap: float) -> None:
    p = (torch.rand(4, 5) + 0.5) * size
    q = p * (1 + gap * torch.rand(4, 5))
    found, expected, by, right = both("generalized_kl", {}, p=p, q=q)
    assert found >= 0
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    for x, y in zip(by, right, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-6)
