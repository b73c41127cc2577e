"""Sums and gathers over the ranks of a group, with the gradient of one process holding everything.

A group is a torch process group or a communicator of mpi4py; None is this process alone. What a rank holds is either
its own, and the whole is the sum over the ranks, or the same on each of them. The functions below turn one into the
other, and the derivative of each is the other one of its pair, so that second derivatives are right, too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, final

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.autograd import applied
from nucleate.parallel import communicator_of

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group


Given = ParamSpec("Given")
Value = TypeVar("Value")


def _uncompiled(call: Callable[Given, Value]) -> Callable[Given, Value]:
    """The same call, which torch.compile leaves to Python: it would look into what sends the messages."""

    @wraps(call)
    def plain(*args: Given.args, **options: Given.kwargs) -> Value:
        if torch.compiler.is_compiling():
            left: Callable[Given, Value] = torch.compiler.disable(call)
            return left(*args, **options)
        return call(*args, **options)

    return plain


def require_group(loss: str, group: Group | None) -> None:
    """Refuse what is no group, and a group inside the transformations of torch.func."""
    if group is not None:
        _require_group(loss, group)


@_uncompiled
def _require_group(loss: str, group: Group) -> None:
    try:
        communicator_of(group)
    except TypeError as error:
        raise LossInputError(f"{loss}: {error}") from None
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise LossInputError(
            f"{loss}: group= sends values, and vmap, grad and the like of torch.func hold none; call it outside of "
            "them, or use torch.autograd"
        )


def sum_across(x: Tensor, group: Group | None) -> Tensor:
    """The sum of `x` over the ranks, the same on each; its gradient is the gradient of this rank's own term.

    The gradient is there on every rank as soon as one of them asks for it, so that all may call `backward`.
    """
    return x if group is None else _sum_across(x, group)


@_uncompiled
def _sum_across(x: Tensor, group: Group) -> Tensor:
    # In float64, which hides that a rank without rows holds another type. The last number asks for a gradient.
    sent = (x.detach().cpu() if x.is_mps else x.detach()).double().reshape(-1)
    found = communicator_of(group).sum(torch.cat((sent, sent.new_full((1,), _asks(x)))))
    return applied(_Sum, _asked(x, bool(found[-1])), found.to(x.device), group)


def gather(x: Tensor, group: Group | None, *, replicated: bool = False) -> Tensor:
    """The rows of every rank, in rank order, shape (sum of N_r, ...); ranks may hold different numbers, or none.

    The gradient sums what every rank sends back to a row (each rank's loss has its own anchors). With `replicated`
    every rank computes the whole loss from the result, so its own copy of the gradient is already complete.

    Raises:
        LossInputError: some ranks ask for a gradient, and others are inside torch.no_grad(): they would not be there
            in the backward pass, where the ranks meet again. Or their rows have different sizes.
    """
    return x if group is None else _gather(x, group, replicated)


@_uncompiled
def _gather(x: Tensor, group: Group, replicated: bool) -> Tensor:
    if x.is_floating_point():
        mine = torch.tensor([_asks(x), not torch.is_grad_enabled()], dtype=torch.int64)
        asking, without = communicator_of(group).sum(mine).tolist()
        if asking and without and not replicated:
            raise LossInputError(
                "group: some ranks compute this loss under torch.no_grad() and others with a gradient, which needs "
                "every rank; do the same on all of them"
            )
        x = _asked(x, asking > 0)
    try:
        return applied(_Gather, x, group, replicated)
    except ValueError as error:
        raise LossInputError(f"group: {error}") from None


def first_row(rows: int, group: Group | None) -> int:
    """Where this rank's rows begin in what `gather` returns."""
    return 0 if group is None else _first_row(rows, group)


@_uncompiled
def _first_row(rows: int, group: Group) -> int:
    return communicator_of(group).exclusive_scan(rows)


def _asks(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def _asked(x: Tensor, asked: bool) -> Tensor:
    """`x`, which asks for a gradient where another rank does: else this one would miss the backward pass."""
    return x.detach().clone().requires_grad_() if asked and not x.requires_grad else x


# The second and the fourth take `x`, by which the gradient is taken, for its place in the graph alone: so every rank
# comes to their backward passes, where the ranks meet, also one whose own gradient is constant.


@final
class _Sum(torch.autograd.Function):
    """From each rank's own to the sum, the same on all, which is in `found` already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, found: Tensor, group: Group) -> Tensor:
        ctx.save_for_backward(x)
        ctx.group = group
        return found[:-1].reshape(x.shape).to(x.dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return applied(_Own, gradients[0], *ctx.saved_tensors, ctx.group), None, None


@final
class _Own(torch.autograd.Function):
    """From what is the same on all ranks to each rank's own use of it."""

    @staticmethod
    def forward(ctx: Any, same: Tensor, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return same.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return sum_across(gradients[0], ctx.group), None, None


@final
class _Gather(torch.autograd.Function):
    """From this rank's rows to those of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, replicated: bool) -> Tensor:
        ranks = communicator_of(group)
        every = ranks.gather(x)
        begin = sum(len(rows) for rows in every[: ranks.rank])
        ctx.save_for_backward(x)
        ctx.group, ctx.replicated, ctx.mine = group, replicated, slice(begin, begin + len(x))
        return torch.cat(every)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        found = applied(_Rows, gradients[0], *ctx.saved_tensors, ctx.group, ctx.replicated, ctx.mine)
        return found, None, None


@final
class _Rows(torch.autograd.Function):
    """This rank's rows of what all ranks hold alike (`replicated`) or of the sum of what each holds."""

    @staticmethod
    def forward(ctx: Any, every: Tensor, x: Tensor, group: Group, replicated: bool, mine: slice) -> Tensor:
        ctx.group, ctx.replicated = group, replicated
        return (every if replicated else communicator_of(group).sum(every))[mine].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        return gather(gradients[0], ctx.group, replicated=ctx.replicated), None, None, None, None
