"""Functions of the products of rows and columns, a block of rows at a time: memory grows with N, not with N^2.

PyTorch derives the function block by block. So there is one formula for few rows and for many, and every input has its
gradient: rows, columns, and whatever the function reads. Where it is known what the backward pass will bring to each
row, up to a factor, as for a mean, the derivatives are taken along with the values; else each block is made once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor

from nucleate.losses.autograd import applied, save
from nucleate.losses.kernels.dispatch import plain_tensor
from nucleate.losses.validation import batched, full_precision, transforming

FEWEST = 1 << 20  # products, below which they are all held without harm
_BLOCK = 1 << 18  # products in a block, 1 MiB in float32
_ROWS = 64  # in a block at least: fewer make the sums over rows slow

Values = Callable[..., Tensor]
Optional = Sequence[Tensor | None]
Index = slice | tuple[Tensor, ...]


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T in the type that sums are held in, also inside a region of automatic mixed precision."""
    with full_precision(a):
        return a @ b.transpose(-1, -2)


def over_products(
    rows: Tensor, columns: Tensor, values: Values, each: Optional = (), shared: Optional = (),
    expected: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """values(rows columns^T, *each, *shared), one result a row, without ever holding more than a block of products.

    Args:
        rows: (..., D), of any strides.
        columns: (M, D).
        values: gives (...) or (..., more) of scores (..., M); no row may depend on another.
        each: what it reads of each row, (..., more) as well.
        shared: what it reads of all.
        expected: (...), the gradient that each value is likely to get, up to a factor; of more than one value a row,
            the first, and 0 for the others.
    """
    if not suits(rows, columns, (*each, *shared)):
        return values(product(rows, columns), *each, *shared)
    if not torch.is_grad_enabled() or rows.device.type != "cpu":  # there the gradient that comes is not looked at
        expected = None
    if expected is not None:  # weights may be of another type
        expected = expected.to(rows.dtype)
    return applied(_InBlocks, values, len(each), expected, rows, columns, *each, *shared)


def suits(rows: Tensor, columns: Tensor, others: Optional = ()) -> bool:
    """Whether there are so many products that they should not be held, and the tensors such that it can be avoided."""
    tensors = [rows, columns, *(x for x in others if x is not None)]
    return (
        not transforming()  # which would hold on to the size
        and math.prod(rows.shape[:-1]) * len(columns) >= FEWEST
        and rows.dtype == columns.dtype
        and rows.dtype in (torch.float32, torch.float64)
        and all(map(plain_tensor, tensors))
    )


def parts(positions: Sequence[int], columns: int, device: torch.device) -> Iterator[Index]:
    """Indices of the positions, a block of products at a time. No index flattens, so that no copy is ever needed."""
    n = math.prod(positions)
    size = max(_ROWS, _BLOCK // max(1, columns))
    for first in range(0, n, size):
        end = min(first + size, n)
        if len(positions) == 1:
            yield slice(first, end)
        else:
            yield torch.unravel_index(torch.arange(first, end, device=device), tuple(positions))


@final
class _InBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Values, count: int, expected: Tensor | None, rows: Tensor, columns: Tensor,
        *others: Tensor | None,
    ) -> Tensor:  # fmt: skip
        save(ctx, [rows, columns, *others])
        needs = ctx.needs_input_grad[3:]
        ctx.values, ctx.count, ctx.expected, ctx.made = values, count, expected, None
        found, made = _in_blocks(values, count, [rows, columns, *others], needs, expected if any(needs) else None)
        if any(needs):
            ctx.made = made
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, needs, given = list(ctx.saved_tensors), ctx.needs_input_grad[3:], gradients[0]
        if torch.is_grad_enabled() or batched(given):  # batched gradients cannot be written into memory
            return None, None, None, *_through_all(ctx.values, inputs, needs, given)
        made, ctx.made = ctx.made, None
        factor = None if ctx.expected is None else _factor(given, ctx.expected)
        if made is None or factor is None:  # a second backward pass makes them as the first did, to the last bit
            wanted = given if factor is None else ctx.expected
            _, made = _in_blocks(ctx.values, ctx.count, inputs, needs, wanted)
        if factor is not None and factor != 1:
            made = [None if g is None else g.mul_(factor) for g in made]
        return None, None, None, *made


def _in_blocks(
    values: Values, count: int, inputs: Optional, needs: Sequence[bool], given: Tensor | None
) -> tuple[Tensor, list[Tensor | None] | None]:
    """The values, and with `given` the gradients at the inputs."""
    rows, columns, *others = inputs
    assert rows is not None
    assert columns is not None
    made = [torch.zeros_like(x) if x is not None and need else None for x, need in zip(inputs, needs, strict=True)]
    found = rows.new_empty(0)
    for part in parts(rows.shape[:-1], len(columns), rows.device):
        block = rows[part]
        taken = [x if x is None or k >= count else x[part] for k, x in enumerate(others)]
        if given is None:
            value = values(product(block, columns), *taken)
        else:
            leaves: list[Tensor | None] = [product(block, columns).requires_grad_(needs[0] or needs[1])]
            leaves += [x if x is None else x.detach().requires_grad_(n) for x, n in zip(taken, needs[2:], strict=True)]
            value, slopes = _derived(values, leaves, given[part])
            del leaves
            _add(made, slopes, part, count, block, columns)
        if not found.numel():  # once for all: what is kept between the blocks would leave holes in the memory
            found = value.new_empty(*rows.shape[:-1], *value.shape[1:])
        found[part] = value
    return found, None if given is None else made


def _add(made: Optional, slopes: Optional, part: Index, count: int, block: Tensor, columns: Tensor) -> None:
    """Enter what a block gives: slopes by its scores, then by what else was read."""
    by_rows, by_columns, *by_others = made
    by_scores, *rest = slopes
    if by_scores is not None and by_rows is not None:
        by_rows[part] = product(by_scores, columns.T)
    if by_scores is not None and by_columns is not None:
        by_columns.addmm_(by_scores.T, block)
    for k, (into, slope) in enumerate(zip(by_others, rest, strict=True)):
        if into is not None and slope is not None:
            if k < count:
                into[part] = slope
            else:
                into += slope


def _derived(
    values: Values, inputs: Optional, given: Tensor, again: bool = False
) -> tuple[Tensor, list[Tensor | None]]:
    """The values at `inputs`, and the gradients that `given` brings to those that require one."""
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    with torch.enable_grad():
        found = values(*inputs)
    slopes = iter(torch.autograd.grad(found, wanted, _spread(given, found), create_graph=again, allow_unused=True))
    return found.detach(), [next(slopes) if x is not None and x.requires_grad else None for x in inputs]


def _spread(given: Tensor, found: Tensor) -> Tensor:
    """One gradient a row for the first of its values."""
    if given.ndim == found.ndim:
        return given
    spread = torch.zeros_like(found)
    spread[..., 0] = given
    return spread


def _factor(given: Tensor, expected: Tensor) -> float | None:
    """By how much `given` is larger than `expected`; None where it is another gradient."""
    like = _spread(expected, given)
    place = like.abs().argmax()
    factor = float(given.flatten()[place] / like.flatten()[place])
    close = torch.allclose(given, like * factor, rtol=8 * torch.finfo(given.dtype).eps, atol=0.0)
    return factor if close else None


def _through_all(values: Values, inputs: Optional, needs: Sequence[bool], given: Tensor) -> list[Tensor | None]:
    """The gradients by all products at once, themselves differentiable."""

    def whole(rows: Tensor, columns: Tensor, *others: Tensor | None) -> Tensor:
        return values(product(rows, columns), *others)

    with torch.enable_grad():
        # Each input apart: one may be made of another, or be the same tensor, and must not get the other's gradient.
        apart = [x if x is None else x.view_as(x) for x in inputs]
    _, found = _derived(whole, apart, given, torch.is_grad_enabled())
    return [g if need else None for g, need in zip(found, needs, strict=True)]
