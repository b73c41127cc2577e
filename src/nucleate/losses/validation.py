"""The checks of a loss's arguments: shapes always, values where reading them is cheap."""

from __future__ import annotations

import math
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from numbers import Real
from types import TracebackType
from typing import final

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from nucleate.errors import LossInputError

__all__ = ["use_checks"]

_enabled: ContextVar[bool | None] = ContextVar("nucleate.losses.use_checks", default=None)


@final
class use_checks:
    """Turn the checks that read values (ranges, probabilities, NaN) on or off, for good or within a `with`.

    The setting holds in the thread that makes it, and in no other. None restores the default: on for tensors in main
    memory, off on an accelerator, where reading a value would wait for the device. `check=` of a single call goes
    before this setting. Shapes and types are always checked; values never inside torch.compile, torch.export and the
    transformations of torch.func, where there are none yet.

    >>> import torch
    >>> from nucleate import losses
    >>> with losses.use_checks(False):
    ...     losses.cross_entropy(torch.full((1, 2), torch.nan), torch.tensor([0])).isnan().item()
    True
    """

    def __init__(self, enabled: bool | None) -> None:
        self._before = _enabled.get()
        _enabled.set(enabled)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _enabled.set(self._before)


def transforming() -> bool:
    """Whether a transformation (vmap, grad, jvp, compile, export, trace, make_fx, ...) works on the tensors of a call,
    which then hold no values that may be read or handed to a kernel."""
    return (
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
        or _get_current_dispatch_mode() is not None
    )


def batched(gradient: Tensor) -> bool:
    """Whether a backward pass is given several gradients at once, as for a Hessian: there is no one value in it."""
    return transforming() or torch._C._functorch.is_legacy_batchedtensor(gradient)


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Holds automatic mixed precision off where `x` lies; on the meta device, which knows none, nothing."""
    kind = x.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def wants_gradient(x: Tensor) -> bool:
    """Whether a derivative by `x` is asked for, backward or forward."""
    if x.requires_grad and torch.is_grad_enabled():
        return True
    return not torch.compiler.is_compiling() and torch.autograd.forward_ad.unpack_dual(x).tangent is not None


def checking(check: bool | None, tensor: Tensor) -> bool:
    """Whether values may be read: the call's own `check`, else the setting, else whether `tensor` is on the CPU."""
    if not isinstance(tensor, Tensor) or transforming() or tensor.device.type == "meta":
        return False  # of what is no tensor `require_tensor` says so
    setting = check if check is not None else _enabled.get()
    return setting if setting is not None else tensor.device.type == "cpu"


def outdated(message: str) -> None:
    """Warn of a name or a meaning of version 0.1; nothing is said inside a transformation."""
    if not transforming():
        warn(message, FutureWarning)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first line that is not of this library."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("nucleate.losses", "torch.")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape as it is printed in messages."""
    return tuple(tensor.shape)


_MENDS = {
    "ndarray": "torch.from_numpy({0}) makes one",
    "Logits": "pass {0}.tensor",
    "Probabilities": "pass {0}.tensor.log() where raw scores are wanted, or use a loss of distributions: kl_divergence",
    "LogProbabilities": "pass {0}.tensor where raw scores are wanted, or use a loss of distributions: kl_divergence",
}


def require_tensor(loss: str, name: str, x: object) -> None:
    if not isinstance(x, Tensor):
        kind, size = type(x).__name__, getattr(getattr(x, "tensor", x), "shape", None)
        of = f" of shape {tuple(size)}" if isinstance(size, tuple) else ""
        mend = _MENDS.get(kind, "torch.tensor({0}) makes one").format(name)
        raise LossInputError(f"{loss}: {name} must be a tensor, got {kind}{of}; {mend}")
    if x.is_complex():
        mend = f"take its .real part or its .abs(), or both parts: torch.view_as_real({name})"
        raise LossInputError(f"{loss}: {name} must be real, got {x.dtype}; {mend}")


def require_floating(loss: str, name: str, tensor: Tensor) -> None:
    require_tensor(loss, name, tensor)
    if not tensor.is_floating_point():
        raise LossInputError(f"{loss}: {name} must be a floating-point tensor, got {tensor.dtype}; call .float() on it")


