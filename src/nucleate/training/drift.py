"""Drift: whether the errors of a stream have risen for good, by ADWIN.

ADWIN keeps a window W of the last errors and drops its oldest ones while any cut into an older part W0 and a newer W1
shows means that differ by more than chance would:

    |mean W0 - mean W1| > sqrt(2 v L / m) + 2 L / (3 m),    L = ln(2 ln(n) / delta),    1 / m = 1 / n0 + 1 / n1

with v the variance of W and n its length. Drift is reported where what was dropped had the lower errors.

Source: Bifet and Gavaldà, Learning from time-changing data with adaptive windowing, SIAM Data Mining (2007). Every cut
is looked at, as in their ADWIN, and not buckets of growing size, as in ADWIN2; so `LONGEST` bounds the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST = 512
"""Errors that are remembered at most."""

DELTA = 0.05
"""The chance of a false alarm that is allowed at each error; the bound is a loose one, and far fewer are seen."""

SHORTEST = 5
"""Errors that either part of a window has at least."""


def adwin(window: Sequence[float], error: float, delta: float = DELTA) -> tuple[list[float], bool]:
    """The window after another error (0..1), and whether errors have risen.

    >>> window, risen = [], []
    >>> for error in [0.1] * 40 + [0.9] * 20:
    ...     window, drift = adwin(window, error)
    ...     risen.append(drift)
    >>> risen.index(True) > 40, len(window) < 40
    (True, True)
    """
    kept = np.asarray([*window, error][-LONGEST:], dtype=np.float64)
    risen = False
    while (cuts := _cuts(kept, delta)).size:
        risen = risen or bool(kept[cuts[0] :].mean() > kept[: cuts[0]].mean())
        kept = kept[1:]
    return kept.tolist(), risen


def _cuts(window: NDArray[np.float64], delta: float) -> NDArray[np.intp]:
    """The lengths of older parts whose mean differs from that of the newer part."""
    n = window.size
    older = np.arange(SHORTEST, n - SHORTEST + 1)
    if not older.size:
        return older
    sums = np.cumsum(window)
    newer = n - older
    difference = np.abs(sums[older - 1] / older - (sums[-1] - sums[older - 1]) / newer)
    m = 1 / (1 / older + 1 / newer)
    bits = math.log(2 * math.log(n) / delta)
    bound = np.sqrt(2 * window.var() * bits / m) + 2 * bits / (3 * m)
    return np.asarray(older[difference > bound])
