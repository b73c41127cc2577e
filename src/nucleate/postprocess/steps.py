"""Which steps group pixels into nuclei: the compiled ones once they are ready, the plain ones until then.

Both give the same. Compiling takes seconds, once: it is done in a thread of its own while the plain ones do the work,
and kept in numba's cache next to the file (or in the user's cache folder), from where the next process loads it in
some tenths of a second. Where numba cannot be had, the plain ones do all the work.
"""

from __future__ import annotations

import importlib
import threading
from types import ModuleType

from nucleate.postprocess import plain_steps

_MUCH = 2**20
"""Pixels; what takes the plain steps as long as loading the compiled ones."""

_lock = threading.Lock()
_pixels = 0
_started = False
_ready: ModuleType | None = None


def fastest(pixels: int) -> ModuleType:
    """The module of steps to take; `pixels` says how much work there is. Much of it, also bit by bit, starts the
    compiler."""
    global _pixels, _started
    if _ready is not None:
        return _ready
    with _lock:
        _pixels += pixels
        if _pixels >= _MUCH and not _started:
            _started = True
            # Not a daemon: a short program that ends while compiling leaves the cache filled for the next one.
            threading.Thread(target=prepare, name="nucleate-grouping-compiler").start()
    return plain_steps


def prepare() -> bool:
    """Compile the steps, or load them from the cache, and wait; False where they cannot be had."""
    global _ready
    try:
        _ready = importlib.import_module("nucleate.postprocess.kernels")
    except (ImportError, RuntimeError):  # of numba: not installed, not for these packages, no folder for its cache
        return False
    return True
