"""Maps -> instances in operations on tensors alone, which TorchScript can hold: `nucleate export --to torchscript`.

The same four steps as in `instances_from_maps`, to the same labels, for one image as a whole. The loops over pixels of
`postprocess.kernels` become

    peaks          a maximum over 5 x 5 pixels (max-pooling), compared with the heat itself
    suppression    distances of some candidates at a time to all that are near along y
    assignment     every centre offers itself to the pixels around it; the least of distance x count + number stays
    components     runs of equal labels along rows, joined by hooking roots to smaller roots and halving of paths
                   (Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", 1982)

Every function can be called as it is, too. TorchScript reads this file itself, and takes neither annotations that are
evaluated later nor names of numbers outside a function other than as defaults of its arguments.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.postprocess.instances_from_maps import MAX_DISTANCE

NO_OWNER = 2**62
"""Stands for a distance beyond all others."""

AT_ONCE = 2**22
"""Distances that are computed at once, which bounds memory."""


def peaks(foreground: Tensor, heat: Tensor, least: float, sure: float) -> Tensor:
    """Places (N, 2) of the candidates, in reading order: the highest of 5 x 5 pixels, where the heat is at `least` so
    high and the mean foreground of 3 x 3 pixels is at least `sure`.

    >>> heat = torch.zeros(6, 6); heat[2, 3], heat[5, 0] = 0.9, 0.3
    >>> peaks(torch.ones(6, 6), heat, 0.2, 0.95).tolist(), peaks(torch.zeros(6, 6), heat, 0.2, 0.95).tolist()
    ([[2, 3], [5, 0]], [])
    """
    highest = F.max_pool2d(heat[None, None], 5, 1, 2)[0, 0]
    found = ((heat >= least) & (heat == highest)).nonzero()
    around = F.pad(foreground[None, None].double(), [1, 1, 1, 1], "replicate")[0, 0]
    total = torch.zeros(len(found), dtype=torch.float64, device=heat.device)
    for dy in range(3):
        for dx in range(3):
            total = total + around[found[:, 0] + dy, found[:, 1] + dx]
    return found[total / 9 >= sure]


def unsuppressed(
    place: Tensor, heat: Tensor, radius: Tensor, share: float, bound: int = MAX_DISTANCE, many: int = 256
) -> Tensor:
    """Which candidates (N,) have no better one within `share` times their radius; `place` (N, 2) is sorted.

    >>> unsuppressed(torch.tensor([[0, 0], [0, 3], [9, 9]]), torch.tensor([0.5, 0.6, 0.2]), torch.full((3,), 4.0), 1.0)
    tensor([False,  True,  True])
    """
    within = (radius * share).clamp(2.0, float(bound)).double().square()
    y, x = place[:, 0].contiguous(), place[:, 1]
    number = torch.arange(len(y), device=y.device)
    keep = torch.ones_like(y, dtype=torch.bool)
    for start in range(0, len(y), many):
        end = min(start + many, len(y))
        first = int(torch.searchsorted(y, y[start] - bound))
        last = int(torch.searchsorted(y, y[end - 1] + bound, right=True))
        away = (y[start:end, None] - y[None, first:last]) ** 2 + (x[start:end, None] - x[None, first:last]) ** 2
        own, other = heat[start:end, None], heat[None, first:last]
        better = (other > own) | ((other == own) & (number[None, first:last] < number[start:end, None]))
        keep[start:end] = ~((away <= within[start:end, None]) & better).any(dim=1)
    return keep


def owners(
    place: Tensor,
    radius: Tensor,
    share: float,
    height: int,
    width: int,
    bound: int = MAX_DISTANCE,
    nobody: int = NO_OWNER,
    at_once: int = AT_ONCE,
) -> Tensor:
    """At each pixel (H, W) 1 + the number of the nearest centre, of those within `share` times their radius of it, or
    0; of equally near ones the first.

    >>> owners(torch.tensor([[0, 0], [0, 4]]), torch.tensor([2.0, 2.0]), 1.0, 1, 6).tolist()
    [[1, 1, 1, 2, 2, 2]]
    """
    furthest = (radius * share).clamp(2.0, float(bound)).square().floor().long()
    nearest = torch.full((height * width,), nobody, dtype=torch.int64, device=place.device)
    order = torch.argsort(furthest, descending=True)
    start = 0
    while start < len(order):
        extent = int(furthest[order[start]].double().sqrt().ceil())
        step = torch.arange(-extent, extent + 1, device=place.device)
        chosen = order[start : start + max(1, at_once // (len(step) * len(step)))]
        start += len(chosen)
        away = (step[:, None] ** 2 + step[None, :] ** 2).expand(len(chosen), -1, -1)
        y = (place[chosen, 0][:, None, None] + step[None, :, None]).expand_as(away)
        x = (place[chosen, 1][:, None, None] + step[None, None, :]).expand_as(away)
        inside = (away <= furthest[chosen][:, None, None]) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        offered = away * len(order) + chosen[:, None, None]
        nearest = nearest.scatter_reduce(0, (y * width + x)[inside], offered[inside], "amin")
    found = torch.where(nearest == nobody, 0, nearest % max(1, len(order)) + 1)
    return found.reshape(height, width)


def assigned(foreground: Tensor, offset: Tensor, owner: Tensor, least: float, bound: int = MAX_DISTANCE) -> Tensor:
    """Labels (H, W): at each pixel whose foreground is at `least` so high, the owner of the pixel that its offset
    (2, H, W) leads to."""
    height, width = owner.shape[0], owner.shape[1]
    step = offset.clamp(-float(bound), float(bound)).round().long()
    y = (torch.arange(height, device=owner.device)[:, None] + step[0]).clamp(0, height - 1)
    x = (torch.arange(width, device=owner.device)[None, :] + step[1]).clamp(0, width - 1)
    return torch.where(foreground >= least, owner[y, x], 0)


def joined(one: Tensor, other: Tensor, count: int) -> Tensor:
    """Of each of `count` nodes the first node that it is connected with; `one` and `other` (E,) are the edges.

    >>> joined(torch.tensor([4, 1]), torch.tensor([3, 4]), 6).tolist()
    [0, 1, 2, 1, 1, 5]
    """
    first = torch.arange(count, device=one.device)
    here, there = one, other
    while not torch.equal(here, there):
        first = first.scatter_reduce(0, torch.maximum(here, there), torch.minimum(here, there), "amin")
        above = first[first]
        while not torch.equal(above, first):
            first, above = above, above[above]
        here, there = first[one], first[other]
    return first


def pieces(labels: Tensor) -> Tensor:
    """Of each pixel (H, W) a number for the 4-connected piece of equal labels that it is of. Numbers rise in the order
    of the pieces' first pixels.

    >>> pieces(torch.tensor([[0, 7, 0], [0, 7, 0], [0, 0, 0], [5, 5, 0]])).tolist()
    [[0, 1, 0], [0, 1, 0], [0, 0, 0], [7, 7, 0]]
    """
    begins = torch.ones_like(labels, dtype=torch.bool)
    begins[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = begins.flatten().cumsum(0).reshape(labels.shape) - 1
    meets = labels[1:] == labels[:-1]
    # Of two runs that meet in several pixels the first pixel tells it.
    meets[:, 1:] &= begins[1:, 1:] | begins[:-1, 1:]
    return joined(run[:-1][meets], run[1:][meets], int(begins.sum()))[run]


def largest_pieces(labels: Tensor, min_area: int) -> Tensor:
    """Of each label the largest piece, of equal ones the first, if it has `min_area` pixels; the rest becomes 0."""
    piece = pieces(labels)
    area = torch.bincount(piece.flatten())
    label = torch.zeros_like(area).scatter(0, piece.flatten(), labels.flatten())
    rank = area * len(area) + torch.arange(len(area) - 1, -1, -1, device=labels.device)
    best = torch.zeros_like(area)[:1].expand(int(labels.max()) + 1).scatter_reduce(0, label, rank, "amax")
    return torch.where(((rank == best[label]) & (area >= min_area))[piece], labels, 0)


def without_holes(labels: Tensor, nobody: int = NO_OWNER) -> Tensor:
    """Each piece of background that touches one label alone, and no edge of the image, takes that label.

    >>> without_holes(torch.tensor([[3, 3, 3], [3, 0, 3], [3, 3, 3]])).unique().tolist()
    [3]
    """
    piece = pieces(labels)
    count = int(piece.max()) + 1
    edge = torch.zeros(count, dtype=torch.bool, device=labels.device)
    lowest = torch.full((count,), nobody, dtype=torch.int64, device=labels.device)
    highest = torch.zeros_like(lowest)
    for number, label in [(piece, labels), (piece.t(), labels.t())]:
        edge[number[0]] = True
        edge[number[-1]] = True
        for inner, outer, at in [
            (label[1:], label[:-1], number[1:]),
            (label[:-1], label[1:], number[:-1]),
        ]:
            touched = (inner == 0) & (outer > 0)
            lowest = lowest.scatter_reduce(0, at[touched], outer[touched], "amin")
            highest = highest.scatter_reduce(0, at[touched], outer[touched], "amax")
    filled = torch.where(~edge & (lowest == highest), highest, 0)
    return torch.where(labels == 0, filled[piece], labels)


def instances(
    foreground: Tensor,
    heat: Tensor,
    offset: Tensor,
    radius: Tensor,
    least: float,
    least_heat: float,
    sure: float,
    nms_radius: float,
    assign_radius: float,
    min_area: int,
) -> Tensor:
    """Labels (H, W), int64, of the maps of one image, in units as `types.Maps` has them; the other arguments are those
    of `types.Thresholds`. Labels rise in the order of their centres, and some numbers may be missing."""
    place = peaks(foreground, heat, least_heat, sure)
    place = place[unsuppressed(place, heat[place[:, 0], place[:, 1]], radius[place[:, 0], place[:, 1]], nms_radius)]
    owner = owners(place, radius[place[:, 0], place[:, 1]], assign_radius, foreground.shape[0], foreground.shape[1])
    return without_holes(largest_pieces(assigned(foreground, offset, owner, least), min_area))


def numbered(labels: Tensor) -> Tensor:
    """The labels as 1..N in their order, int32.

    >>> numbered(torch.tensor([[0, 9, 4]])).tolist()
    [[0, 2, 1]]
    """
    there = torch.bincount(labels.flatten()) > 0
    there[0] = False
    return torch.where(labels > 0, there.cumsum(0)[labels], 0).int()