def require_integers(loss: str, name: str, tensor: Tensor, what: str) -> None:
    require_tensor(loss, name, tensor)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise LossInputError(f"{loss}: {name} must hold {what} of an integer type, got {tensor.dtype}; call .long()")


def require_shape(loss: str, name: str, tensor: Tensor, expected: tuple[int, ...], of: str) -> None:
    """Shapes are compared, never broadcast: a silent broadcast gives a wrong loss and no error."""
    require_tensor(loss, name, tensor)
    if shape(tensor) != expected:
        raise LossInputError(f"{loss}: {name} has shape {shape(tensor)} but must have shape {expected}, that of {of}")


def require_mask(loss: str, mask: Tensor, expected: tuple[int, ...], of: str) -> None:
    require_tensor(loss, "mask", mask)
    if mask.dtype != torch.bool:
        raise LossInputError(
            f"{loss}: mask must be boolean (True selects), got {mask.dtype}; compare it, as in mask > 0"
        )
    require_shape(loss, "mask", mask, expected, of)


def require_weights(loss: str, name: str, weights: Tensor, expected: tuple[int, ...], of: str, read: bool) -> None:
    require_floating(loss, name, weights)
    require_shape(loss, name, weights, expected, of)
    if read and weights.numel():
        lowest, highest = (float(v) for v in torch.aminmax(weights.detach()))
        if not (lowest >= 0.0 and highest < torch.inf):
            wrong = highest if lowest >= 0.0 else lowest
            raise LossInputError(f"{loss}: {name} must be finite and at least 0, but holds {wrong:g}")


def require_range(loss: str, name: str, values: Tensor, low: float, high: float, mend: str) -> None:
    """Refuse values outside [low, high]; NaN is outside."""
    if not values.numel():
        return
    lowest, highest = (float(v) for v in torch.aminmax(values.detach()))
    if not (low <= lowest and highest <= high):
        wrong = highest if low <= lowest else lowest
        raise LossInputError(f"{loss}: {name} must lie in {low:g}..{high:g}, but holds {wrong:g}; {mend}")


def number(loss: str, name: str, value: float) -> float:
    """`value`, which has to be a plain number."""
    if not isinstance(value, (int, float, Real, torch.SymInt, torch.SymFloat)):
        raise LossInputError(f"{loss}: {name} must be a number, got {type(value).__name__}; float({name}) makes one")
    return value


def require_between(loss: str, name: str, value: float, low: float, high: float) -> None:
    """The range of an option that is a plain number."""
    if not low <= number(loss, name, value) <= high:
        raise LossInputError(f"{loss}: {name} must lie in {low:g}..{high:g}, got {value:g}")


def require_positive(loss: str, name: str, value: float) -> None:
    """An option that is a plain number above 0."""
    if not 0.0 < value < math.inf:
        raise LossInputError(f"{loss}: {name} must be positive and finite, got {value:g}")


def require_choice(loss: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise LossInputError(f"{loss}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


_SUM_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


def sum_tolerance(dtype: torch.dtype) -> float:
    """How far from 1 the sum of probabilities of this type may be."""
    return _SUM_TOLERANCES.get(dtype, 1e-4)


def require_simplex(loss: str, name: str, probabilities: Tensor, dim: int) -> None:
    """Refuse what is not a distribution along `dim`: negative values, NaN, or a sum away from 1."""
    if not probabilities.numel():
        return
    values = probabilities.detach()
    lowest = float(values.min())
    if not lowest >= 0.0:
        raise LossInputError(
            f"{loss}: {name} must be probabilities, at least 0, but holds {lowest:g}; "
            "raw scores are said with Logits(x), logarithms with LogProbabilities(x)"
        )
    sums = values.sum(dim, dtype=torch.float64)
    worst = float(sums.flatten()[(sums - 1.0).abs().argmax()])
    if not abs(worst - 1.0) <= sum_tolerance(values.dtype):
        raise LossInputError(f"{loss}: {name} must sum to 1 along dimension {dim}, but a sum is {worst:.6g}")
