"""Distances between two distributions p and q, named by keyword so that their order cannot be mistaken."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.distribution import (
    Distribution,
    Logits,
    distribution,
    safe_log,
    safe_power,
    safe_sqrt,
    warn_of_simplex,
)
from nucleate.losses.kernels import kernels
from nucleate.losses.kernels.memory import common_layout
from nucleate.losses.measures import checked, chosen, nats_of
from nucleate.losses.options import Reduction
from nucleate.losses.reduction import finish, held, reduce, select, times
from nucleate.losses.registry import loss
from nucleate.losses.targets import class_axis, position_weights, positions_of, selection, weigh
from nucleate.losses.validation import (
    checking,
    require_floating,
    require_mask,
    require_range,
    require_shape,
    shape,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = [
    "generalized_kl",
    "hellinger",
    "jensen_shannon",
    "kl_divergence",
    "renyi",
    "total_variation",
    "wasserstein_1d",
]

Between = Callable[[Distribution, Distribution, int], Tensor]


def _divergence(
    name: str,
    between: Between,
    p: Tensor | Distribution,
    q: Tensor | Distribution,
    class_dim: int,
    mask: Tensor | None,
    weight: Tensor | None,
    reduction: Reduction,
    check: bool | None,
    group: Group | None,
    fast: tuple[bool, float] | None = None,
) -> Tensor:
    """What every divergence of distributions has in common; positions that are not selected are uniform in both."""
    one, dim, read = checked(name, p, "p", class_dim, mask, weight, check)
    other = distribution(name, "q", q)
    require_shape(name, "q", other.tensor, shape(one.tensor), "p")
    if read:
        warn_of_simplex(name, "q", q, dim)
    if fast is not None and reduction != "none" and type(one) is type(other) is Logits:
        pair = _fast(name, fast, between, one.tensor, other.tensor, dim, mask, weight, reduction, group)
        if pair is not None:
            return finish(name, *pair, reduction=reduction, check=read, group=group)
    mask = selection(mask, weight, [one.tensor, other.tensor], dim)
    one, other = chosen(name, one, "p", dim, mask, read), chosen(name, other, "q", dim, mask, read)
    values, weights = weigh(between(one, other, dim), None, mask, weight, "weight")
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)


def _fast(
    name: str,
    kind: tuple[bool, float],
    between: Between,
    x: Tensor,
    y: Tensor,
    dim: int,
    mask: Tensor | None,
    weight: Tensor | None,
    reduction: Reduction,
    group: Group | None,
) -> tuple[Tensor, Tensor] | None:
    """(total, weight) by the kernel for the `kind` (symmetric, nats to a unit), or None."""
    symmetric, unit = kind
    layout = common_layout([x, y], dim, [mask, weight], tiles=5)
    module = None if layout is None else kernels("divergence")
    if module is None:
        return None
    like = torch.zeros((), dtype=torch.float32, device=x.device)
    _, weights = weigh(like.expand(positions_of(x, dim)), None, mask, weight, "weight")
    amount = like + x.numel() // x.shape[dim] if weights is None else weights.sum()
    alone = reduction == "mean" and group is None and float(amount) > 0

    def twin(a: Tensor, b: Tensor) -> Tensor:
        kept = selection(mask, weight, [a, b], dim)
        one, other = (chosen(name, Logits(z), "", dim, kept, False) for z in (a, b))
        return weigh(between(one, other, dim) * unit, None, kept, weight, "weight")[0].sum()

    scale = float(1 / amount / unit) if alone else 1 / unit
    return module.divergence_total(layout, x, y, dim, mask, weight, symmetric, scale, twin) / unit, amount


def _kl(p: Distribution, q: Distribution, dim: int) -> Tensor:
    # The difference comes first: near p = q it is small, and the two products would cancel.
    return times(p.probabilities(dim), _difference(p.log_probabilities(dim), q.log_probabilities(dim))).sum(dim)


def _difference(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log p - log q, 0 where both are -inf."""
    neither = (log_p == -torch.inf) & (log_q == -torch.inf)
    return log_p.masked_fill(neither, 0.0) - log_q.masked_fill(neither, 0.0)


def _js(p: Distribution, q: Distribution, dim: int) -> Tensor:
    log_p, log_q = p.log_probabilities(dim), q.log_probabilities(dim)
    # A class that neither gives a share to is taken out: log(0 + 0) has no slope.
    neither = (log_p == -torch.inf) & (log_q == -torch.inf)
    log_m = torch.logaddexp(log_p.masked_fill(neither, 0.0), log_q.masked_fill(neither, 0.0)) - math.log(2)
    of_p = times(p.probabilities(dim), log_p - log_m)
    of_q = times(q.probabilities(dim), log_q - log_m)
    return (of_p + of_q).sum(dim) / 2


