"""The last layer and its cross entropy in blocks of rows: the logits of one block at a time, then their gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from nucleate.losses.kernels.dispatch import plain_tensor
from nucleate.losses.kernels.products import softmax_total
from nucleate.losses.kernels.total import Twin, total

_FEWEST = 1 << 20  # logits, below which the plain version holds them all without harm
_BUDGET = 1 << 22  # logits in a block, 16 MiB: enough rows to keep the products fast


def suits(rows: Tensor, projection: Tensor, bias: Tensor | None) -> bool:
    tensors = [x for x in (rows, projection, bias) if x is not None]
    large = rows.numel() // max(1, projection.shape[1]) * len(projection) >= _FEWEST
    return large and all(x.dtype == torch.float32 and plain_tensor(x) for x in tensors)


def linear_total(
    rows: Tensor,
    projection: Tensor,
    bias: Tensor | None,
    label: Tensor,
    weight: Tensor | None,
    scale: float,
    twin: Twin,
) -> Tensor:
    """sum over rows of v (log sum_c exp x_c - x_label), x the logits of a row; `weight` holds v, None for 1.

    `scale` is what the backward pass will bring; twin(rows, projection, bias) is the plain version.
    """
    job = _Job(rows.detach(), projection.detach(), None if bias is None else bias.detach(), label, weight)
    inputs = [rows, projection, *([] if bias is None else [bias])]
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)

    def run(factor: float, gradient: bool) -> tuple[Tensor, list[Tensor | None]]:
        with torch.no_grad():
            return job.blocks(factor, gradient)

    value, made = run(scale, wanted)
    return total(value, made, scale, lambda factor: run(factor, True)[1], twin, inputs) if wanted else value


@final
@dataclass(frozen=True, slots=True)
class _Job:
    rows: Tensor
    projection: Tensor
    bias: Tensor | None
    label: Tensor
    weight: Tensor | None

    def blocks(self, scale: float, wanted: bool) -> tuple[Tensor, list[Tensor | None]]:
        """The total, and `scale` times its derivatives by rows, projection and bias."""
        found = self.on_unit(scale, wanted)
        if found is not None:
            return found
        rows, projection, bias, label, weight = self.rows, self.projection, self.bias, self.label, self.weight
        value = rows.new_zeros((), dtype=torch.float64)
        by_rows, by_projection = torch.empty_like(rows), torch.zeros_like(projection)
        by_bias = None if bias is None else torch.zeros_like(bias)
        n, classes = len(rows), len(projection)
        size = max(16, min(n, _BUDGET // classes))
        block = rows.new_empty(size, classes)
        for first in range(0, n, size):
            part = slice(first, min(first + size, n))
            x = torch.mm(rows[part], projection.T, out=block[: part.stop - first])
            if bias is not None:
                x += bias
            own = label[part].unsqueeze(1)
            at_label = x.gather(1, own)
            top = x.amax(1, keepdim=True)
            e = x.sub_(top).exp_()
            sums = e.sum(1, keepdim=True)
            values = sums.log().add_(top).sub_(at_label)
            share = torch.ones_like(sums) if weight is None else weight[part].unsqueeze(1)
            value += (values * share).sum(dtype=torch.float64)
            if not wanted:
                continue
            e.mul_(scale * share / sums)
            e.scatter_add_(1, own, -scale * share)
            torch.mm(e, projection, out=by_rows[part])
            by_projection.addmm_(e.T, rows[part])
            if by_bias is not None:
                by_bias += e.sum(0)
        return value.to(rows.dtype), [by_rows, by_projection, *([] if by_bias is None else [by_bias])]

    def on_unit(self, scale: float, wanted: bool) -> tuple[Tensor, list[Tensor | None]] | None:
        """The same by the matrix unit, or None where it cannot be had; a bias is one more feature, which is 1."""
        rows, projection, bias = self.rows, self.projection, self.bias
        features = rows.shape[1]
        if bias is not None:
            rows = torch.nn.functional.pad(rows, (0, 1), value=1.0)
            projection = torch.cat((projection, bias.unsqueeze(1)), 1)
        found = softmax_total(rows, projection, self.label, self.weight, scale, wanted)
        if found is None:
            return None
        value, made = found
        if not wanted or bias is None:
            return value.to(rows.dtype), list(made)
        by_rows, by_projection = made
        return value.to(rows.dtype), [
            by_rows[:, :features].contiguous(), by_projection[:, :features].contiguous(), by_projection[:, features]
        ]  # fmt: skip
