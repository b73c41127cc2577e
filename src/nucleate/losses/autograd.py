"""Functions with a derivative of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

Twin = Callable[..., Tensor]
Gradients = Callable[[float], list[Tensor | None]]


def applied(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """`function.apply(*arguments)`, of a function that gives one tensor."""
    result: Tensor = function.apply(*arguments)
    return result


@final
class Total(torch.autograd.Function):
    """A scalar with its gradients at hand.

    The gradients were scaled by what the backward pass is expected to bring, so that as a rule they are handed over
    as they are: the only extra memory is the gradient itself. A second backward pass computes them again, and a
    derivative of the derivative goes through the plain version.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, made: list[Tensor | None], scale: float, again: Gradients, twin: Twin,
                *inputs: Tensor) -> Tensor:  # fmt: skip
        ctx.save_for_backward(*inputs)
        ctx.made, ctx.scale, ctx.again, ctx.twin = made, scale, again, twin
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        given = gradients[0]
        if torch.is_grad_enabled():
            wanted = [x for x, need in zip(inputs, ctx.needs_input_grad[5:], strict=True) if need]
            found = iter(torch.autograd.grad(ctx.twin(*inputs), wanted, given, create_graph=True))
            return (None,) * 5 + tuple(next(found) if need else None for need in ctx.needs_input_grad[5:])
        made, ctx.made = ctx.made, None
        factor = float(given)
        if made is None:
            made = ctx.again(factor)
        elif factor != ctx.scale:
            # One place where `scale` cannot be 0: it is 1 or one over a weight.
            made = [None if g is None else g.mul_(factor / ctx.scale) for g in made]
        return (None,) * 5 + tuple(made)


def total(
    value: Tensor, made: list[Tensor | None], scale: float, again: Gradients, twin: Twin, inputs: Sequence[Tensor]
) -> Tensor:
    """`value` as a scalar whose gradients are `made` = `scale` times the derivatives at `inputs`.

    again(s) makes them anew, s times the derivatives; twin(*inputs) is the plain version.
    """
    return applied(Total, value, made, scale, again, twin, *inputs)
