"""The totals of the objective and their gradient in one pass over the maps as the network leaves them.

For two classes and cross entropy. A row of the packed maps holds two rows of pixels, each of them every second pixel
in turn; the four are taken one after the other, so that a pixel's numbers lie in arrays of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleate.losses.kernels import (
    LOG2_E,
    borrowed,
    choose,
    exp2,
    f32,
    fence,
    fill,
    keep_alive,
    kernel,
    larger,
    load,
    log,
    part,
    row,
    step,
    store,
)

MAPS = 6
"""Two logits of classes, the logit of the heat, offset y and x, log radius."""

_ZERO, _ONE, _FOUR = f32(0.0), f32(1.0), f32(4.0)


@step
def _every_second(source: Any, first: int, out: Any) -> None:
    for j in range(out.size):
        out[j] = source[first + 2 * j]


@step
def _select(known: Any, classes: Any, first: int, weight: Any, nucleus: Any, truth: Any) -> None:
    """Unknown pixels get the weight 0, `nucleus` that of nucleus pixels alone; `truth` the class, 0 or 1."""
    for j in range(weight.size):
        inside = classes[first + 2 * j] != 0
        weight[j] = choose(known[first + 2 * j], weight[j], _ZERO)
        nucleus[j] = choose(inside, weight[j], _ZERO)
        truth[j] = choose(inside, _ONE, _ZERO)


@step
def _difference(a: Any, b: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = b[j] - a[j]


@step
def _negative(x: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = -x[j]


@step
def _logistic(x: Any, truth: Any, weight: Any, share: Any, slope: Any) -> float:
    """sum of weight (log(1 + exp x) - truth x); `share` times its derivative into `slope`."""
    total = _ZERO
    for j in range(x.size):
        e = exp2(-abs(x[j]) * LOG2_E)
        value = larger(x[j], _ZERO) + log(_ONE + e) - truth[j] * x[j]
        total += choose(weight[j] == 0, _ZERO, weight[j] * value)
        probability = choose(x[j] >= 0, _ONE, e) / (_ONE + e)
        slope[j] = choose(weight[j] == 0, _ZERO, share * weight[j] * (probability - truth[j]))
    return float(total)


@step
def _reciprocal(radius: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = _ONE / larger(radius[j], f32(2.0))


@step
def _logarithm(x: Any, offset: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = log(x[j]) - offset


@step
def _smooth(x: Any, unit: Any, truth: Any, scale: Any, weight: Any, share: Any, slope: Any) -> float:
    """sum of weight smooth_l1(scale (unit x - truth)) with beta = 1/4; `share` times its derivative into `slope`."""
    total = _ZERO
    for j in range(x.size):
        e = scale[j] * (unit * x[j] - truth[j])
        a = abs(e)
        value = choose(a < f32(0.25), f32(2.0) * e * e, a - f32(0.125))
        total += choose(weight[j] == 0, _ZERO, weight[j] * value)
        d = choose(a < f32(0.25), _FOUR * e, choose(e < 0, -_ONE, _ONE))
        slope[j] = choose(weight[j] == 0, _ZERO, share * unit * scale[j] * weight[j] * d)
    return float(total)


@kernel(
    "void(int16[::1], int16[::1], boolean, int64, int64, uint8[::1], boolean[::1], float32[::1], float32[::1], "
    "float32[::1], float32[::1], float32, float32[::1], int64, int64, float64[::1])"
)
def objective_rows(
    packed: Any, gradient: Any, bfloat16: bool, height: int, width: int, classes: Any, known: Any, heat: Any,
    offset: Any, radius: Any, weight: Any, unit: float, shares: Any, begin: int, end: int, out: Any,
) -> None:  # fmt: skip
    """Rows `begin` to `end` of all images' packed rows of `width`, `height` in each image.

    Adds the totals (classes, heat, offset, radius) to `out` and writes the gradient of their sum, each
    times its share.
    """
    n, channels = width, 4 * MAPS
    packed, gradient, classes, known, heat = (
        borrowed(packed),
        borrowed(gradient),
        borrowed(classes),
        borrowed(known),
        borrowed(heat),
    )
    offset, radius, weight = borrowed(offset), borrowed(radius), borrowed(weight)
    size = channels * n
    floats = np.empty(3 * size + 7 * n, f32)
    maps_of, slopes_of, spare = part(floats, 0, size), part(floats, size, size), part(floats, 2 * size, size)
    work = part(floats, 3 * size, 7 * n)
    weights, nucleus, truth = row(work, 0, n, n), row(work, 1, n, n), row(work, 2, n, n)
    target, scale, logit, ones = row(work, 3, n, n), row(work, 4, n, n), row(work, 5, n, n), row(work, 6, n, n)
    fill(ones, _ONE)
    log_unit = log(f32(unit))
    line = 2 * width
    plane = 2 * height * line
    for r in range(begin, end):
        image, y = r // height, r % height
        load(packed, bfloat16, True, r * size, 0, maps_of, spare, n)
        for sub in range(4):
            first = image * plane + (2 * y + sub // 2) * line + sub % 2
            a, b, h = sub, 4 + sub, 8 + sub
            _every_second(weight, first, weights)
            _select(known, classes, first, weights, nucleus, truth)
            _difference(row(maps_of, a, n, n), row(maps_of, b, n, n), logit)
            out[0] += _logistic(logit, truth, weights, shares[0], row(slopes_of, b, n, n))
            _negative(row(slopes_of, b, n, n), row(slopes_of, a, n, n))
            _every_second(heat, first, target)
            out[1] += _logistic(row(maps_of, h, n, n), target, weights, shares[1], row(slopes_of, h, n, n))
            _every_second(radius, first, truth)
            _reciprocal(truth, scale)
            for axis in range(2):
                c = 12 + 4 * axis + sub
                _every_second(offset, first + (image + axis) * plane, target)
                out[2] += _smooth(row(maps_of, c, n, n), f32(unit), target, scale, nucleus, shares[2],
                                  row(slopes_of, c, n, n))  # fmt: skip
            _logarithm(truth, log_unit, target)
            c = 20 + sub
            out[3] += _smooth(row(maps_of, c, n, n), _ONE, target, ones, nucleus, shares[3],
                              row(slopes_of, c, n, n))  # fmt: skip
        store(gradient, bfloat16, True, r * size, 0, slopes_of, spare, n)
    fence()
    keep_alive(floats)
