"""Sums and gathers over the ranks of a group, with the gradient of one process holding everything.

A group is a torch process group or a communicator of mpi4py; None is this process alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from nucleate.losses.autograd import applied
from nucleate.parallel import communicator_of

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group


def sum_across(x: Tensor, group: Group | None) -> Tensor:
    """The sum of `x` over the ranks; its gradient is the gradient of this rank's own term."""
    if group is None:
        return x
    return applied(_SumAcross, x, group)


def gather(x: Tensor, group: Group | None, *, replicated: bool = False) -> Tensor:
    """The rows of every rank, in rank order, shape (sum of N_r, ...); ranks may hold different numbers, or none.

    The gradient sums what every rank sends back to a row (each rank's loss has its own anchors). With `replicated`
    every rank computes the whole loss from the result, so its own copy of the gradient is already complete.
    """
    if group is None:
        return x
    return applied(_Gather, x, group, replicated)


def first_row(rows: int, group: Group | None) -> int:
    """Where this rank's rows begin in what `gather` returns."""
    return communicator_of(group).exclusive_scan(rows)


@final
class _SumAcross(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return communicator_of(group).sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


@final
class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, replicated: bool) -> Tensor:
        ranks = communicator_of(group)
        every = ranks.gather(x)
        ctx.group, ctx.replicated = group, replicated
        ctx.begin, ctx.rows = sum(len(rows) for rows in every[: ranks.rank]), len(x)
        return torch.cat(every)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        if ctx.replicated:
            return gradients[0][ctx.begin : ctx.begin + ctx.rows], None, None
        return applied(_Scatter, gradients[0], ctx.group, ctx.begin, ctx.rows), None, None


@final
class _Scatter(torch.autograd.Function):
    """Sum over the ranks, then this rank's rows: the adjoint of the gather, itself differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, begin: int, rows: int) -> Tensor:
        ctx.group = group
        return communicator_of(group).sum(x)[begin : begin + rows].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return gather(gradients[0], ctx.group), None, None, None
