"""Softmax over the products of two sets of rows, a block of rows at a time: memory grows with N, not with N^2.

For rows a_i and columns b_j the score is s_ij = a_i . b_j / T + bias_j, and the loss of a row with its own column is
log sum_j exp s_ij - s_i,own(i): InfoNCE, and the cross entropy of a linear layer. On a processor with a matrix unit
`products` does it; what follows is for those without, and for accelerators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.losses.autograd import Twin, total
from nucleate.losses.kernels.dispatch import plain_tensor
from nucleate.losses.kernels.products import softmax_total
from nucleate.losses.validation import transforming

_FEWEST = 1 << 20  # scores, below which the plain version holds them all without harm
_SPAN = 80.0  # between the largest and the least similarity: exp(-80) is still a normal float32
_SIMILARITIES = 1 << 20  # in a block, 4 MiB: they stay in the processor's last cache
_LOGITS = 1 << 22  # in a block, 16 MiB: enough rows to keep the products fast

Found = tuple[Tensor, list[Tensor | None]]


def suits(rows: Tensor, columns: Tensor, bias: Tensor | None = None, constants: Sequence[Tensor | None] = ()) -> bool:
    """Whether the scores are so many that they should not be held, and the tensors such that it can be avoided.

    Constants are targets, masks and weights, of which no gradient is wanted.
    """
    given = [x for x in constants if x is not None]
    if any(x.requires_grad for x in given) or not all(map(plain_tensor, given)):
        return False
    tensors = [x for x in (rows, columns, bias) if x is not None]
    if transforming():  # which would hold on to the size
        return False
    large = rows.numel() // max(1, columns.shape[1]) * len(columns) >= _FEWEST
    return large and all(x.dtype == torch.float32 and plain_tensor(x) for x in tensors)


def row_total(
    query: Tensor, keys: Tensor, temperature: float | Tensor, begin: int, weights: Tensor | None, scale: float,
    twin: Twin,
) -> Tensor:  # fmt: skip
    """sum_i w_i (log sum_j exp(s_ij / T) - s_i,begin+i / T); `scale` is what the backward pass will bring.

    twin(query, keys, temperature) is the plain version.
    """
    heat = torch.as_tensor(temperature, dtype=query.dtype, device=query.device)
    inputs = query.detach(), keys.detach(), float(heat.detach())
    own = torch.arange(begin, begin + len(query), device=query.device)
    return _differentiable(
        lambda factor, wanted: _one_way(*inputs, own, weights, factor, wanted),
        scale,
        twin,
        [query, keys, heat],
        [weights],
    )


def both_total(
    first: Tensor, second: Tensor, temperature: float | Tensor, weights: Tensor | None, scale: float, twin: Twin
) -> Tensor:
    """The mean of `row_total` from `first` to `second` and back, each similarity computed once for both."""
    heat = torch.as_tensor(temperature, dtype=first.dtype, device=first.device)
    inputs = first.detach(), second.detach(), float(heat.detach())
    return _differentiable(
        lambda factor, wanted: _both_ways(*inputs, weights, factor, wanted),
        scale,
        twin,
        [first, second, heat],
        [weights],
    )


def linear_total(
    rows: Tensor, projection: Tensor, bias: Tensor | None, label: Tensor, weight: Tensor | None, scale: float,
    twin: Twin,
) -> Tensor:  # fmt: skip
    """sum over rows of v (log sum_c exp x_c - x_label), x the logits of a row; `weight` holds v, None for 1.

    `scale` is what the backward pass will bring; twin(rows, projection, bias) is the plain version.
    """
    inputs = [rows, projection, *([] if bias is None else [bias])]
    a, b, *rest = (x.detach() for x in inputs)
    held = rest[0] if rest else None
    return _differentiable(
        lambda factor, wanted: _linear(a, b, held, label, weight, factor, wanted),
        scale,
        twin,
        inputs,
        [label, weight],
    )


def _differentiable(
    run: Callable[[float, bool], Found], scale: float, twin: Twin, inputs: list[Tensor], constants: list[Tensor | None]
) -> Tensor:
    """The value of run(scale, wanted), whose gradients come from the same pass."""
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    with torch.no_grad():
        value, made = run(scale, wanted)
    if not wanted:
        return value
    return total(value, made, scale, lambda factor: run(factor, True)[1], twin, inputs, constants)


def _linear(
    rows: Tensor, projection: Tensor, bias: Tensor | None, label: Tensor, weight: Tensor | None, scale: float,
    wanted: bool,
) -> Found:  # fmt: skip
    features = rows.shape[1]
    if bias is None:
        found = softmax_total(rows, projection, label, weight, scale, wanted)
    else:  # one more feature, which is 1
        longer = F.pad(rows, (0, 1), value=1.0), torch.cat((projection, bias.unsqueeze(1)), 1)
        found = softmax_total(*longer, label, weight, scale, wanted)
    if found is None:
        return _in_blocks(rows, projection, bias, label, weight, 1.0, scale, wanted, _LOGITS)
    value, made = found
    if not wanted or bias is None:
        return value.to(rows.dtype), list(made)
    of_rows, of_projection = (x[:, :features].contiguous() for x in made)
    return value.to(rows.dtype), [of_rows, of_projection, made[1][:, features]]


def _one_way(
    query: Tensor, keys: Tensor, heat: float, own: Tensor, weights: Tensor | None, scale: float, wanted: bool
) -> Found:
    """The total, and `scale` times its derivatives by query, keys and temperature."""
    found = _on_unit(query, keys, heat, own, weights, scale, wanted)
    if found is not None:
        return found
    value, made = _in_blocks(query, keys, None, own, weights, 1 / heat, scale, wanted, _SIMILARITIES)
    return value, [*made, _by_heat(made[0], query, heat)] if wanted else []


def _both_ways(a: Tensor, b: Tensor, heat: float, weights: Tensor | None, scale: float, wanted: bool) -> Found:
    n = len(a)
    own = torch.arange(n, device=a.device)
    found = _on_unit(a, b, heat, own, weights, scale, wanted, both=True)
    if found is not None:
        return found
    # No row or column of exp(s - bound) vanishes in float32 while the similarities span less than _SPAN.
    bound = float(torch.linalg.vector_norm(a, dim=1).amax() * torch.linalg.vector_norm(b, dim=1).amax()) / heat
    if 2 * bound > _SPAN:
        there, forth = _one_way(a, b, heat, own, weights, scale / 2, wanted)
        back, rest = _one_way(b, a, heat, own, weights, scale / 2, wanted)
        transposed = [rest[1], rest[0], rest[2]] if wanted else []
        pairs = zip(forth, transposed, strict=True)
        return (there + back) / 2, [x + y for x, y in pairs if x is not None and y is not None]
    share = a.new_ones(n) if weights is None else weights.to(a.dtype)
    rows = max(16, min(n, _SIMILARITIES // n))
    block = a.new_empty(rows, n)
    by_row, by_column, positive = a.new_empty(n), a.new_zeros(n), a.new_empty(n)
    for first_row in range(0, n, rows):
        part = slice(first_row, min(first_row + rows, n))
        s = _scores(a[part], b, 1 / heat, block)
        positive[part] = s.diagonal(part.start)
        e = s.sub_(bound).exp_()
        torch.sum(e, 1, out=by_row[part])
        by_column += e.sum(0)
    values = (by_row.log() + by_column.log()) / 2 + bound - positive
    value = (values * share).sum(dtype=torch.float64).to(a.dtype)
    if not wanted:
        return value, []
    by_first, by_second = torch.empty_like(a), torch.zeros_like(b)
    u, v = (scale / 2) * share / by_row, (scale / 2) * share / by_column
    factors = torch.empty_like(block)
    for first_row in range(0, n, rows):
        part = slice(first_row, min(first_row + rows, n))
        e = _scores(a[part], b, 1 / heat, block).sub_(bound).exp_()
        e.mul_(torch.add(u[part].unsqueeze(1), v, out=factors[: len(e)]))
        e.diagonal(part.start).sub_(scale * share[part])
        torch.addmm(by_first[part], e, b, beta=0, alpha=1 / heat, out=by_first[part])
        by_second.addmm_(e.T, a[part], alpha=1 / heat)
    return value, [by_first, by_second, _by_heat(by_first, a, heat)]


def _in_blocks(
    rows: Tensor, columns: Tensor, bias: Tensor | None, own: Tensor, weights: Tensor | None, factor: float,
    scale: float, wanted: bool, budget: int,
) -> Found:  # fmt: skip
    """The total, and `scale` times its derivatives by rows, columns and bias; s_ij = factor a_i . b_j + bias_j."""
    n, m = len(rows), len(columns)
    value = rows.new_zeros((), dtype=torch.float64)
    by_rows, by_columns = (torch.empty_like(rows), torch.zeros_like(columns)) if wanted else (rows, columns)
    by_bias = None if bias is None else torch.zeros_like(bias)
    size = max(16, min(n, budget // m))
    block = rows.new_empty(size, m)
    for first in range(0, n, size):
        part = slice(first, min(first + size, n))
        s = _scores(rows[part], columns, factor, block)
        if bias is not None:
            s += bias
        at_own = own[part].unsqueeze(1)
        positive = s.gather(1, at_own)
        top = s.amax(1, keepdim=True)
        e = s.sub_(top).exp_()
        sums = e.sum(1, keepdim=True)
        values = sums.log().add_(top).sub_(positive)
        share = torch.ones_like(sums) if weights is None else weights[part].to(rows.dtype).unsqueeze(1)
        value += (values * share).sum(dtype=torch.float64)
        if not wanted:
            continue
        factors = share * scale
        e.mul_(factors / sums)
        # Before the products: p - 1 at a pair that is nearly certain is small, and exact here.
        e.scatter_add_(1, at_own, -factors)
        torch.addmm(by_rows[part], e, columns, beta=0, alpha=factor, out=by_rows[part])
        by_columns.addmm_(e.T, rows[part], alpha=factor)
        if by_bias is not None:
            by_bias += e.sum(0)
    if not wanted:
        return value.to(rows.dtype), []
    return value.to(rows.dtype), [by_rows, by_columns, *([] if by_bias is None else [by_bias])]


def _on_unit(
    query: Tensor, keys: Tensor, heat: float, own: Tensor, weights: Tensor | None, scale: float, wanted: bool,
    both: bool = False,
) -> Found | None:  # fmt: skip
    """The same by the matrix unit, or None where it cannot be had."""
    cool = 1 / math.sqrt(heat)
    found = softmax_total(query, keys, own, weights, scale * cool, wanted, both, cool)
    if found is None:
        return None
    value, made = found
    return value.to(query.dtype), [*made, _by_heat(made[0], query, heat)] if wanted else []


def _scores(rows: Tensor, columns: Tensor, factor: float, block: Tensor) -> Tensor:
    """factor rows columns^T into `block`, whatever it held."""
    into = block[: len(rows)]
    return torch.addmm(into, rows, columns.T, beta=0, alpha=factor, out=into)


def _by_heat(by_rows: Tensor | None, rows: Tensor, heat: float) -> Tensor:
    """The derivative by the temperature T: what is a function of rows / T changes by -rows . dL/drows / T."""
    assert by_rows is not None
    return -torch.dot(by_rows.flatten(), rows.flatten()) / heat
