"""InfoNCE in blocks of rows: memory grows with N, not with N^2.

On a processor with a matrix unit `products` does it; what follows is for those without, and for accelerators.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nucleate.losses.kernels.dispatch import plain_tensor
from nucleate.losses.kernels.products import softmax_total
from nucleate.losses.kernels.total import Twin, total

_FEWEST = 1 << 20  # similarities, below which the plain version holds them all without harm
_SPAN = 80.0  # between the largest and the least similarity: exp(-80) is still a normal float32
_BUDGET = 1 << 20  # similarities in a block, 4 MiB: they stay in the processor's last cache


def suits(query: Tensor, keys: Tensor) -> bool:
    large = len(query) * len(keys) >= _FEWEST
    return large and all(x.dtype == torch.float32 and plain_tensor(x) for x in (query, keys))


def row_total(
    query: Tensor,
    keys: Tensor,
    temperature: float | Tensor,
    begin: int,
    weights: Tensor | None,
    scale: float,
    twin: Twin,
) -> Tensor:
    """sum_i w_i (log sum_j exp(s_ij / T) - s_i,begin+i / T); `scale` is what the backward pass will bring.

    twin(query, keys, temperature) is the plain version.
    """
    heat = torch.as_tensor(temperature, dtype=query.dtype, device=query.device)
    inputs = [query, keys, heat]
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    with torch.no_grad():
        value, made = _rows(query, keys, float(heat), begin, weights, scale, wanted)
    if not wanted:
        return value

    def again(factor: float) -> list[Tensor | None]:
        return _rows(query, keys, float(heat), begin, weights, factor, True)[1]

    return total(value, made, scale, again, twin, inputs)


def both_total(
    first: Tensor, second: Tensor, temperature: float | Tensor, weights: Tensor | None, scale: float, twin: Twin
) -> Tensor:
    """The mean of `row_total` from `first` to `second` and back, each similarity computed once for both."""
    heat = torch.as_tensor(temperature, dtype=first.dtype, device=first.device)
    inputs = [first, second, heat]
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    with torch.no_grad():
        value, made = _both(first, second, float(heat), weights, scale, wanted)
    if not wanted:
        return value

    def again(factor: float) -> list[Tensor | None]:
        return _both(first, second, float(heat), weights, factor, True)[1]

    return total(value, made, scale, again, twin, inputs)


def _both(
    first: Tensor, second: Tensor, heat: float, weights: Tensor | None, scale: float, wanted: bool
) -> tuple[Tensor, list[Tensor | None]]:
    a, b = first.detach(), second.detach()
    found = _on_unit(a, b, heat, 0, weights, scale, wanted, both=True)
    if found is not None:
        return found
    # No row or column of exp(s - bound) vanishes in float32 while the similarities span less than _SPAN.
    bound = float(torch.linalg.vector_norm(a, dim=1).amax() * torch.linalg.vector_norm(b, dim=1).amax()) / heat
    if 2 * bound > _SPAN:
        there, forth = _rows(first, second, heat, 0, weights, scale / 2, wanted)
        back, rest = _rows(second, first, heat, 0, weights, scale / 2, wanted)
        turned = [rest[1], rest[0], rest[2]] if wanted else []
        pairs = zip(forth, turned, strict=True)
        return (there + back) / 2, [x + y for x, y in pairs if x is not None and y is not None]
    n = len(a)
    share = a.new_ones(n) if weights is None else weights.to(a.dtype)
    rows = max(16, min(n, _BUDGET // n))
    block = a.new_empty(rows, n)
    by_row, by_column, positive = a.new_empty(n), a.new_zeros(n), a.new_empty(n)
    for first_row in range(0, n, rows):
        part = slice(first_row, min(first_row + rows, n))
        s = _scores(a[part], b, heat, block)
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
        e = _scores(a[part], b, heat, block).sub_(bound).exp_()
        e.mul_(torch.add(u[part].unsqueeze(1), v, out=factors[: len(e)]))
        e.diagonal(part.start).sub_(scale * share[part])
        torch.addmm(by_first[part], e, b, beta=0, alpha=1 / heat, out=by_first[part])
        by_second.addmm_(e.T, a[part], alpha=1 / heat)
    return value, [by_first, by_second, _by_heat(by_first, a, heat)]


def _rows(
    query: Tensor, keys: Tensor, heat: float, begin: int, weights: Tensor | None, scale: float, wanted: bool
) -> tuple[Tensor, list[Tensor | None]]:
    """The total, and `scale` times its derivatives by query, keys and temperature."""
    q, k = query.detach(), keys.detach()
    found = _on_unit(q, k, heat, begin, weights, scale, wanted)
    if found is not None:
        return found
    n, m = len(q), len(k)
    value = q.new_zeros((), dtype=torch.float64)
    by_query, by_keys = (torch.empty_like(q), torch.zeros_like(k)) if wanted else (None, None)
    rows = max(16, min(n, _BUDGET // m))
    block = q.new_empty(rows, m)
    for first in range(0, n, rows):
        part = slice(first, min(first + rows, n))
        own = slice(begin + part.start, begin + part.stop)
        s = _scores(q[part], k, heat, block)
        positive = s.diagonal(own.start).clone()
        top = s.amax(1, keepdim=True)
        e = s.sub_(top).exp_()
        sums = e.sum(1, keepdim=True)
        values = sums.log().add_(top).squeeze(1) - positive
        share = None if weights is None else weights[part].to(q.dtype)
        value += (values if share is None else values * share).sum(dtype=torch.float64)
        if by_query is None or by_keys is None:
            continue
        factor = torch.full_like(sums, scale) if share is None else scale * share.unsqueeze(1)
        e.mul_(factor / sums)
        # Before the products: p - 1 at a pair that is nearly certain is small, and exact here.
        e.diagonal(own.start).sub_(factor.squeeze(1))
        torch.addmm(by_query[part], e, k, beta=0, alpha=1 / heat, out=by_query[part])
        by_keys.addmm_(e.T, q[part], alpha=1 / heat)
    if by_query is None:
        return value.to(q.dtype), []
    return value.to(q.dtype), [by_query, by_keys, _by_heat(by_query, q, heat)]


def _on_unit(
    query: Tensor, keys: Tensor, heat: float, begin: int, weights: Tensor | None, scale: float, wanted: bool,
    both: bool = False,
) -> tuple[Tensor, list[Tensor | None]] | None:  # fmt: skip
    """The same by the matrix unit, or None where it cannot be had."""
    cool = 1 / math.sqrt(heat)
    own = torch.arange(begin, begin + len(query))
    found = softmax_total(query, keys, own, weights, scale * cool, wanted, both, cool)
    if found is None:
        return None
    value, made = found
    return value.to(query.dtype), [*made, _by_heat(made[0], query, heat)] if wanted else []


def _scores(rows: Tensor, keys: Tensor, heat: float, block: Tensor) -> Tensor:
    """rows keys^T / heat into `block`, whatever it held."""
    into = block[: len(rows)]
    return torch.addmm(into, rows, keys.T, beta=0, alpha=1 / heat, out=into)


def _by_heat(by_rows: Tensor, rows: Tensor, heat: float) -> Tensor:
    """The derivative by the temperature T: what is a function of rows / T changes by -rows . dL/drows / T."""
    return -torch.dot(by_rows.flatten(), rows.flatten()) / heat