@loss(
    "divergence",
    "sum p (log p - log q)",
    "0..inf",
    "keep a prediction q near a reference p: distillation, on-line updates, drift",
    module="KLDivergence",
)
def kl_divergence(
    *,
    p: Tensor | Distribution,
    q: Tensor | Distribution,
    class_dim: int = 1,
    base: float = math.e,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """KL(p||q) = sum_c p_c (log p_c - log q_c): the extra nats of expressing p with q's code; range 0..inf.

    `p` is what is true (or was before), `q` what approximates it; both hold classes along `class_dim` as logits, or
    as said with Probabilities or LogProbabilities. `mask` (boolean) selects and `weight` weighs positions. The mean
    is over positions, never over classes. inf where q is 0 and p is not.

    The cross entropy of a prediction is the label's entropy plus the divergence from it:

    >>> import torch
    >>> from nucleate import losses
    >>> label = losses.Probabilities(torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64))
    >>> said = losses.Probabilities(torch.tensor([[0.228, 0.619, 0.153]], dtype=torch.float64))
    >>> round(losses.measures.entropy(label).item() + kl_divergence(p=label, q=said).item(), 5)
    0.47965

    Source: S. Kullback and R. A. Leibler, On information and sufficiency (1951).
    """
    unit = nats_of("kl_divergence", base)

    def between(one: Distribution, other: Distribution, dim: int) -> Tensor:
        return _kl(one, other, dim) / unit

    return _divergence("kl_divergence", between, p, q, class_dim, mask, weight, reduction, check, group, (False, unit))


@loss("divergence", "(KL(p||m) + KL(q||m)) / 2", "0..ln 2", "two predictions of equal standing")
def jensen_shannon(
    *,
    p: Tensor | Distribution,
    q: Tensor | Distribution,
    class_dim: int = 1,
    base: float = math.e,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """JS(p, q) = (KL(p||m) + KL(q||m)) / 2 with m = (p + q) / 2; symmetric, range 0..ln 2.

    >>> import torch
    >>> jensen_shannon(p=torch.tensor([[99.0, -99.0]]), q=torch.tensor([[-99.0, 99.0]]), base=2).item()
    1.0

    Source: J. Lin, Divergence measures based on the Shannon entropy (1991).
    """
    unit = nats_of("jensen_shannon", base)

    def between(one: Distribution, other: Distribution, dim: int) -> Tensor:
        return _js(one, other, dim) / unit

    return _divergence("jensen_shannon", between, p, q, class_dim, mask, weight, reduction, check, group, (True, unit))


@loss("divergence", "sum |p - q| / 2", "0..1", "the largest change of any probability")
def total_variation(
    *,
    p: Tensor | Distribution,
    q: Tensor | Distribution,
    class_dim: int = 1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """TV(p, q) = sum_c |p_c - q_c| / 2: the largest difference in the probability of any event; range 0..1.

    Pinsker: 2 TV^2 <= KL.

    >>> import torch
    >>> from nucleate import losses
    >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.75, 0.25]])
    >>> total_variation(p=losses.Probabilities(p), q=losses.Probabilities(q)).item()
    0.25

    Source: Levin, Peres and Wilmer, Markov chains and mixing times, chapter 4 (2009).
    """

    def between(one: Distribution, other: Distribution, dim: int) -> Tensor:
        return (one.probabilities(dim) - other.probabilities(dim)).abs().sum(dim) / 2

    return _divergence("total_variation", between, p, q, class_dim, mask, weight, reduction, check, group)


@loss("divergence", "sqrt(sum (sqrt p - sqrt q)^2 / 2)", "0..1", "a bounded distance that is a metric")
def hellinger(
    *,
    p: Tensor | Distribution,
    q: Tensor | Distribution,
    squared: bool = False,
    class_dim: int = 1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """sqrt(sum_c (sqrt p_c - sqrt q_c)^2 / 2), or its square; symmetric, range 0..1.

    Where p equals q the gradient is 0.

    Args:
        squared: give the square of the distance.

    >>> import torch
    >>> hellinger(p=torch.tensor([[999.0, 0.0]]), q=torch.tensor([[0.0, 999.0]])).item()
    1.0

    Source: E. Hellinger, Neue Begründung der Theorie quadratischer Formen (1909).
    """

    def between(one: Distribution, other: Distribution, dim: int) -> Tensor:
        roots = (one.log_probabilities(dim) / 2).exp() - (other.log_probabilities(dim) / 2).exp()
        square = roots.square().sum(dim) / 2
        return square if squared else safe_sqrt(square)

    return _divergence("hellinger", between, p, q, class_dim, mask, weight, reduction, check, group)


@loss("divergence", "log(sum p^a q^(1-a)) / (a - 1)", "0..inf", "between forgiving (small a) and strict (large a)")
def renyi(
    *,
    p: Tensor | Distribution,
    q: Tensor | Distribution,
    alpha: float = 0.5,
    class_dim: int = 1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """log(sum_c p_c^alpha q_c^(1 - alpha)) / (alpha - 1), alpha > 0; grows with alpha, KL at 1; range 0..inf.

    Args:
        alpha: the order, above 0; below 1 forgives a q that misses part of p.

    >>> import torch
    >>> from nucleate import losses
    >>> p, q = losses.Probabilities(torch.tensor([[0.5, 0.5]])), losses.Probabilities(torch.tensor([[0.8, 0.2]]))
    >>> [round(renyi(p=p, q=q, alpha=a).item(), 4) for a in (0.5, 1, 2)]
    [0.1054, 0.2231, 0.4463]

    Source: A. Rényi, On measures of entropy and information (1961).
    """
    if not 0 < alpha < math.inf:
        raise LossInputError(f"renyi: alpha must be positive and finite, got {alpha:g}")

    def between(one: Distribution, other: Distribution, dim: int) -> Tensor:
        if alpha == 1:
            return _kl(one, other, dim)
        log_p, log_q = one.log_probabilities(dim), other.log_probabilities(dim)
        dropped = (log_p == -torch.inf) | ((log_q == -torch.inf) if alpha < 1 else torch.zeros_like(log_q).bool())
        terms = alpha * log_p.masked_fill(dropped, 0.0) + (1 - alpha) * log_q.masked_fill(dropped, 0.0)
        return torch.logsumexp(terms.masked_fill(dropped, -torch.inf), dim) / (alpha - 1)

    return _divergence("renyi", between, p, q, class_dim, mask, weight, reduction, check, group)


@loss(
    "divergence",
    "sum p log(p/q) - p + q",
    "0..inf",
    "amounts that need not sum to 1: counts, photons",
    module="GeneralizedKL",
)
def generalized_kl(
    *,
    p: Tensor,
    q: Tensor,
    class_dim: int = 1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """sum_c p_c log(p_c / q_c) - p_c + q_c for amounts p, q >= 0 that need not sum to 1; range 0..inf.

    The tensors hold the amounts themselves (counts, intensities), not logits.

    >>> import torch
    >>> generalized_kl(p=torch.tensor([[2.0, 0.0]]), q=torch.tensor([[2.0, 3.0]])).item()
    3.0

    Source: I. Csiszár, Why least squares and maximum entropy? (1991).
    """
    name = "generalized_kl"
    require_floating(name, "q", q)
    dim, _, positions = class_axis(name, p, class_dim, fewest=1, name="p")
    require_shape(name, "q", q, shape(p), "p")
    if mask is not None:
        require_mask(name, mask, positions, "the positions of p")
    read = checking(check, p)
    each = position_weights(name, weight, positions, read)
    mask = selection(mask, each, [p, q], dim)
    rows = None if mask is None else mask.unsqueeze(dim)
    one, other = select(held(p), rows, 1.0), select(held(q), rows, 1.0)
    if read:
        for said, amounts in (("p", one), ("q", other)):
            require_range(name, said, amounts, 0.0, math.inf, "amounts are not logits: take their exponential")
    values = _generalized_kl(one, other).sum(dim)
    values, weights = weigh(values, None, mask, each, "weight")
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)


def _generalized_kl(p: Tensor, q: Tensor) -> Tensor:
    """p log(p / q) - p + q; near p = q, where these terms cancel, p (r - log(1 + r)) with r = (q - p) / p."""
    near = ((q - p).abs() <= p / 2) & (p > 0)
    a = p.masked_fill(~near, 1.0)
    r = (q.masked_fill(~near, 1.0) - a) / a
    apart = times(p, safe_log(p)) - times(p, safe_log(q)) - p + q
    return torch.where(near, a * (r - torch.log1p(r)), apart)


@loss("divergence", "sum |P_k - Q_k|", "0..C - 1", "classes in an order: near misses cost less", module="Wasserstein1D")
def wasserstein_1d(
    *,
    p: Tensor | Distribution,
    q: Tensor | Distribution,
    power: float = 1.0,
    class_dim: int = 1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """sum_k |P_k - Q_k|^power over cumulative sums P, Q: the work of moving p to q, in classes; range 0..C - 1.

    For classes that stand in an order, one apart. power=1 is the earth mover's distance; power=2 its smooth
    relative.

    Args:
        power: what each step of the cumulative sums is raised to; at least 1.

    >>> import torch
    >>> from nucleate import losses
    >>> p, q = losses.Probabilities(torch.eye(4)[:1]), losses.Probabilities(torch.eye(4)[3:])
    >>> wasserstein_1d(p=p, q=q).item()
    3.0

    Source: Hou et al., Squared earth mover's distance-based loss for training deep neural networks (2016).
    """
    if not 1 <= power < math.inf:
        raise LossInputError(f"wasserstein_1d: power must be finite and at least 1, got {power:g}")

    def between(one: Distribution, other: Distribution, dim: int) -> Tensor:
        moved = (one.probabilities(dim) - other.probabilities(dim)).cumsum(dim)
        # The last cumulative sum is 1 in both: only rounding is left there.
        moved = moved.narrow(dim, 0, moved.shape[dim] - 1)
        return safe_power(moved.abs(), power).sum(dim)

    return _divergence("wasserstein_1d", between, p, q, class_dim, mask, weight, reduction, check, group)
