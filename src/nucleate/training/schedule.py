"""The learning rate of each step: warm-up, constant, cool-down."""

from __future__ import annotations


def learning_rate(step: int, peak: float, *, warm_up: int, cool_down: tuple[int, int] | None = None) -> float:
    """The learning rate of a step: it rises linearly to `peak`, stays there, and falls linearly to zero at the end.

    Args:
        step: Number of the step, from 0.
        peak: The highest learning rate.
        warm_up: Steps over which it rises.
        cool_down: First step of the fall, and the step at which it is zero; None while no end is decided.

    >>> [learning_rate(step, 1.0, warm_up=2, cool_down=(4, 6)) for step in range(7)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    factor = min(1.0, (step + 1) / warm_up)
    if cool_down is not None:
        begin, end = cool_down
        factor = min(factor, max(0.0, (end - step) / max(1, end - begin)))
    return peak * factor
