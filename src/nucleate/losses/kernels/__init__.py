"""Compiled versions of losses. This is their one public face: whatever stands outside `losses` imports from here.

    warm_up, use_kernels, kernels   compile now; turn them off; whether they are ready
    plain_cpu_tensor, layout_of, words, over_blocks, release_memory
                                    tensors as the kernels see them, threads, memory
    step, kernel, load, store, ...  what loops over blocks of pixels are made of; these alone load numba

Each kernel stands beside a plain version in PyTorch that it is tested against, and that does the work where the
kernel cannot.
"""

from typing import TYPE_CHECKING, Any

from nucleate.losses.kernels.dispatch import kernels, plain_cpu_tensor, use_kernels, warm_up
from nucleate.losses.kernels.memory import Layout, layout_of, release_memory, words
from nucleate.losses.kernels.threads import over_blocks

if TYPE_CHECKING:
    from nucleate.losses.kernels.compiler import inline, kernel, step
    from nucleate.losses.kernels.intrinsics import borrowed, choose, fence, keep_alive, larger, part
    from nucleate.losses.kernels.scalars import LOG2_E, exp2, f32, i32, log
    from nucleate.losses.kernels.tiles import copy, fill, load, row, store

__all__ = [
    "LOG2_E", "Layout", "borrowed", "choose", "copy", "exp2", "f32", "fence", "fill", "i32", "inline", "keep_alive",
    "kernel", "kernels", "larger", "layout_of", "load", "log", "over_blocks", "part", "plain_cpu_tensor",
    "release_memory", "row", "step", "store", "use_kernels", "warm_up", "words",
]  # fmt: skip

_PRIMITIVES = {
    "compiler": ("inline", "kernel", "step"),
    "intrinsics": ("borrowed", "choose", "fence", "keep_alive", "larger", "part"),
    "scalars": ("LOG2_E", "exp2", "f32", "i32", "log"),
    "tiles": ("copy", "fill", "load", "row", "store"),
}


def __getattr__(name: str) -> Any:
    """The loop primitives, which need numba: it takes a second to load, and may be missing."""
    import importlib

    for module, names in _PRIMITIVES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
