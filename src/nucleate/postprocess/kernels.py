"""The inner loops of post-processing, compiled by numba. `tests/postprocess/reference.py` holds each in plain NumPy.

They run without Python's lock, so that two threads can process two tiles at once. The first import on a machine
compiles them, which takes some seconds; later ones load them from the cache (`nucleate.compilation`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, types

from nucleate.compilation import compiled

Function = TypeVar("Function", bound=Callable[..., Any])

BACKGROUND = -128
"""In the output of `vote_targets`: this pixel is background."""


def kernel(signature: Any) -> Callable[[Function], Function]:
    """A function of that signature, compiled at once or loaded from the cache."""

    def made(function: Function) -> Function:
        return cast(Function, compiled(function, signature, nogil=True, error_model="numpy"))

    return made


def step(function: Function) -> Function:
    """What only kernels call."""
    made = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
    return cast(Function, made(function))


_TAPS = types.Tuple((types.int64[::1], types.int64[::1], types.float32[::1]))


@kernel(types.float32[:, :, ::1](types.float32[:, :, ::1], _TAPS, _TAPS))
def resample_bilinear(x: Any, rows: Any, columns: Any) -> Any:
    """Bilinear interpolation of planes (C, H, W), first down the columns, then along the rows.

    Each output of an axis is (1 - weight) x[low] + weight x[high], rounded to float32 after each product and sum;
    `rows` and `columns` hold low, high and weight of each output.
    """
    (above, below, down), (left, right, across) = rows, columns
    out, line = np.empty((len(x), len(above), len(left)), np.float32), np.empty(x.shape[2], np.float32)
    for plane in range(len(x)):
        for y in range(len(above)):
            first, second, weight = x[plane, above[y]], x[plane, below[y]], down[y]
            for i in range(len(line)):
                line[i] = first[i] * (np.float32(1) - weight) + second[i] * weight
            here = out[plane, y]
            for i in range(len(here)):
                here[i] = line[left[i]] * (np.float32(1) - across[i]) + line[right[i]] * across[i]
    return out


@step
def _is_peak(heat: Any, y: int, x: int) -> bool:
    value = heat[y, x]
    for row in range(max(y - 2, 0), min(y + 3, heat.shape[0])):
        for column in range(max(x - 2, 0), min(x + 3, heat.shape[1])):
            if not value >= heat[row, column]:
                return False
    return True


@kernel("int64[:, ::1](float32[:, ::1], int64, int64, int64, int64, float32)")
def local_maxima(heat: Any, top: int, left: int, height: int, width: int, least: Any) -> Any:
    """Where in a part of the heatmap it is at least `least` and the highest of 5 x 5 pixels.

    The part begins at (`top`, `left`); places (N, 2) are counted from its corner, in reading order.
    """
    found = np.empty((height, width), np.bool_)
    count = 0
    for y in range(height):
        row, here = found[y], heat[top + y, left : left + width]
        above = heat[max(top + y - 1, 0), left : left + width]
        below = heat[min(top + y + 1, heat.shape[0] - 1), left : left + width]
        for x in range(width):  # no branches, and so many pixels at once; few are left
            row[x] = (here[x] >= least) & (here[x] >= above[x]) & (here[x] >= below[x])
        for x in range(width):
            if row[x]:
                row[x] = _is_peak(heat, top + y, left + x)
                count += row[x]
    places = np.empty((count, 2), np.int64)
    count = 0
    for y in range(height):
        for x in range(width):
            if found[y, x]:
                places[count, 0], places[count, 1] = y, x
                count += 1
    return places


@kernel("int8[:, :, ::1](float32[:, :], float32[:, :, :], UniTuple(int64, 2), UniTuple(int64, 2), float32, int64)")
def vote_targets(foreground: Any, offset: Any, corner: Any, shape: Any, least: Any, bound: int) -> Any:
    """For each pixel of a part of an image how far (y, x) it is to the pixel that its offset leads to, int8 (2, H, W).

    The target lies in the image of this `shape`, at most `bound` pixels away; `BACKGROUND` where the foreground is less
    than `least`.
    """
    height, width = foreground.shape
    points = np.full((2, height, width), BACKGROUND, np.int8)
    for y in range(height):
        for x in range(width):
            if foreground[y, x] >= least:
                for axis, place in ((0, y + corner[0]), (1, x + corner[1])):
                    step = np.int64(np.rint(min(max(offset[axis, y, x], -bound), bound)))
                    points[axis, y, x] = min(max(place + step, 0), shape[axis] - 1) - place
    return points


@kernel("boolean[::1](int64[:, ::1], float32[::1], float64[::1])")
def non_maximum_suppression(position: Any, heat: Any, squared: Any) -> Any:
    """Which candidates have no better one within a squared distance; they are sorted by y, then x."""
    keep = np.ones(len(position), np.bool_)
    for i in range(len(position)):
        for direction in (-1, 1):
            j = i + direction
            while 0 <= j < len(position) and keep[i]:
                dy, dx = position[j, 0] - position[i, 0], position[j, 1] - position[i, 1]
                if dy * dy > squared[i]:
                    break
                if dy * dy + dx * dx <= squared[i] and (heat[j] > heat[i] or (heat[j] == heat[i] and j < i)):
                    keep[i] = False
                j += direction
    return keep


@kernel("int32[:, ::1](int8[:, :, ::1], int64[:, ::1], float64[::1])")
def assign_pixels(points: Any, centre: Any, squared: Any) -> Any:
    """For each pixel 1 + the index of the centre nearest to its vote target, of those within their `squared` distance.

    0 for background, for a target outside the array, and where there is no such centre.
    """
    height, width = points.shape[1], points.shape[2]
    owner = np.zeros((height, width), np.int32)
    distance = np.full((height, width), np.iinfo(np.int16).max, np.int16)  # squared; none reaches 181 pixels
    for k in range(len(centre)):
        extent = np.int64(np.ceil(np.sqrt(squared[k])))
        left, right = max(centre[k, 1] - extent, 0), min(centre[k, 1] + extent + 1, width)
        furthest = np.int32(min(np.floor(squared[k]), np.iinfo(np.int16).max - 1))
        for y in range(max(centre[k, 0] - extent, 0), min(centre[k, 0] + extent + 1, height)):
            down, across = (y - centre[k, 0]) ** 2, left - centre[k, 1]
            of, least = owner[y, left:right], distance[y, left:right]
            for x in range(len(of)):  # no branches, and so many pixels at once
                away = np.int32(down + (x + across) ** 2)
                nearer = (away <= furthest) & (away < least[x])
                of[x] = np.int32(k + 1) if nearer else of[x]
                least[x] = np.int16(away) if nearer else least[x]
    labels = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            if points[0, y, x] != BACKGROUND:
                row, column = y + points[0, y, x], x + points[1, y, x]
                if 0 <= row < height and 0 <= column < width:
                    labels[y, x] = owner[row, column]
    return labels


@step
def _find(parent: Any, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@step
def _runs(labels: Any) -> Any:
    """The runs of equal labels along rows: which of them begin each row (one more than rows), where each begins in its
    row, and its label."""
    height, width = labels.shape
    count = height
    for y in range(height):
        for x in range(1, width):
            count += labels[y, x] != labels[y, x - 1]
    row = np.empty(height + 1, np.int64)
    begin, value = np.empty(count, np.int32), np.empty(count, np.int32)
    n = 0
    for y in range(height):
        row[y] = n
        for x in range(width):
            if x == 0 or labels[y, x] != labels[y, x - 1]:
                begin[n], value[n] = x, labels[y, x]
                n += 1
    row[height] = n
    return row, begin, value


@step
def _pieces(row: Any, begin: Any, value: Any, width: int) -> Any:
    """Of each run the first run of the 4-connected piece that it is of."""
    piece = np.arange(len(value)).astype(np.int32)
    for y in range(1, len(row) - 1):
        i, j = row[y - 1], row[y]
        while i < row[y] and j < row[y + 1]:
            if value[i] == value[j]:
                a, b = _find(piece, i), _find(piece, j)
                piece[max(a, b)] = min(a, b)
            i, j = _next(begin, row, y, width, i, j)
    for i in range(len(piece)):
        piece[i] = piece[piece[i]]
    return piece


@step
def _joined(row: Any, begin: Any, value: Any) -> Any:
    """The same with every two runs of equal labels made one that lie next to each other in a row."""
    joined, first, label = np.empty_like(row), np.empty_like(begin), np.empty_like(value)
    n = 0
    for y in range(len(row) - 1):
        joined[y] = n
        for i in range(row[y], row[y + 1]):
            if i == row[y] or value[i] != label[n - 1]:
                first[n], label[n] = begin[i], value[i]
                n += 1
    joined[len(row) - 1] = n
    return joined, first[:n], label[:n]


@step
def _end(begin: Any, stop: int, width: int, i: int) -> int:
    """Where run i ends, in a row whose last run is the one before `stop`."""
    return int(begin[i + 1]) if i + 1 < stop else width


@step
def _next(begin: Any, row: Any, y: int, width: int, i: int, j: int) -> Any:
    """Of rows y - 1 and y, the next two runs of which one lies above the other."""
    above, here = _end(begin, row[y], width, i), _end(begin, row[y + 1], width, j)
    return i + (above <= here), j + (here <= above)


@step
def _touch(lowest: Any, highest: Any, piece: int, label: int) -> None:
    if label > 0:
        lowest[piece], highest[piece] = min(lowest[piece], label), max(highest[piece], label)


@step
def _fill_holes(row: Any, begin: Any, value: Any, width: int) -> None:
    height = len(row) - 1
    piece = _pieces(row, begin, value, width)
    lowest, highest = np.full(len(piece), np.iinfo(np.int32).max, np.int32), np.zeros(len(piece), np.int32)
    enclosed = np.ones(len(piece), np.bool_)
    for y in range(height):
        for i in range(row[y], row[y + 1]):
            if y == 0 or y == height - 1 or i == row[y] or i == row[y + 1] - 1:
                enclosed[piece[i]] = False
            if value[i] == 0 and i > row[y]:
                _touch(lowest, highest, piece[i], value[i - 1])
            if value[i] == 0 and i < row[y + 1] - 1:
                _touch(lowest, highest, piece[i], value[i + 1])
        i, j = row[max(y - 1, 0)], row[y]
        while y > 0 and i < row[y] and j < row[y + 1]:
            if value[i] == 0:
                _touch(lowest, highest, piece[i], value[j])
            if value[j] == 0:
                _touch(lowest, highest, piece[j], value[i])
            i, j = _next(begin, row, y, width, i, j)
    for i in range(len(piece)):
        if value[i] == 0 and enclosed[piece[i]] and lowest[piece[i]] == highest[piece[i]]:
            value[i] = highest[piece[i]]


@kernel("int32[:, ::1](int32[:, ::1], int64)")
def keep_largest_component(labels: Any, min_area: int) -> Any:
    """See `instances_from_maps.keep_largest_component`."""
    height, width = labels.shape
    row, begin, value = _runs(labels)
    piece = _pieces(row, begin, value, width)
    size, largest = np.zeros(len(piece), np.int64), 0
    for y in range(height):
        for i in range(row[y], row[y + 1]):
            size[piece[i]] += _end(begin, row[y + 1], width, i) - begin[i]
            largest = max(largest, value[i])
    best = np.full(largest + 1, -1, np.int64)  # of each label the piece that stays
    for i in range(len(piece)):
        if piece[i] == i and value[i] > 0 and (best[value[i]] < 0 or size[i] > size[best[value[i]]]):
            best[value[i]] = i
    for i in range(len(piece)):
        if value[i] > 0 and (best[value[i]] != piece[i] or size[piece[i]] < min_area):
            value[i] = 0
    row, begin, value = _joined(row, begin, value)
    _fill_holes(row, begin, value, width)
    out = np.zeros((height, width), np.int32)
    for y in range(height):
        for i in range(row[y], row[y + 1]):
            if value[i] > 0:
                out[y, begin[i] : _end(begin, row[y + 1], width, i)] = value[i]
    return out


@kernel("Tuple((int64[::1], float64[:, ::1], int64[:, ::1]))(int32[:, ::1], boolean[::1], float64[:, :, ::1])")
def accumulate(labels: Any, chosen: Any, columns: Any) -> Any:
    """Area, sums and boxes of each label k + 1 that is `chosen`.

    The sums (2 + C, K) are those of y, of x and of each of the `columns` (C, H, W); boxes (K, 4) are top, left, bottom,
    right. A sum runs over the pixels in reading order, so it is the same to the last bit in whichever array they lie.
    """
    height, width = labels.shape
    area, sums = np.zeros(len(chosen), np.int64), np.zeros((2 + len(columns), len(chosen)))
    edges = np.zeros((len(chosen), 4), np.int64)
    for y in range(height):
        for x in range(width):
            k = labels[y, x] - 1
            if k < 0 or not chosen[k]:
                continue
            if area[k] == 0:
                edges[k] = y, x, y, x
            edges[k, 1], edges[k, 2], edges[k, 3] = min(edges[k, 1], x), y + 1, max(edges[k, 3], x + 1)
            area[k] += 1
            sums[0, k] += y
            sums[1, k] += x
            for c in range(len(columns)):
                sums[2 + c, k] += columns[c, y, x]
    return area, sums, edges


@kernel("uint8[::1](int32[:, ::1], int64[::1], int64[:, ::1])")
def pack_masks(labels: Any, which: Any, edges: Any) -> Any:
    """Of each label k + 1, k in `which`, the pixels of its box in reading order, eight to a byte, padded with 0."""
    length = 0
    for k in which:
        length += ((edges[k, 2] - edges[k, 0]) * (edges[k, 3] - edges[k, 1]) + 7) // 8
    packed = np.zeros(length, np.uint8)
    bit = 0
    for k in which:
        for y in range(edges[k, 0], edges[k, 2]):
            for x in range(edges[k, 1], edges[k, 3]):
                if labels[y, x] == k + 1:
                    packed[bit >> 3] |= np.uint8(128 >> (bit & 7))
                bit += 1
        bit = (bit + 7) // 8 * 8
    return packed


@kernel(
    types.void(
        types.uint32[:, :],
        types.Array(types.uint8, 1, "C", readonly=True),
        types.int64[::1],
        types.int64[:, ::1],
        types.int64[::1],
    )
)
def paint_masks(labels: Any, packed: Any, starts: Any, edges: Any, numbers: Any) -> None:
    """Write numbers into `labels` where masks have pixels.

    Mask k, as `pack_masks` makes it, begins at byte `starts[k]`; its box (K, 4) may lie in part outside.
    """
    height, width = labels.shape
    for k in range(len(starts)):
        top, left, bottom, right = edges[k]
        for y in range(max(top, 0), min(bottom, height)):
            bit = 8 * starts[k] + (y - top) * (right - left)
            for x in range(max(left, 0), min(right, width)):
                if packed[(bit + x - left) >> 3] & (128 >> ((bit + x - left) & 7)):
                    labels[y, x] = numbers[k]
