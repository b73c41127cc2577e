"""Labels of any integer type, read a block at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.fused.compiled import step


@step
def _labels(target: Any, classes: int, ignore: int, ignores: bool, label: Any) -> None:
    """The labels as int32: -1 where ignored, -2 where no class at all."""
    for j in range(label.size):
        y = np.int64(target[j])
        skipped = ignores & (y == ignore)
        outside = (y < 0) | (y >= classes)
        label[j] = np.int32(-1) if skipped else np.int32(-2) if outside else np.int32(y)


@step
def outside_mask(mask: Any, label: Any) -> None:
    for j in range(label.size):
        label[j] = label[j] if mask[j] else np.int32(-1)


@step
def count_wrong(label: Any) -> Any:
    wrong = np.int32(0)
    for j in range(label.size):
        wrong += np.int32(label[j] == np.int32(-2))
    return wrong


@step
def read_labels(target: Any, size: int, first: int, classes: int, ignore: int, ignores: bool, label: Any) -> None:
    """Labels of 1, 2, 4 or 8 bytes; one byte is unsigned, or signed where `size` is -1."""
    n = label.size
    if size == 8:
        _labels(target[8 * first : 8 * (first + n)].view(np.int64), classes, ignore, ignores, label)
    elif size == 4:
        _labels(target[4 * first : 4 * (first + n)].view(np.int32), classes, ignore, ignores, label)
    elif size == 2:
        _labels(target[2 * first : 2 * (first + n)].view(np.int16), classes, ignore, ignores, label)
    elif size == -1:
        _labels(target[first : first + n].view(np.int8), classes, ignore, ignores, label)
    else:
        _labels(target[first : first + n], classes, ignore, ignores, label)
