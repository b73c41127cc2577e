"""Sums and gathers over the ranks of a torch process group, with the gradient of one process holding everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from nucleate.losses.autograd import applied

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def sum_across(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """The sum of `x` over the ranks; its gradient is the gradient of this rank's own term."""
    if group is None:
        return x
    return applied(_SumAcross, x, group)


def gather(x: Tensor, group: ProcessGroup | None, *, replicated: bool = False) -> Tensor:
    """The rows of every rank, in rank order, shape (sum of N_r, ...); ranks may hold different numbers, or none.

    The gradient sums what every rank sends back to a row (each rank's loss has its own anchors). With `replicated`
    every rank computes the whole loss from the result, so its own copy of the gradient is already complete.
    """
    if group is None:
        return x
    return applied(_Gather, x, group, replicated)


def first_row(rows: int, group: ProcessGroup | None) -> int:
    """Where this rank's rows begin in what `gather` returns."""
    if group is None:
        return 0
    return sum(of_each_rank(rows, group)[: torch.distributed.get_rank(group)])


def of_each_rank(number: int, group: ProcessGroup) -> list[int]:
    """The number that each rank says, in rank order."""
    mine = torch.tensor([number], device=message_device(group))
    every = [torch.zeros_like(mine) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(every, mine, group=group)
    return [int(n) for n in every]


def message_device(group: ProcessGroup) -> torch.device:
    """Where the group's messages must lie: NCCL carries device memory only."""
    nccl = torch.distributed.get_backend(group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def _gather_rows(x: Tensor, group: ProcessGroup) -> tuple[Tensor, list[int]]:
    counts = of_each_rank(len(x), group)
    # Collectives want equal shapes: pad to the longest rank, cut afterwards.
    padded = x.new_zeros((max(counts), *x.shape[1:]))
    padded[: len(x)] = x
    every = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(every, padded, group=group)
    return torch.cat([rows[:n] for rows, n in zip(every, counts, strict=True)]), counts


@final
class _SumAcross(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        total = x.detach().clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


@final
class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup, replicated: bool) -> Tensor:
        rows, counts = _gather_rows(x.detach(), group)
        rank = torch.distributed.get_rank(group)
        ctx.group, ctx.replicated = group, replicated
        ctx.begin, ctx.rows = sum(counts[:rank]), counts[rank]
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        if ctx.replicated:
            return gradients[0][ctx.begin : ctx.begin + ctx.rows], None, None
        return applied(_Scatter, gradients[0], ctx.group, ctx.begin, ctx.rows), None, None


@final
class _Scatter(torch.autograd.Function):
    """Sum over the ranks, then this rank's rows: the adjoint of the gather, itself differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup, begin: int, rows: int) -> Tensor:
        ctx.group = group
        total = x.detach().clone()
        torch.distributed.all_reduce(total, group=group)
        return total[begin : begin + rows].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return gather(gradients[0], ctx.group), None, None, None
