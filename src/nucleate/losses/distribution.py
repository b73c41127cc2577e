"""A distribution over classes, said in the form it is held in, so that logarithms are not taken for probabilities."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.losses.reduction import held
from nucleate.losses.validation import require_floating, require_simplex, sum_tolerance, warn

__all__ = ["Distribution", "LogProbabilities", "Logits", "Probabilities"]

_warned: set[str] = set()


@dataclass(frozen=True, slots=True, eq=False)
class Distribution(ABC):
    """Probabilities along a class axis of `tensor`, in one of the three forms below; a bare tensor means `Logits`."""

    tensor: Tensor

    @abstractmethod
    def log_probabilities(self, dim: int) -> Tensor:
        """log p along `dim`, float32 or wider; -inf where p is 0."""

    @abstractmethod
    def probabilities(self, dim: int) -> Tensor:
        """p along `dim`, float32 or wider."""

    @abstractmethod
    def selected(self, rows: Tensor | None, dim: int) -> Distribution:
        """The same where `rows` is True, and uniform elsewhere."""

    @abstractmethod
    def require_valid(self, loss: str, name: str, dim: int) -> None:
        """Read the values and refuse what is not a distribution."""

    def _uniform_outside(self, rows: Tensor | None, value: float) -> Tensor:
        return self.tensor if rows is None else torch.where(rows, self.tensor, value)


@final
class Logits(Distribution):
    """Raw scores x with p = softmax(x).

    >>> import torch
    >>> Logits(torch.tensor([[0.0, 0.0]])).probabilities(1).tolist()
    [[0.5, 0.5]]
    """

    __slots__ = ()

    def log_probabilities(self, dim: int) -> Tensor:
        return F.log_softmax(held(self.tensor), dim)

    def probabilities(self, dim: int) -> Tensor:
        return F.softmax(held(self.tensor), dim)

    def selected(self, rows: Tensor | None, dim: int) -> Logits:
        return Logits(self._uniform_outside(rows, 0.0))

    def require_valid(self, loss: str, name: str, dim: int) -> None:
        """Any number is a logit; NaN is found in the result."""


@final
class Probabilities(Distribution):
    """Probabilities p themselves: at least 0, with sum 1.

    >>> import torch
    >>> Probabilities(torch.tensor([[0.0, 1.0]])).log_probabilities(1).tolist()
    [[-inf, 0.0]]
    """

    __slots__ = ()

    def log_probabilities(self, dim: int) -> Tensor:
        return safe_log(held(self.tensor))

    def probabilities(self, dim: int) -> Tensor:
        return held(self.tensor)

    def selected(self, rows: Tensor | None, dim: int) -> Probabilities:
        return Probabilities(self._uniform_outside(rows, 1.0 / max(self.tensor.shape[dim], 1)))

    def require_valid(self, loss: str, name: str, dim: int) -> None:
        require_simplex(loss, name, self.tensor, dim)


@final
class LogProbabilities(Distribution):
    """Logarithms of probabilities, in nats: at most 0, with sum(exp) 1.

    >>> import torch
    >>> LogProbabilities(torch.tensor([[0.5, 0.5]]).log()).probabilities(1).tolist()
    [[0.5, 0.5]]
    """

    __slots__ = ()

    def log_probabilities(self, dim: int) -> Tensor:
        return held(self.tensor)

    def probabilities(self, dim: int) -> Tensor:
        return held(self.tensor).exp()

    def selected(self, rows: Tensor | None, dim: int) -> LogProbabilities:
        uniform = -math.log(max(int(self.tensor.shape[dim]), 1))
        return LogProbabilities(self._uniform_outside(rows, uniform))

    def require_valid(self, loss: str, name: str, dim: int) -> None:
        require_simplex(loss, f"exp({name})", self.tensor.detach().exp(), dim)


def distribution(loss: str, name: str, x: Tensor | Distribution) -> Distribution:
    """`x` as a distribution: a bare tensor holds logits."""
    said = x if isinstance(x, Distribution) else Logits(x)
    require_floating(loss, name, said.tensor)
    return said


def warn_of_simplex(loss: str, name: str, x: Tensor | Distribution, class_dim: int) -> None:
    """Warn, once a process and loss, of a bare tensor whose rows all are probabilities: it is taken as logits.

    Of ordinary logits the first few positions tell at once that they are none.
    """
    if loss in _warned or not isinstance(x, Tensor) or not x.numel() or x.shape[class_dim] < 2:
        return
    dim = class_dim % x.ndim
    first = x.detach()[tuple(slice(None) if axis == dim else slice(4) for axis in range(x.ndim))]
    if _is_simplex(first, dim) and _is_simplex(x.detach(), dim):
        _warned.add(loss)
        warn(
            f"{loss}: {name} holds probabilities along dimension {class_dim}, none negative and each row with sum 1, "
            f"but a bare tensor is taken as logits; say Probabilities({name}), or Logits({name}) if that is what it is"
        )


def _is_simplex(x: Tensor, dim: int) -> bool:
    if not float(x.min()) >= 0:
        return False
    return bool(((x.sum(dim, dtype=torch.float64) - 1).abs() <= sum_tolerance(x.dtype)).all())


def safe_log(x: Tensor) -> Tensor:
    """log x, -inf at 0 with a zero gradient there: the slope 1 / 0 would turn a zero share into NaN."""
    zero = x == 0
    return x.masked_fill(zero, 1.0).log().masked_fill(zero, -torch.inf)


def safe_sqrt(x: Tensor) -> Tensor:
    """The square root of x >= 0, with a zero gradient at 0, where its slope is infinite."""
    zero = x <= 0
    return x.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def safe_power(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent for x >= 0, with a zero gradient at 0, where its slope is infinite for an exponent below 1."""
    if exponent == 1:
        return x
    zero = x <= 0
    return (x.masked_fill(zero, 1.0) ** exponent).masked_fill(zero, 0.0)
