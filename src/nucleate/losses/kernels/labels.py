"""Labels of any integer type, read a block at a time.

They are counted in float32, which is exact for a block: the sum of two int32 is an int64 here, and slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels.compiler import inline, step
from nucleate.losses.kernels.intrinsics import choose, part
from nucleate.losses.kernels.scalars import f32, i32

IGNORED, WRONG = i32(-1), i32(-2)


@inline
def _class(y: Any, fits: Any, classes: Any, ignore: Any, ignores: bool) -> Any:
    outside = (y < i32(0)) | (y >= classes)
    return choose(fits & ignores & (y == ignore), IGNORED, choose(fits & (not outside), y, WRONG))


@step
def _bytes(target: Any, classes: Any, ignore: Any, ignores: bool, label: Any) -> Any:
    wrong = f32(0.0)
    for j in range(label.size):
        label[j] = _class(i32(target[j]), True, classes, ignore, ignores)
        wrong += choose(label[j] == WRONG, f32(1.0), f32(0.0))
    return wrong


@step
def _words(target: Any, classes: Any, ignore: Any, ignores: bool, label: Any) -> Any:
    """Of each 8 bytes the lower half, and whether the upper one only continues its sign."""
    wrong = f32(0.0)
    for j in range(label.size):
        y = target[2 * j]
        label[j] = _class(y, target[2 * j + 1] == y >> i32(31), classes, ignore, ignores)
        wrong += choose(label[j] == WRONG, f32(1.0), f32(0.0))
    return wrong


@step
def _outside_mask(mask: Any, label: Any) -> Any:
    wrong = f32(0.0)
    for j in range(label.size):
        label[j] |= i32(mask[j]) - i32(1)  # all bits of -1 where the mask is False
        wrong += choose(label[j] == WRONG, f32(1.0), f32(0.0))
    return wrong


@step
def narrow(label: Any, out: Any) -> None:
    """As bytes; those that are ignored become 255."""
    for j in range(label.size):
        out[j] = np.uint8(label[j])


@step
def count_selected(label: Any) -> float:
    found = f32(0.0)
    for j in range(label.size):
        found += choose(label[j] >= 0, f32(1.0), f32(0.0))
    return float(found)


@step
def count(label: Any, c: Any) -> float:
    found = f32(0.0)
    for j in range(label.size):
        found += choose(label[j] == c, f32(1.0), f32(0.0))
    return float(found)


@step
def read_labels(
    target: Any, size: int, mask: Any, first: int, classes: int, ignore: int, ignores: bool, label: Any
) -> Any:
    """Pixels from `first` on as classes, -1 where ignored or not in the mask (empty for none); returns those in error.

    `target` holds labels of `size` 1 (unsigned) or 8 bytes. Those that are no class become -2.
    """
    n = label.size
    if size == 1:
        wrong = _bytes(part(target, first, n), i32(classes), i32(ignore), ignores, label)
    else:
        words = part(target, 8 * first, 8 * n).view(i32)
        wrong = _words(words, i32(classes), i32(ignore), ignores, label)
    if mask.size:
        wrong = _outside_mask(part(mask, first, n), label)
    return wrong
