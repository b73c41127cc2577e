"""The polynomials against numpy."""

from __future__ import annotations

import numpy as np
from numba import njit

from nucleate.losses.kernels import scalars
from nucleate.losses.kernels.compiler import RELAXED


@njit(fastmath=RELAXED)
def _apply(exponential: bool, x: np.ndarray, out: np.ndarray) -> None:
    for i in range(x.size):
        out[i] = scalars_exp2(x[i]) if exponential else scalars_log(x[i])


scalars_exp2, scalars_log = scalars.exp2, scalars.log


def apply(exponential: bool, x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    _apply(exponential, x, out)
    return out


def test_exp2() -> None:
    x = np.linspace(-126, 0, 400_001, dtype=np.float32)
    exact = np.exp2(x.astype(np.float64))
    assert np.abs(apply(True, x) / exact - 1).max() < 2.5e-7
    edge = apply(True, np.array([0, -126.6, -1e30, -np.inf, np.nan], np.float32))
    assert edge[:4].tolist() == [1, 0, 0, 0]
    assert np.isnan(edge[4])


def test_log() -> None:
    x = np.concatenate([np.geomspace(1.2e-38, 3e38, 200_001), np.linspace(0.9, 1.1, 200_001)]).astype(np.float32)
    exact = np.log(x.astype(np.float64))
    assert (np.abs(apply(False, x) - exact) < 2.5e-7 * (1 + np.abs(exact))).all()
    assert np.isnan(apply(False, np.array([np.nan], np.float32))[0])
