"""When the kernels are used: where the cache holds them, and never where they were turned off.

The first loss that has kernels decides for the whole process. Kernels that the cache (`nucleate.compilation`) holds are
loaded; without them the plain versions do all the work to the end, so that no call changes its last bits midway, and a
process of its own compiles them for the next program (`background`). Only `warm_up` compiles in this one. Without numba
the plain versions do all the work.
"""

from __future__ import annotations

import difflib
import importlib
import os
import threading
from contextlib import suppress
from contextvars import ContextVar
from types import ModuleType, TracebackType
from typing import final

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.kernels import background
from nucleate.losses.registry import catalogue
from nucleate.losses.validation import transforming

_OVERLAP = ("overlap", "sigmoid_overlap")
_INDEX_OR_SOFT = ("cross_entropy", "soft_cross_entropy")
_USED: dict[str, tuple[str, ...]] = {
    "cross_entropy": _INDEX_OR_SOFT,
    "topk_cross_entropy": _INDEX_OR_SOFT,
    "binary_cross_entropy": ("binary",),
    "focal": ("focal",),
    "sigmoid_focal": ("binary",),
    "linear_cross_entropy": ("soft_cross_entropy", "product_kernels"),
    "kl_divergence": ("divergence",),
    "jensen_shannon": ("divergence",),
    "dice": _OVERLAP,
    "generalized_dice": _OVERLAP,
    "jaccard": _OVERLAP,
    "tversky": _OVERLAP,
    "focal_tversky": _OVERLAP,
    "lovasz_hinge": ("lovasz",),
    "lovasz_softmax": ("lovasz",),
    "info_nce": ("product_kernels",),
    "clip_loss": ("product_kernels",),
}
"""Loss -> the modules of kernels beside this one that it may use; a loss without kernels is not here."""

MODULES = tuple(dict.fromkeys(module for modules in _USED.values() for module in modules))

_enabled: ContextVar[bool] = ContextVar("nucleate.losses.use_kernels", default=True)
_found: bool | None = None  # whether the cache held kernels at the first loss; None before
_loaded: dict[str, ModuleType | None] = {}
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A fork waits until no other thread loads or compiles: the child would inherit locks that nobody opens again.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


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
    """Make the kernels of these losses (or of all) ready: load them from the cache, or compile them now, and wait.

    Compiling takes 10 to 60 seconds, once on a machine. The kernels are used from here on, also where the plain
    versions did the work until now, so it is to be called before the first loss.

    Args:
        names: losses as `catalogue` lists them.

    Returns:
        Whether all kernels that these losses use are ready: False where numba is not installed or does not fit the
        other packages, and the plain versions do all the work.

    Raises:
        LossInputError: there is no loss of that name.

    >>> from nucleate import losses
    >>> losses.warm_up("hinge")  # which has no kernels, and needs none
    True
    """
    known = [entry.name for entry in catalogue()]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "losses.catalogue() lists the names"
            raise LossInputError(f"warm_up: there is no loss named {name!r}; {hint}")
    with _lock:
        for module in (module for name in names or known for module in _USED.get(name, ())):
            _loaded[module] = _loaded.get(module) or _imported(module)
            if _loaded[module] is None:
                return False
    return True


def kernels(name: str) -> ModuleType | None:
    """The module of kernels of that name, the same at every call of a process, or None where it is not at hand."""
    if name not in _loaded and _enabled.get():
        with _lock:
            if name not in _loaded:
                _loaded[name] = _from_cache(name)
    return _loaded.get(name)


def _from_cache(name: str) -> ModuleType | None:
    """The module as it comes from the cache; where the cache lacks a kernel, None, and they are compiled elsewhere."""
    global _found
    if _found is None:
        _found = background.begun()
    module = None
    if _found:
        with suppress(ImportError, RuntimeError), importlib.import_module("nucleate.compilation").loading_only():
            module = _imported(name)
    if module is None:
        background.start()
    return module


def _imported(name: str) -> ModuleType | None:
    """The module, whose kernels are compiled or loaded meanwhile; None where numba is missing or does not work."""
    try:
        return importlib.import_module(f"nucleate.losses.kernels.{name}")
    except (ImportError, RuntimeError):
        return None


def plain_tensor(x: Tensor) -> bool:
    """Whether a fast version may compute with the values of `x`: no subclass, transformation or tracing between."""
    return (
        not transforming()
        and _enabled.get()
        and type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type != "meta"
        and torch.autograd.forward_ad.unpack_dual(x).tangent is None
    )


def plain_cpu_tensor(x: Tensor) -> bool:
    """Whether the memory of `x` can be handed to a kernel."""
    return plain_tensor(x) and x.device.type == "cpu" and not x.is_neg()
