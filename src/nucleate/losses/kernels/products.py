"""Softmax over the products of two sets of rows on the matrix unit: what `product_kernels` wants, made from tensors.

For rows q_i and k_j let s_ij = q_i . k_j. With the largest s_ij of each row and sum_j exp(s_ij - top_i) at hand, the
derivative of sum_i w_i (log sum_j exp s_ij - s_i,own(i)) by q_i is sum_j (p_ij - [j = own(i)] w_i) k_j, and that by k_j
is the same with the two sets exchanged. So two functions do for every loss of this kind, both ways; a third one takes
both derivatives from the same p_ij, where there is memory for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.kernels.dispatch import kernels
from nucleate.losses.kernels.threads import over_blocks

_TILE = 32
_COLUMNS = 4096  # packed at a time, 8 MiB at a depth of 256
_AT_ONCE = 1 << 24  # numbers in the slopes of rows of all stripes, 64 MiB
_LARGEST = 128.0  # of |s|: an error of 2^-17 in it leaves the gradient's relative error below 1e-3
_LN_2 = math.log(2)
_NOTHING = np.empty(0, np.float32)

Parts = tuple[NDArray[np.int16], NDArray[np.int16]]


def softmax_total(
    rows: Tensor, columns: Tensor, own: Tensor, weights: Tensor | None, scale: float, wanted: bool,
    both: bool = False, factor: float = 1.0,
) -> tuple[Tensor, list[Tensor]] | None:  # fmt: skip
    """sum_i w_i (log sum_j exp s_ij - s_i,own(i)) in float64, and `scale` times its derivatives.

    Both sets are first multiplied by `factor`, without a copy that lasts, and the derivatives are by what results. With
    `both`, the mean of that and of the same with rows and columns exchanged, where own is 0, 1, 2, ... None where
    the unit is not at hand, its kernels are not ready, or the products are so large that it is not exact enough.
    """
    module = _kernels(rows, columns, factor)
    if module is None:
        return None
    q, k = _scaled(rows, factor), _scaled(columns, factor)
    n, m = len(rows), len(columns)
    share = rows.new_ones(n) if weights is None else weights.to(rows.dtype)
    by_row, at_own = _sums(module, q, k, m, own)
    values = by_row.log() - at_own
    there = (by_row, share / 2 if both else share)
    back = None
    if both:
        by_column, _ = _sums(module, k, q, n, own)
        values = (values + by_column.log() - at_own) / 2
        back = (by_column, share / 2)
    value = (values * share).sum()
    if not wanted:
        return value, []
    pairs = (own, share)
    if back is None and module.STRIPES * q.numel() <= _AT_ONCE:
        by_rows, by_columns = _both_slopes(module, q, k, m, pairs, there, scale)
    else:
        by_rows = _slopes(module, q, k, m, pairs, False, there, back, scale)
        by_columns = _slopes(module, k, q, n, pairs, True, back, there, scale)
    return value, [g[: len(x), : x.shape[1]].contiguous() for g, x in ((by_rows, rows), (by_columns, columns))]


def _kernels(rows: Tensor, columns: Tensor, factor: float) -> ModuleType | None:
    """The kernels, where this processor has the unit and these products are exact enough on it."""
    if rows.device.type != "cpu" or not at_hand():
        return None
    bound = torch.linalg.vector_norm(rows, dim=1).amax() * torch.linalg.vector_norm(columns, dim=1).amax()
    return kernels("product_kernels") if float(bound) * factor**2 <= _LARGEST else None


def at_hand() -> bool:
    """Whether the kernels are ready and this processor has the unit."""
    module = kernels("product_kernels")
    return module is not None and bool(module.AT_HAND)


@final
@dataclass(frozen=True, slots=True)
class Sums:
    """Of each row the largest product `top`, in units of log 2, and `total` = sum_j 2^(s_ij - top_i)."""

    top: Tensor
    total: Tensor

    def log(self) -> Tensor:
        """log sum_j exp s_ij."""
        return (self.top.double() * _LN_2).add_(self.total.double().log())


def _scaled(x: Tensor, factor: float) -> Tensor:
    """Rows whose products are in units of log 2, when both sets are scaled so; padded to whole tiles of 32 x 32."""
    n, depth = x.shape
    padded = x.new_zeros(_up(n), _up(depth))
    torch.mul(x, factor / math.sqrt(_LN_2), out=padded[:n, :depth])
    return padded


def _sums(module: ModuleType, rows: Tensor, columns: Tensor, count: int, own: Tensor) -> tuple[Sums, Tensor]:
    """The sums of each row over the first `count` columns, and its product with column own_i; all `_scaled`."""
    n, depth = rows.shape
    high, low = _parts(rows)
    top, total, at_own = (np.full(n, v, np.float32) for v in (-np.inf, 0, 0))
    partner = _padded(own, n)
    for first, width, (c_high, c_low), _ in _packed(columns, count, values=False):
        _over(n // _TILE, module.row_sums, high, low, depth, c_high, c_low, first, width, partner, top, total, at_own)
    kept = slice(0, len(own))
    found = Sums(torch.from_numpy(top[kept]), torch.from_numpy(total[kept]))
    return found, torch.from_numpy(at_own[kept]).double() * _LN_2


def _slopes(
    module: ModuleType,
    rows: Tensor,
    columns: Tensor,
    count: int,
    pairs: tuple[Tensor, Tensor],
    turned: bool,
    of_rows: tuple[Sums, Tensor] | None,
    of_columns: tuple[Sums, Tensor] | None,
    scale: float,
) -> Tensor:
    """`scale` times sum_j p_ij column_j of each row, over the first `count` columns.

    p_ij = w_i 2^(s_ij - top_i) / total_i with (sums, w) `of_rows`, plus the same of columns, and with `pairs` (own,
    less) less_i less where own_i = j, or less_j where own_j = i if `turned`.
    """
    n, depth = rows.shape
    high, low = _parts(rows)
    top, share = _shares(of_rows, n)
    tops, shares = _shares(of_columns, len(columns))
    size = len(columns) if turned else n
    partner, minus = _padded(pairs[0], size), _padded(pairs[1], size, 0)
    out = torch.zeros_like(rows)
    into = out.view(-1).numpy()
    for first, width, (c_high, c_low), (v_high, v_low) in _packed(columns, count, values=True):
        part = slice(first, first + width) if len(shares) else slice(0, 0)
        taken = slice(first, first + width) if turned else slice(0, n)
        _over(
            n // _TILE, module.row_slopes, high, low, depth, c_high, c_low, v_high, v_low, first, width, top, share,
            tops[part], shares[part], partner[taken], minus[taken], turned, into,
        )  # fmt: skip
    return out.mul_(scale * math.sqrt(_LN_2))


def _both_slopes(
    module: ModuleType,
    rows: Tensor,
    columns: Tensor,
    count: int,
    pairs: tuple[Tensor, Tensor],
    of_rows: tuple[Sums, Tensor],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """`_slopes` of rows, and with rows and columns exchanged those of columns, from one look at each p_ij."""
    n, depth = rows.shape
    high, low = _parts(rows)
    turned = _turned(high, depth, module.TALL), _turned(low, depth, module.TALL)
    top, share = _shares(of_rows, n)
    own, less = _padded(pairs[0], n), _padded(pairs[1], n, 0)
    by_rows, by_columns = rows.new_zeros(module.STRIPES, n, depth), torch.empty_like(columns)
    part = columns.new_empty(-(-min(_COLUMNS, len(columns)) // module.CHUNK), depth, module.CHUNK)
    for first, width, across, along in _packed(columns, count, values=True):
        part.zero_()
        _over(
            module.STRIPES, module.both_slopes, high, low, depth, *turned, *across, *along, first, width, top, share,
            own, less, by_rows.view(-1).numpy(), part.view(-1).numpy(),
        )  # fmt: skip
        into = by_columns[first : first + _COLUMNS]
        into.copy_(part.transpose(1, 2).reshape(-1, depth)[: len(into)])
    scale *= math.sqrt(_LN_2)
    return by_rows.sum(0).mul_(scale), by_columns.mul_(scale)


def _turned(rows: NDArray[np.int16], depth: int, tall: int) -> NDArray[np.int16]:
    """Rows `tall` at a time, each time (depth, tall); the last filled up with 0."""
    padded = np.pad(rows.reshape(-1, depth), ((0, -(len(rows) // depth) % tall), (0, 0)))
    return np.ascontiguousarray(padded.reshape(-1, tall, depth).transpose(0, 2, 1)).reshape(-1)


def _over(count: int, run: Callable[..., None], *arguments: object) -> None:
    over_blocks(count, 1, lambda begin, end, _: run(*arguments, begin, end))


def _up(n: int) -> int:
    return -(-n // _TILE) * _TILE


def _padded(x: Tensor, size: int, fill: int = -1) -> NDArray[Any]:
    return np.pad(x.numpy(), (0, size - len(x)), constant_values=fill)


def _shares(of: tuple[Sums, Tensor] | None, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if of is None:
        return _NOTHING, _NOTHING
    found, weight = of
    return _padded(found.top, size, 0), _padded(weight / found.total, size, 0)


def _parts(x: Tensor) -> Parts:
    """x as the sum of two bfloat16, a part at a time: what lies between takes twice as much as the result."""
    high, low = torch.empty_like(x, dtype=torch.bfloat16), torch.empty_like(x, dtype=torch.bfloat16)
    spare = torch.empty_like(x[:_COLUMNS])
    for of_x, of_high, of_low in zip(*(y.split(_COLUMNS) for y in (x, high, low)), strict=True):
        _split(of_x, of_high, of_low, spare[: len(of_x)])
    return _flat(high), _flat(low)


def _split(x: Tensor, high: Tensor, low: Tensor, spare: Tensor) -> None:
    """Into memory that is at hand: touching new memory takes twice as long as the work itself."""
    high.copy_(x)
    spare.copy_(high)
    torch.sub(x, spare, out=spare)
    low.copy_(spare)


def _flat(x: Tensor) -> NDArray[np.int16]:
    found: NDArray[np.int16] = x.contiguous().view(-1).view(torch.int16).numpy()
    return found


def _packed(columns: Tensor, count: int, values: bool) -> Iterator[tuple[int, int, Parts, Parts]]:
    """Columns a part at a time, in the two orders the unit wants its right factor in.

    For s two numbers of a column side by side, 16 columns in a row; for values two columns side by side, all numbers
    in a row. Each part takes the memory of the one before.
    """
    depth = columns.shape[1]
    most = columns[:_COLUMNS]
    spare = torch.empty_like(most)
    pieces, across, along = torch.empty(3, 2, *most.shape, dtype=torch.bfloat16)
    for first in range(0, count, _COLUMNS):
        part = columns[first : first + _COLUMNS]
        n = len(part)
        _split(part, pieces[0, :n], pieces[1, :n], spare[:n])
        for piece, by_column, by_pair in zip(pieces[:, :n], across[:, :n], along[:, :n], strict=True):
            in_words = piece.view(torch.int32).view(-1, 16, depth // 2)
            by_column.view(torch.int32).view(-1, depth // 2, 16).copy_(in_words.transpose(1, 2))
            if values:
                by_pair.view(-1, depth, 2).copy_(piece.view(-1, 2, depth).transpose(1, 2))
        right, left = ((_flat(x[0, :n]), _flat(x[1, :n])) for x in (across, along))
        yield first, min(_COLUMNS, count - first), right, left
