"""Distance-based losses: a predicted number against the true one, by how far they are apart.

Prediction and target have one shape and are never broadcast. `mask` and `weight` have that shape too, one value for
each element; with channel_dim=1, say, they have one for each position, which holds for all of its channels, as a mask
(N, H, W) does for a map of offsets (N, 2, H, W). The mean is always that over elements, by weight.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_type_hints

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.autograd import Elementwise, applied
from nucleate.losses.options import NotNegative, Positive, Reduction, Share, accepts, described
from nucleate.losses.reduction import held, reduce, select, times
from nucleate.losses.registry import loss
from nucleate.losses.targets import positions_of, selection
from nucleate.losses.validation import (
    checking,
    require_floating,
    require_mask,
    require_range,
    require_shape,
    require_weights,
    shape,
    transforming,
    wants_gradient,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["gaussian_nll", "huber", "l1", "log_cosh", "mse", "poisson_nll", "quantile", "smooth_l1"]


@dataclass(frozen=True, slots=True)
class Elements:
    """Which elements count and how much; both None, or broadcast to the shape of the prediction."""

    selected: Tensor | None
    weight: Tensor | None
    read: bool

    def take(self, x: Tensor, like: Tensor, fill: float = 0.0) -> Tensor:
        """`x` in the type that the loss of `like` is held in; `fill` where not selected."""
        return select(x.to(held(like).dtype), self.selected, fill)

    def reduce(self, name: str, values: Tensor, reduction: Reduction, group: Group | None) -> Tensor:
        """The last step: `values` are finite where not selected."""
        weights = self.weight
        if weights is not None:
            weights = weights.to(values.dtype)
            values = times(weights, values) if wants_gradient(weights) else values * weights
        elif self.selected is not None:
            weights = self.selected.to(values.dtype)
        weights = None if weights is None else weights.expand_as(values)
        return reduce(name, values, weights, reduction=reduction, check=self.read, group=group)


def _elements(
    name: str,
    tensors: dict[str, Tensor],
    channel_dim: int | None,
    mask: Tensor | None,
    weight: Tensor | None,
    check: bool | None,
) -> Elements:
    """Hold the shapes of `tensors`, the mask and the weight against the first tensor; a weight of 0 selects nothing."""
    prediction = tensors["prediction"]
    require_floating(name, "prediction", prediction)
    for said, x in tensors.items():
        require_shape(name, said, x, shape(prediction), "the prediction")
    read = checking(check, prediction)
    positions, of, dim = shape(prediction), "the prediction", None
    if channel_dim is not None:
        if not -prediction.ndim <= channel_dim < prediction.ndim:
            raise LossInputError(
                f"{name}: channel_dim={channel_dim} is not a dimension of the prediction of shape {positions}"
            )
        dim = channel_dim % prediction.ndim
        positions, of = positions_of(prediction, dim), "the prediction without its channels"
    if mask is not None:
        require_mask(name, mask, positions, of)
    if weight is not None:
        require_weights(name, "weight", weight, positions, of, read)
        if not (read and _all_above(weight, 0.0)):
            mask = selection(mask, weight, list(tensors.values()), dim)
        weight = select(weight, mask)
    if dim is not None:
        mask, weight = (None if x is None else x.unsqueeze(dim) for x in (mask, weight))
    return Elements(mask, weight, read)


def _all_above(x: Tensor, limit: float) -> bool:
    return x.numel() > 0 and float(x.detach().min()) > limit


class DistanceLoss(Protocol):
    """How a loss of a prediction and a target is called; `options` are its own, such as the `delta` of `huber`."""

    __name__: str

    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        channel_dim: int | None = None,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        reduction: Reduction = "mean",
        check: bool | None = None,
        group: Group | None = None,
        **options: float,
    ) -> Tensor: ...


def _of_distance(function: Callable[..., Tensor]) -> DistanceLoss:
    """The loss whose value at one element is `function` of the prediction and the target, 0 where they are equal."""
    name = function.__name__
    own = list(inspect.signature(function).parameters.values())[2:]

    def of_pair(
        prediction: Tensor,
        target: Tensor,
        *,
        channel_dim: int | None = None,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        reduction: Reduction = "mean",
        check: bool | None = None,
        group: Group | None = None,
        **options: float,
    ) -> Tensor:
        for option, value in options.items():
            if option in kinds and not accepts(kinds[option], value):
                raise LossInputError(f"{name}: {option} must be {described(kinds[option])}, got {value!r}")
        elements = _elements(name, {"prediction": prediction, "target": target}, channel_dim, mask, weight, check)
        x, t = held(prediction), target.to(held(prediction).dtype)
        if elements.selected is not None:
            # One selection of the difference in place of two: what is left out is at its target.
            x = select(x - t, elements.selected)
            t = x.new_zeros(()).expand_as(x)
        return elements.reduce(name, function(x, t, **options), reduction, group)

    kinds = get_type_hints(function, include_extras=True)
    common = [p for p in inspect.signature(of_pair).parameters.values() if p.kind is not p.VAR_KEYWORD]
    of_pair.__signature__ = inspect.Signature([*common[:2], *own, *common[2:]])  # type: ignore[attr-defined]
    of_pair.__annotations__ = {p.name: p.annotation for p in (*common, *own)} | {"return": Tensor}
    of_pair.__name__, of_pair.__qualname__, of_pair.__doc__ = name, name, function.__doc__
    return of_pair


@loss("regression", "|x - t|", "0..inf", "the median; outliers count linearly", module="L1")
@_of_distance
def l1(x: Tensor, t: Tensor) -> Tensor:
    """|x - t|, the absolute error of the prediction x and the target t; range 0..inf; slope 0 where they are equal.

    Smallest at the median of the targets. `torch.nn.functional.l1_loss` broadcasts shapes that differ; here they are
    refused.

    >>> import torch
    >>> l1(torch.tensor([1.0, 4.0]), torch.tensor([3.0, 4.0])).item()
    1.0

    Source: R. J. Boscovich (1757), P. S. Laplace, Traité de mécanique céleste (1799).
    """
    return F.l1_loss(x, t, reduction="none")


@loss("regression", "(x - t)^2", "0..inf", "the mean; outliers count by their square", module="MSE")
@_of_distance
def mse(x: Tensor, t: Tensor) -> Tensor:
    """(x - t)^2, the squared error of the prediction x and the target t; range 0..inf.

    Smallest at the mean of the targets. Where `torch.nn.functional.mse_loss` broadcasts shapes that differ, (N, 1)
    against (N,) to N x N numbers, they are refused here. Of half precision the squares are held in float32.

    >>> import torch
    >>> mse(torch.tensor([1.0, 4.0]), torch.tensor([3.0, 4.0])).item()
    2.0

    Source: C. F. Gauss, Theoria motus (1809).
    """
    return F.mse_loss(x, t, reduction="none")


@loss("regression", "r^2 / 2 up to d, then d (|r| - d / 2)", "0..inf", "squares for what is near, linear for outliers")
@_of_distance
def huber(x: Tensor, t: Tensor, *, delta: Positive = 1.0) -> Tensor:
    """(x - t)^2 / 2 up to a distance of `delta`, delta (|x - t| - delta / 2) beyond it; range 0..inf.

    It is delta times `smooth_l1` with beta = delta, and that of `torch.nn.functional.huber_loss`.

    Args:
        delta: where it turns from a square into a line, in units of the target; above 0.

    >>> import torch
    >>> huber(torch.tensor([0.5, 4.0]), torch.tensor([0.0, 0.0]), reduction="none").tolist()
    [0.125, 3.5]

    Source: P. J. Huber, Robust estimation of a location parameter (1964).
    """
    return F.huber_loss(x, t, reduction="none", delta=delta)


@loss(
    "regression",
    "r^2 / (2 b) up to b, then |r| - b / 2",
    "0..inf",
    "offsets and radii: l1 without its kink",
    module="SmoothL1",
)
@_of_distance
def smooth_l1(x: Tensor, t: Tensor, *, beta: NotNegative = 1.0) -> Tensor:
    """(x - t)^2 / (2 beta) up to a distance of `beta`, |x - t| - beta / 2 beyond it; range 0..inf.

    The slope is at most 1 whatever `beta` is, which tells it from `huber`. It is that of
    `torch.nn.functional.smooth_l1_loss`.

    Args:
        beta: where it turns from a square into a line, in units of the target; at least 0, where it is `l1`.

    >>> import torch
    >>> offset, truth = torch.zeros(1, 2, 1, 2), torch.tensor([[[[0.5, 9.0]], [[2.0, 9.0]]]])  # (N, 2, H, W)
    >>> nucleus = torch.tensor([[[True, False]]])  # (N, H, W)
    >>> smooth_l1(offset, truth, channel_dim=1, mask=nucleus).item()  # (0.125 + 1.5) / 2
    0.8125

    Source: R. Girshick, Fast R-CNN (2015).
    """
    return F.smooth_l1_loss(x, t, reduction="none", beta=beta)


@loss("regression", "log cosh(x - t)", "0..inf", "smooth everywhere, linear for outliers")
@_of_distance
def log_cosh(x: Tensor, t: Tensor) -> Tensor:
    """log cosh(x - t): r^2 / 2 near 0, |r| - log 2 far away; range 0..inf; its slope is tanh(x - t).

    Exact at any distance: neither does cosh overflow nor is log 2 taken from itself near 0.

    >>> import torch
    >>> r = torch.tensor([1e-4, 1e4], dtype=torch.float64)
    >>> [round(v, 10) for v in log_cosh(r, torch.zeros(2), reduction="none").tolist()]
    [5e-09, 9999.3068528194]

    Source: P. J. Green, Bayesian reconstructions from emission tomography data using a modified EM algorithm (1990).
    """
    r = x - t
    return _log_cosh(r) if transforming() else applied(Elementwise, r, _log_cosh, torch.tanh)


def _log_cosh(r: Tensor) -> Tensor:
    """By cosh^2 = 1 + sinh^2, which is exact near 0; beyond 20, where sinh may overflow, it grows as |r| does."""
    return torch.log1p(torch.sinh(r.clamp(-20, 20)).square()) / 2 + F.softshrink(r, 20).abs()


@loss("regression", "q (t - x) above x, (1 - q) (x - t) below", "0..inf", "a quantile of the targets, an interval")
@_of_distance
def quantile(x: Tensor, t: Tensor, *, q: Share = 0.5) -> Tensor:
    """The pinball loss, q (t - x) for targets above the prediction and (1 - q) (x - t) below; range 0..inf.

    Smallest at the q-quantile of the targets; q = 1/2 is half of `l1`. Several quantiles are several losses, as in
    `sum(quantile(x[:, k], target, q=q) for k, q in enumerate((0.1, 0.5, 0.9)))`. The slope is 0 where both are equal.

    Args:
        q: the share of the targets that shall lie below the prediction, a number in 0..1.

    >>> import torch
    >>> quantile(torch.tensor([0.0, 0.0]), torch.tensor([1.0, -1.0]), q=0.75, reduction="none").tolist()
    [0.75, 0.25]

    Source: Koenker and Bassett, Regression quantiles (1978).
    """
    above, below = x.new_full((), q), x.new_full((), 1 - q)  # numbers as they are would be held in float32
    return torch.where(t > x, above, below) * F.l1_loss(x, t, reduction="none")


@loss("regression", "exp(x) - t x + log t!", "any sign", "counts", module="PoissonNLL")
def poisson_nll(
    prediction: Tensor,
    target: Tensor,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: Positive = 1e-8,
    channel_dim: int | None = None,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The negative log likelihood of counts t, r - t log r of the rate r, plus log t! where `full`; any sign.

    As `torch.nn.functional.poisson_nll_loss`, but `full` adds log t! itself (`torch.lgamma`), where PyTorch adds
    Stirling's approximation to it for t > 1: 0.652 for a count of 2, where log 2! is 0.693.

    Args:
        prediction: the logarithm of the rate, any shape; or the rate, at least 0, with log_input=False.
        target: counts, at least 0, of any type, the shape of the prediction.
        log_input: whether `prediction` is the logarithm.
        full: add log t!, which no prediction changes.
        eps: what is added to a rate before its logarithm is taken, with log_input=False.

    >>> import torch
    >>> round(poisson_nll(torch.tensor([0.0]), torch.tensor([2]), full=True).item(), 4)  # 1 - 0 + log 2
    1.6931

    Source: P. McCullagh and J. A. Nelder, Generalized linear models (1989).
    """
    name = "poisson_nll"
    if not accepts(Positive, eps):
        raise LossInputError(f"{name}: eps must be {described(Positive)}, got {eps!r}")
    elements = _elements(name, {"prediction": prediction, "target": target}, channel_dim, mask, weight, check)
    x, t = elements.take(prediction, prediction), elements.take(target, prediction)
    if elements.read:
        require_range(name, "target", t, 0.0, math.inf, "it holds counts")
        if not log_input:
            require_range(name, "prediction", x, 0.0, math.inf, "logarithms of rates are log_input=True")
    values = torch.exp(x) - t * x if log_input else x - t * torch.log(x + eps)
    if full:
        values = values + torch.lgamma(t + 1)
    return elements.reduce(name, select(values, elements.selected), reduction, group)


