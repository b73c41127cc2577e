"""Functions with a derivative of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from nucleate.losses.validation import batched

Twin = Callable[..., Tensor]
Gradients = Callable[[float], list[Tensor | None]]


def applied(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """`function.apply(*arguments)`, of a function that gives one tensor."""
    result: Tensor = function.apply(*arguments)
    return result


def save(ctx: Any, needed: Sequence[Tensor | None], watched: Sequence[Tensor | None] = ()) -> None:
    """Save what the backward pass needs, and what is only watched: changed in place, it is PyTorch's error there.

    A tensor made in inference mode has no version to be saved with: of one that is needed, a copy is saved.
    """
    if any(ctx.needs_input_grad):
        copies = [x.clone() if x is not None and x.is_inference() else x for x in needed]
        ctx.save_for_backward(*copies, *(None if x is None or x.is_inference() else x for x in watched))


@final
class Elementwise(torch.autograd.Function):
    """value(x) with the derivative slope(x), element by element: nothing but x is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Twin, slope: Twin) -> Tensor:
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.slope = slope
        return value(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.slope(*ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0] * ctx.slope(*ctx.saved_tensors)


@final
class Total(torch.autograd.Function):
    """A scalar with its gradients at hand.

    The gradients were scaled by what the backward pass is expected to bring, so that as a rule they are handed over
    as they are: the only extra memory is the gradient itself. A second backward pass computes them again, and a
    derivative of the derivative goes through the plain version. Constants are saved, too, for the error that PyTorch
    raises where one was changed in place between the passes.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, made: list[Tensor | None], scale: float, again: Gradients, twin: Twin,
                count: int, *tensors: Tensor | None) -> Tensor:  # fmt: skip
        save(ctx, tensors[:count], tensors[count:])
        ctx.made, ctx.scale, ctx.again, ctx.twin, ctx.count = made, scale, again, twin, count
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # asked for once: activation checkpointing allows no more
        inputs, constants = saved[: ctx.count], saved[ctx.count :]
        rest = (None,) * len(constants)
        given = gradients[0]
        if torch.is_grad_enabled():
            needs = ctx.needs_input_grad[6 : 6 + ctx.count]
            # Each input apart: one may be made of another, or be the same, and must not get its gradient.
            apart = [x.view_as(x) for x in inputs]
            wanted = [x for x, need in zip(apart, needs, strict=True) if need]
            found = iter(torch.autograd.grad(ctx.twin(*apart), wanted, given, create_graph=True))
            return (None,) * 6 + tuple(next(found) if need else None for need in needs) + rest
        if batched(given):  # of batched gradients there is no one value
            made = ctx.made or ctx.again(ctx.scale)
            ctx.made = made
            return (None,) * 6 + tuple(None if g is None else g * (given / ctx.scale) for g in made) + rest
        made, ctx.made = ctx.made, None
        factor = float(given)
        if made is None:
            made = ctx.again(factor)
        elif factor != ctx.scale:
            # One place where `scale` cannot be 0: it is 1 or one over a weight.
            made = [None if g is None else g.mul_(factor / ctx.scale) for g in made]
        return (None,) * 6 + tuple(made) + rest


def total(
    value: Tensor, made: list[Tensor | None], scale: float, again: Gradients, twin: Twin, inputs: Sequence[Tensor],
    constants: Sequence[Tensor | None],
) -> Tensor:  # fmt: skip
    """`value` as a scalar whose gradients are `made` = `scale` times the derivatives at `inputs`.

    again(s) makes them anew, s times the derivatives; twin(*inputs) is the plain version. `constants` are the targets,
    masks and weights that both of them read.
    """
    return applied(Total, value, made, scale, again, twin, len(inputs), *inputs, *constants)
