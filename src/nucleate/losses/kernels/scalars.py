"""Scalar functions that the kernels are made of, written so that the compiler turns them into vector code.

The library's own exp and log are calls, one number at a time; as polynomials they cost about a fifth of a
nanosecond.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels.compiler import inline
from nucleate.losses.kernels.intrinsics import bits_of_float, choose, float_of_bits

f32 = np.float32
i32 = np.int32


LOG2_E = f32(1.4426950408889634)
LN_2 = f32(0.6931471805599453)
_LOWEST = f32(-127.0)  # where the exponent's bits are all 0, and with them the number
_HALF, _ONE = f32(0.5), f32(1.0)

# 2^f on [-1/2, 1/2] by a Chebyshev fit, relative error 2e-9 before rounding.
_E1, _E2, _E3 = f32(0.6931472067028326), f32(0.24022650922288757), f32(0.05550327226670302)
_E4, _E5, _E6 = f32(0.009618056678524637), f32(0.0013400428177615838), f32(0.0001546144469856913)


@inline
def exp2(t: Any) -> Any:
    """2^t for t <= 0; 0 from 2^-126.5 on; NaN stays NaN. Relative error 2e-7."""
    held = choose(t < _LOWEST, _LOWEST, t)
    n = i32(held - _HALF)
    f = held - f32(n)
    p = _E6 * f + _E5
    p = p * f + _E4
    p = p * f + _E3
    p = p * f + _E2
    p = p * f + _E1
    p = p * f + _ONE
    return p * float_of_bits((n + i32(127)) << i32(23))


# (log(1 + r) - r + r^2 / 2) / r^3 between 1/sqrt(2) - 1 and sqrt(2) - 1, error 1e-8.
_L3, _L4, _L5, _L6 = (f32(v) for v in (0.3333333073, -0.2500030642, 0.2000104509, -0.1664128146))
_L7, _L8, _L9, _L10 = (f32(v) for v in (0.1421449595, -0.1299818376, 0.1262231985, -0.0790274377))
_ROOT_HALF = i32(0x3F3504F3)


@inline
def log(x: Any) -> Any:
    """The natural logarithm of a normal number above 0; NaN stays NaN."""
    bits = bits_of_float(x)
    e = (bits - _ROOT_HALF) >> i32(23)
    r = float_of_bits(bits - (e << i32(23))) - _ONE
    q = r * r
    low, high = (_L3 + _L4 * r) + (_L5 + _L6 * r) * q, (_L7 + _L8 * r) + (_L9 + _L10 * r) * q
    value = f32(e) * LN_2 + (r - _HALF * q + r * q * (low + high * q * q))
    return choose(x == x, value, x)


# log(1 + e) / e on [0, 1] by a Chebyshev fit, relative error 3e-8 before rounding.
_P0, _P1, _P2 = f32(0.9999999705), f32(-0.4999950152), f32(0.3331927134)
_P3, _P4, _P5 = f32(-0.2484436989), f32(0.1911143108), f32(-0.1367476971)
_P6, _P7, _P8 = f32(0.0783616680), f32(-0.0295885074), f32(0.0052534578)


@inline
def log_of_one_plus(e: Any) -> Any:
    """log(1 + e) for e in 0..1, to the last digits of a small e; NaN stays NaN."""
    p = _P8 * e + _P7
    p = p * e + _P6
    p = p * e + _P5
    p = p * e + _P4
    p = p * e + _P3
    p = p * e + _P2
    p = p * e + _P1
    p = p * e + _P0
    return p * e


@inline
def float_of_bfloat16(bits: Any) -> Any:
    """The float32 of a bfloat16 held as an int16: the upper half of its bits."""
    return float_of_bits(i32(bits) << i32(16))


@inline
def bfloat16_of_float(x: Any) -> Any:
    """The nearest bfloat16 (ties to even) as an int16; NaN stays NaN."""
    bits = bits_of_float(x)
    rounded = bits + i32(0x7FFF) + ((bits >> i32(16)) & i32(1))
    return np.int16(choose(x == x, rounded, i32(0x7FC00000)) >> i32(16))
