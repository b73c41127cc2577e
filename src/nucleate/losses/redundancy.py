"""Losses without negatives: the two views agree, and the features of the batch do not repeat one another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.distributed import gather
from nucleate.losses.embeddings import product, rows
from nucleate.losses.options import NotNegative, Reduction
from nucleate.losses.reduction import reduce
from nucleate.losses.registry import loss
from nucleate.losses.validation import require_between

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["barlow_twins", "vicreg"]

# Added to a variance, so that a feature that is constant over the batch has a slope and can be divided by its spread.
# Both are what the papers' code adds: Barlow twins standardises by nn.BatchNorm1d, VICReg takes sqrt(var + 1e-4).
_FLOOR_OF_BARLOW_TWINS = 1e-5
_FLOOR_OF_VICREG = 1e-4


@loss("contrastive", "sum (1 - C_ii)^2 + l sum C_ij^2", "0..inf", "no negatives; wide embeddings")
def barlow_twins(
    first: Tensor,
    second: Tensor,
    *,
    off_diagonal: NotNegative = 0.005,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """sum_i (1 - C_ii)^2 + l sum_{i != j} C_ij^2, C the correlation of features between two views; range 0..inf.

    `first` and `second` have shape (N, D); l is `off_diagonal`; `mask` (N,) selects rows. The loss belongs to the
    batch (of all ranks of `group`) as a whole: its weight is N, its sum N times the loss. 0 without two rows.

    Args:
        off_diagonal: l, the weight of the correlations between different features; at least 0.
        reduction: "mean", "sum" for N times the loss, or "pair"; a single row has no value.

    >>> import torch
    >>> x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(barlow_twins(x, x).item(), 4), round(barlow_twins(x, -x).item(), 4)
    (0.0, 7.9999)

    Source: Zbontar et al., Barlow twins: self-supervised learning via redundancy reduction (2021).
    """
    name = "barlow_twins"
    require_between(name, "off_diagonal", off_diagonal, 0.0, math.inf)
    a, b, read = _whole_batch(name, first, second, mask, reduction, check, group)
    n = a.shape[0]
    if n < 2:
        return _of_batch(name, (a + b).sum() * 0.0, 0, reduction, read, group)
    a, b = _standardised(a), _standardised(b)
    correlation = product(a.T, b.T) / n
    own = torch.eye(correlation.shape[0], dtype=torch.bool, device=a.device)
    loss = (1 - correlation.diagonal()).square().sum()
    loss = loss + off_diagonal * correlation.masked_fill(own, 0.0).square().sum()
    return _of_batch(name, loss, n, reduction, read, group)


@loss(
    "contrastive",
    "invariance + variance + covariance",
    "0..inf",
    "no negatives; each cause of collapse by name",
    module="VICReg",
)
def vicreg(
    first: Tensor,
    second: Tensor,
    *,
    invariance: NotNegative = 25.0,
    variance: NotNegative = 25.0,
    covariance: NotNegative = 1.0,
    deviation: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """Views agree, every feature varies, features are not correlated; range 0..inf.

    `invariance` times the mean of (a - b)^2, plus `variance` times the mean of max(0, `deviation` - std) over the
    features of each view, halved, plus `covariance` times the squared off-diagonal covariances of each view over D.
    std is sqrt(var + 1e-4), var over N - 1, as in the paper's code. The batch is treated as in `barlow_twins`.

    Args:
        invariance: the weight of the distance between views; at least 0.
        variance: the weight of the spread; at least 0.
        covariance: the weight of the covariances; at least 0.
        deviation: the standard deviation that every feature should reach.
        reduction: "mean", "sum" for N times the loss, or "pair"; a single row has no value.

    >>> import torch
    >>> x = torch.tensor([[3.0, 3.0], [3.0, -3.0], [-3.0, 3.0], [-3.0, -3.0]])
    >>> vicreg(x, x).item(), round(vicreg(0 * x, 0 * x).item(), 3)  # no spread at all costs 25 (1 - sqrt(1e-4))
    (0.0, 24.75)

    Source: Bardes et al., VICReg: variance-invariance-covariance regularization (2022).
    """
    name = "vicreg"
    for said, value in (("invariance", invariance), ("variance", variance), ("covariance", covariance)):
        require_between(name, said, value, 0.0, math.inf)
    a, b, read = _whole_batch(name, first, second, mask, reduction, check, group)
    n, features = a.shape
    if n < 2:
        return _of_batch(name, (a + b).sum() * 0.0, 0, reduction, read, group)
    loss = invariance * (a - b).square().mean()
    for x in (a, b):
        x = x - x.mean(0)
        spread = (x.square().sum(0) / (n - 1) + _FLOOR_OF_VICREG).sqrt()
        shared = product(x.T, x.T) / (n - 1)
        own = torch.eye(features, dtype=torch.bool, device=x.device)
        loss = loss + variance * F.relu(deviation - spread).mean() / 2
        loss = loss + covariance * shared.masked_fill(own, 0.0).square().sum() / features
    return _of_batch(name, loss, n, reduction, read, group)


def _whole_batch(
    name: str,
    first: Tensor,
    second: Tensor,
    mask: Tensor | None,
    reduction: Reduction,
    check: bool | None,
    group: Group | None,
) -> tuple[Tensor, Tensor, bool]:
    """Both views of all selected rows; every rank computes the whole loss, so it holds its gradient in full."""
    if reduction == "none":
        raise LossInputError(f"{name}: belongs to the batch as a whole and has no value for each row; use 'mean'")
    (a, b), read = rows(name, {"first": first, "second": second}, "dot", mask, None, check)
    return gather(a, group, replicated=True), gather(b, group, replicated=True), read


def _of_batch(name: str, loss: Tensor, n: int, reduction: Reduction, read: bool, group: Group | None) -> Tensor:
    values, weights = (loss * n).reshape(1), loss.detach().new_full((1,), n)
    return reduce(name, values, weights, reduction=reduction, check=read, group=group, whole=True)


def _standardised(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    return x / (x.square().mean(0) + _FLOOR_OF_BARLOW_TWINS).sqrt()
