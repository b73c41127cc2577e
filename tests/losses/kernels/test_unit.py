"""Rows of length 1 beside the plain version, and memory that is used again."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from nucleate import losses
from nucleate.losses.contrastive import unit
from nucleate.losses.kernels import memory


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
    with losses.fast(False):
        torch.testing.assert_close(found, second())


@pytest.mark.skipif(
    sys.platform != "linux", reason="memory is taken again on Linux only; elsewhere `unwritten` is torch.empty_like"
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_memory_of_a_gradient_serves_the_next_one_of_its_size_and_never_two_at_once(dtype: torch.dtype) -> None:
    like = torch.empty(2, 3, 1024, 1024, dtype=dtype).to(memory_format=torch.channels_last)
    memory.forget()
    first = memory.unwritten(like)
    assert (first.shape, first.stride(), first.dtype) == (like.shape, like.stride(), like.dtype)
    second = memory.unwritten(like)
    place = first.data_ptr()
    assert second.data_ptr() != place
    view = first.flatten(2)
    del first
    assert memory.unwritten(like).data_ptr() != place  # a view still holds it
    memory.forget()
    del view
    assert memory.unwritten(like).data_ptr() == place
