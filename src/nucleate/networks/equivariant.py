"""Convolutions that are equivariant to the group p4m: quarter turns and mirroring.

A micrograph has no upper side. The channels between two layers stand in eight groups, one for each element g of the
group; the kernels of one are those of the first, transformed by g, with their inputs' groups exchanged accordingly
(Cohen and Welling, "Group equivariant convolutional networks", 2016). A lifting convolution leads from the image to the
groups, group convolutions from groups to groups, a projection from the groups to the maps:

    kernel[(g, o), (h, i)](x) = weight[o, (g^-1 h, i)](g^-1 x)

So turning the image turns the maps, rounding apart, and a layer learns an eighth of its kernel's numbers. Once made, a
kernel is as plain, and as fast, as any other.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Element = tuple[int, bool]
"""An element of the group: so many quarter turns, after being mirrored or not."""

ELEMENTS: tuple[Element, ...] = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))
ORDER = len(ELEMENTS)


def compose(first: Element, second: Element) -> Element:
    """The element that is `second`, then `first`.

    >>> compose((1, False), (3, True)), compose((0, True), (1, False))
    ((0, True), (3, True))
    """
    turns = first[0] + (-second[0] if first[1] else second[0])
    return turns % 4, first[1] != second[1]


def inverse(element: Element) -> Element:
    """The element that undoes this one."""
    turns, mirrored = element
    return element if mirrored else (-turns % 4, False)


def transform(grid: Tensor, element: Element) -> Tensor:
    """The last two axes, rows and columns of equal number, mirrored left to right or not, then turned.

    >>> transform(torch.tensor([[1, 2], [3, 4]]), (1, True)).tolist()
    [[1, 3], [2, 4]]
    """
    turns, mirrored = element
    return torch.rot90(grid.flip(-1) if mirrored else grid, turns, (-2, -1))


def transform_vector(y: Tensor, x: Tensor, element: Element) -> tuple[Tensor, Tensor]:
    """The components (y, x) of a vector at each pixel, after its image was transformed; places are not changed.

    >>> transform_vector(torch.tensor(0), torch.tensor(1), (1, False))  # what pointed right points up
    (tensor(-1), tensor(0))
    """
    turns, mirrored = element
    if mirrored:
        x = -x
    for _ in range(turns):
        y, x = -x, y
    return y, x


@dataclass(frozen=True, slots=True, eq=False)
class KernelExpansion:
    """How the rows of a weight become the rows of a kernel: row `index[k]`, times `sign[k]` where there are signs.

    `back` (8, rows of the weight) are the eight rows of the kernel that each becomes.
    """

    index: Tensor
    back: Tensor
    sign: Tensor | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        expand: Callable[[Tensor, KernelExpansion], Tensor] = _ExpandKernel.apply
        return expand(rows, _on(self, rows.device))


@functools.cache
@torch.inference_mode(mode=False)
def _on(expansion: KernelExpansion, device: torch.device) -> KernelExpansion:
    sign = None if expansion.sign is None else expansion.sign.to(device)
    return KernelExpansion(expansion.index.to(device), expansion.back.to(device), sign)


class _ExpandKernel(torch.autograd.Function):
    """Gathers both ways: ten times as fast as `index_select`, whose derivative adds row by row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, how: KernelExpansion) -> Tensor:
        ctx.how = how
        kernel = rows.index_select(0, how.index)
        return kernel if how.sign is None else kernel.mul_(how.sign[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        how: KernelExpansion = ctx.how
        if how.sign is not None:
            gradient = gradient * how.sign[:, None]
        return gradient.index_select(0, how.back.view(-1)).view(*how.back.shape, -1).sum(0), None


# Tables are made once, and outside of inference mode, whose tensors could not be used in training.


@functools.cache
@torch.inference_mode(mode=False)
def lifting(outputs: int, size: int) -> KernelExpansion:
    """Rows (output, y, x) of a weight on the image to those of all eight groups of outputs."""
    place = torch.arange(outputs * size * size).view(outputs, size, size)
    return _expansion(torch.stack([transform(place, g) for g in ELEMENTS]))


@functools.cache
@torch.inference_mode(mode=False)
def group_convolution(outputs: int, size: int) -> KernelExpansion:
    """Rows (output, y, x, group of inputs) to those of all eight groups of outputs."""
    place = torch.arange(outputs * ORDER * size * size).view(outputs, size, size, ORDER).permute(3, 0, 1, 2)
    groups = [transform(place[[_number(compose(inverse(g), h)) for h in ELEMENTS]], g) for g in ELEMENTS]
    return _expansion(torch.stack(groups).permute(0, 2, 3, 4, 1))


@functools.cache
@torch.inference_mode(mode=False)
def projection(classes: int) -> KernelExpansion:
    """Rows (output) of a weight on one group to rows (output, group of inputs).

    Outputs are maps of 2 x 2 pixels each: the classes, heat, offset (y, x) and radius.
    """
    place = 1 + torch.arange(4 * (classes + 4)).view(classes + 4, 2, 2)
    found = torch.stack([_transform_maps(place, classes, g) for g in ELEMENTS], dim=-1).flatten()
    return _expansion(found.abs() - 1, found.sign())


@functools.cache
@torch.inference_mode(mode=False)
def invariant_bias(classes: int) -> tuple[Tensor, Tensor]:
    """Index and sign of the numbers that make a bias for each output of `projection`: one for each map, but only one
    for both offsets, which may point outwards from the middle of the 2 x 2 pixels and nowhere else."""
    place = torch.tensor([*range(classes + 2), classes + 1, classes + 2]).repeat_interleave(4)
    sign = torch.ones(classes + 4, 2, 2)
    sign[classes + 1, 0], sign[classes + 2, :, 0] = -1, -1
    return place, sign.flatten()


def _transform_maps(maps: Tensor, classes: int, element: Element) -> Tensor:
    """Maps as the network gives them, of the transformed image."""
    maps = transform(maps, element)
    y, x = classes + 1, classes + 2
    return torch.cat([maps[:y], torch.stack(transform_vector(maps[y], maps[x], element)), maps[x + 1 :]])


def _expansion(index: Tensor, sign: Tensor | None = None) -> KernelExpansion:
    flat = index.flatten()
    back = flat.argsort(stable=True).view(-1, ORDER).T.contiguous()
    return KernelExpansion(flat, back, None if sign is None else sign.float())


def _number(element: Element) -> int:
    return ELEMENTS.index(element)


BLOCKS = 5
"""Blocks of a kernel's matrix: one for each irreducible representation of the group, four of dimension 1 and one of
dimension 2."""


@functools.cache
@torch.inference_mode(mode=False)
def _representations() -> Tensor:
    """(8, 8): of each element of the group the four numbers and the matrix of 2 x 2 that represent it."""
    signs = itertools.product((1, -1), repeat=2)
    numbers = [[turn**turns * (mirror if mirrored else 1) for turns, mirrored in ELEMENTS] for turn, mirror in signs]
    y, x = torch.eye(2)
    planes = [torch.stack(transform_vector(y, x, g)).flatten() for g in ELEMENTS]
    return torch.cat([torch.tensor(numbers), torch.stack(planes, dim=1)])


@functools.cache
@torch.inference_mode(mode=False)
def _from_one_side(outputs: int, size: int) -> tuple[Tensor, Tensor]:
    """Rows (output, y, x, group h) of a weight, each at h^-1 (y, x) in its place; and the way back."""
    place = torch.arange(outputs * ORDER * size * size).view(outputs, size, size, ORDER)
    seen = torch.stack([transform(place[..., k], inverse(h)) for k, h in enumerate(ELEMENTS)], dim=-1).flatten()
    return seen, seen.argsort()


def blocks(weight: Tensor) -> list[Tensor]:
    """The matrix of a group convolution's kernel, rows outputs, block-diagonalised.

    Args:
        weight: (outputs / 8, inputs, size, size).

    Returns:
        Five matrices whose singular values are the kernel's own, those of the last one twice.

    Source: Fourier transform on the group (Diaconis, "Group representations in probability and statistics", 1988): four
    matrices (o, j) and one of (2 o, 2 j), with o = outputs / 8 and j = inputs size^2 / 8.
    """
    outputs, inputs, size, _ = weight.shape
    seen, _ = _from_one_side(outputs, size)
    rows = weight.permute(0, 2, 3, 1).reshape(-1, inputs // ORDER).index_select(0, seen.to(weight.device))
    rows = rows.view(outputs, size * size, ORDER, -1)
    parts = torch.einsum("kh,oyhi->koyi", _representations().to(weight), rows).flatten(2)
    plane = parts[4:].view(2, 2, outputs, -1).permute(2, 0, 3, 1).reshape(2 * outputs, -1)
    return [*parts[:4], plane]


def from_blocks(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """The weight, shaped as `like`, whose `blocks` these are."""
    outputs, inputs, size, _ = like.shape
    _, back = _from_one_side(outputs, size)
    *numbers, plane = parts
    # A matrix of 2 x 2 counts twice.
    planes = 2 * plane.view(outputs, 2, -1, 2).permute(1, 3, 0, 2).reshape(4, outputs, -1)
    whole = torch.cat([torch.stack(numbers), planes]).view(ORDER, outputs, size * size, -1) / ORDER
    rows = torch.einsum("kh,koyi->oyhi", _representations().to(like), whole).reshape(-1, inputs // ORDER)
    return rows.index_select(0, back.to(rows.device)).view(outputs, size, size, inputs).permute(0, 3, 1, 2)
