"""Functions of the products of rows and columns, a block of rows at a time: memory grows with N, not with N^2.

The backward pass makes each block once more, by the same function, and lets PyTorch derive it. So there is one
formula for few rows and for many, and every input has its gradient: rows, columns, and whatever the function reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor

from nucleate.losses.autograd import applied
from nucleate.losses.kernels.dispatch import plain_tensor
from nucleate.losses.validation import batched

FEWEST = 1 << 20  # products, below which they are all held without harm
_BLOCK = 1 << 18  # products in a block, 1 MiB in float32
_ROWS = 64  # in a block at least: fewer make the sums over rows slow

Values = Callable[..., Tensor]
Optional = Sequence[Tensor | None]
Index = slice | tuple[Tensor, ...]


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T in the type that sums are held in, also inside a region of automatic mixed precision."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.transpose(-1, -2)


def over_products(rows: Tensor, columns: Tensor, values: Values, each: Optional = (), shared: Optional = ()) -> Tensor:
    """values(rows columns^T, *each, *shared), one result a row, without ever holding more than a block of products.

    Args:
        rows: (..., D), of any strides.
        columns: (M, D).
        values: gives (..., more) of scores (..., M); no row may depend on another.
        each: what it reads of each row, (..., more) as well.
        shared: what it reads of all.
    """
    if not suits(rows, columns, (*each, *shared)):
        return values(product(rows, columns), *each, *shared)
    return applied(_InBlocks, values, len(each), rows, columns, *each, *shared)


def suits(rows: Tensor, columns: Tensor, others: Optional = ()) -> bool:
    """Whether there are so many products that they should not be held, and the tensors such that it can be avoided."""
    tensors = [rows, columns, *(x for x in others if x is not None)]
    return (
        math.prod(rows.shape[:-1]) * len(columns) >= FEWEST
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
    def forward(ctx: Any, values: Values, count: int, rows: Tensor, columns: Tensor, *others: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, columns, *others)
        ctx.values, ctx.count = values, count
        positions = rows.shape[:-1]
        found = [
            values(product(rows[part], columns), *_taken(others, count, part))
            for part in parts(positions, len(columns), rows.device)
        ]
        return torch.cat(found).reshape(*positions, *found[0].shape[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, *others = ctx.saved_tensors
        needs, given = ctx.needs_input_grad[2:], gradients[0]
        if torch.is_grad_enabled() or batched(given):  # batched gradients cannot be written into memory
            return None, None, *_through_all(ctx.values, [rows, columns, *others], needs, given)
        inputs = [rows, columns, *others]
        made = [torch.zeros_like(x) if need else None for x, need in zip(inputs, needs, strict=True)]
        by_rows, by_columns, *by_others = made
        for part in parts(rows.shape[:-1], len(columns), rows.device):
            block = rows[part]
            scores = product(block, columns).requires_grad_(needs[0] or needs[1])
            taken = [
                None if x is None else x.detach().requires_grad_(need)
                for x, need in zip(_taken(others, ctx.count, part), needs[2:], strict=True)
            ]
            slope, *slopes = _slopes(ctx.values, [scores, *taken], given[part])
            del scores, taken
            if by_rows is not None and slope is not None:
                by_rows[part] = product(slope, columns.T)
            if by_columns is not None and slope is not None:
                by_columns.addmm_(slope.T, block)
            for k, (into, g) in enumerate(zip(by_others, slopes, strict=True)):
                if into is not None and g is not None:
                    if k < ctx.count:
                        into[part] = g
                    else:
                        into += g
        return None, None, *made


def _taken(others: Optional, count: int, part: Index) -> list[Tensor | None]:
    """The part of the first `count`, and the whole of what all rows share."""
    return [x if x is None or k >= count else x[part] for k, x in enumerate(others)]


def _slopes(values: Values, inputs: Optional, given: Tensor, again: bool = False) -> list[Tensor | None]:
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    with torch.enable_grad():
        found = values(*inputs)
    slopes = iter(torch.autograd.grad(found, wanted, given, create_graph=again, allow_unused=True))
    return [next(slopes) if x is not None and x.requires_grad else None for x in inputs]


def _through_all(values: Values, inputs: Optional, needs: Sequence[bool], given: Tensor) -> list[Tensor | None]:
    """The gradients by all products at once, themselves differentiable."""

    def whole(rows: Tensor, columns: Tensor, *others: Tensor | None) -> Tensor:
        return values(product(rows, columns), *others)

    found = _slopes(whole, inputs, given, torch.is_grad_enabled())
    return [g if need else None for g, need in zip(found, needs, strict=True)]
