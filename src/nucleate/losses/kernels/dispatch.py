"""When the kernels are used: once they are compiled, and never where they were turned off.

Compiling takes seconds, once: it is done in a thread of its own while the plain versions do the work, and kept in
the cache (`nucleate.compilation`), from where the next process loads it. Without numba the plain versions do all the
work.
"""

from __future__ import annotations

import importlib
import threading
from contextvars import ContextVar
from types import ModuleType, TracebackType
from typing import final

import torch
from torch import Tensor

from nucleate.losses.validation import transforming

_KERNELS = ("cross_entropy", "overlap", "soft_cross_entropy", "divergence", "lovasz", "product_kernels",
            "binary", "focal", "sigmoid_overlap")  # fmt: skip
_enabled: ContextVar[bool] = ContextVar("nucleate.losses.use_kernels", default=True)
_started = False
_lock = threading.Lock()
_ready: dict[str, ModuleType] = {}


@final
class use_kernels:
    """Use the fast versions of losses (the default) or only the plain ones, for good or within a `with`.

    The setting holds in the thread that makes it, and in no other.

    >>> import torch
    >>> from nucleate import losses
    >>> logits, target = torch.zeros(1, 2, 8), torch.zeros(1, 8, dtype=torch.long)
    >>> with losses.use_kernels(False):
    ...     round(losses.cross_entropy(logits, target).item(), 4)
    0.6931
    """

    def __init__(self, enabled: bool) -> None:
        self._before = _enabled.get()
        _enabled.set(enabled)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _enabled.set(self._before)


def warm_up(*names: str) -> bool:
    """Compile the kernels of these families (or of all), or load them from the cache, and wait.

    False where they cannot be had: where numba is not installed or does not fit the other packages. The plain versions
    then do all the work. Call it before a run whose results must not depend, to
    the last bit, on when the compiler was done.
    """
    try:
        for name in names or _KERNELS:
            _ready[name] = importlib.import_module(f"nucleate.losses.kernels.{name}")
    except (ImportError, RuntimeError):
        _ready.clear()
        return False
    return True


def kernels(name: str) -> ModuleType | None:
    """The module of compiled kernels, or None while there is none; the first call starts the compiler."""
    global _started
    if name in _ready:
        return _ready[name]
    with _lock:
        if not _started:
            _started = True
            # Not a daemon: a short program that ends while compiling leaves the cache filled for the next one.
            threading.Thread(target=warm_up, name="nucleate-losses-compiler").start()
    return None


def plain_tensor(x: Tensor) -> bool:
    """Whether a fast version may compute with the values of `x`: no subclass, transformation or tracing between."""
    return (
        not transforming()
        and _enabled.get()
        and type(x) in (Tensor, torch.nn.Parameter)
        and torch.autograd.forward_ad.unpack_dual(x).tangent is None
    )


def plain_cpu_tensor(x: Tensor) -> bool:
    """Whether the memory of `x` can be handed to a kernel."""
    return plain_tensor(x) and x.device.type == "cpu" and not x.is_neg()
