"""Rows of length 1 beside the plain version."""

from __future__ import annotations

import torch
from torch import Tensor

from nucleate import losses
from nucleate.losses.embeddings import unit


def rows() -> Tensor:
    x = torch.randn(1 << 13, 128)
    x[5] = 0.0
    x[7] *= 1e-20
    return x.requires_grad_()


def test_the_gradient_is_that_of_the_plain_version() -> None:
    x, given = rows(), torch.randn(1 << 13, 128)
    y = unit(x)
    (found,) = torch.autograd.grad(y, x, given)
    assert type(y.grad_fn).__name__ == "_UnitBackward"
    exact = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(unit(exact), exact, given.double())
    assert torch.equal(y[5], torch.zeros(128))
    error = (found.double() - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(error.max()) < 1e-6


def test_the_second_derivative_is_that_of_the_plain_version() -> None:
    x = (torch.randn(1 << 13, 128) + 1).requires_grad_()

    def second() -> Tensor:
        (first,) = torch.autograd.grad(unit(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), x)[0]

    found = second()
    with losses.use_kernels(False):
        torch.testing.assert_close(found, second())