@loss("regression", "(log v + (x - t)^2 / v) / 2", "any sign", "a number and how sure it is", module="GaussianNLL")
def gaussian_nll(
    prediction: Tensor,
    target: Tensor,
    variance: Tensor,
    *,
    log_variance: bool = False,
    full: bool = False,
    eps: Positive = 1e-6,
    channel_dim: int | None = None,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The negative log likelihood of a normal distribution, (log v + (x - t)^2 / v) / 2; any sign.

    A network that gives the logarithm of the variance needs no floor: with log_variance=True the loss is
    (s + (x - t)^2 exp(-s)) / 2. Otherwise as `torch.nn.functional.gaussian_nll_loss`, but for two things: the variance
    has the shape of the prediction and is never broadcast, and its slope below `eps`, where the loss does not change
    with it, is 0, where PyTorch gives the slope at `eps`.

    Args:
        prediction: the mean x, any shape.
        target: the true number t, the same shape.
        variance: v, at least 0, the same shape; or its logarithm s, with log_variance=True.
        log_variance: whether `variance` holds the logarithm.
        full: add log(2 pi) / 2, which no prediction changes.
        eps: the least variance that counts, with log_variance=False.

    >>> import torch
    >>> x, t = torch.tensor([1.0]), torch.tensor([3.0])
    >>> gaussian_nll(x, t, torch.tensor([1.0])).item()
    2.0
    >>> gaussian_nll(x, t, torch.tensor([0.0]), log_variance=True).item()
    2.0

    Source: Nix and Weigend, Estimating the mean and variance of the target probability distribution (1994);
    logarithms: Kendall and Gal, What uncertainties do we need in Bayesian deep learning for computer vision? (2017).
    """
    name = "gaussian_nll"
    if not accepts(Positive, eps):
        raise LossInputError(f"{name}: eps must be {described(Positive)}, got {eps!r}")
    tensors = {"prediction": prediction, "target": target, "variance": variance}
    elements = _elements(name, tensors, channel_dim, mask, weight, check)
    require_floating(name, "variance", variance)
    r = select(held(prediction) - target.to(held(prediction).dtype), elements.selected)
    v = elements.take(variance, prediction, 0.0 if log_variance else 1.0)
    if log_variance:
        values = (v + (r * torch.exp(-v / 2)).square()) / 2  # the square of exp(-v / 2) may be infinite
    else:
        if elements.read:
            require_range(name, "variance", v, 0.0, math.inf, "logarithms of variances are log_variance=True")
        v = v if elements.read and _all_above(v, eps) else v.clamp(min=eps)
        values = (torch.log(v) + r.square() / v) / 2
    if full:
        values = values + math.log(2 * math.pi) / 2
    return elements.reduce(name, select(values, elements.selected), reduction, group)
