"""What the values of a mask mean: nuclei that are numbered, or something that only looks like it.

A mask should hold 0 for the background and a number of its own for each nucleus. What people have besides is a class
mask (nucleus or not, or classes of pixels), a mask whose background has a number, and an image in a mask's place. Each
would train or score without a word, so each is told from its connected pieces of equal value.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from nucleate.errors import InputError
from nucleate.types import Labels

Masks = Literal["auto", "labels", "binary", "colours"]
"""How masks are taken: `auto` refuses what surely is a mistake; `labels` takes every number as one nucleus, however
odd; `binary` makes each connected piece of a class mask a nucleus, and leaves numbered masks as they are; `colours`
takes every colour of a colour mask as one nucleus."""

_SMALL = 10  # pixels; below it a nucleus is more likely a slip of the brush
_PURPOSE = "or say with --masks labels that each number is one nucleus"


@dataclass(frozen=True, slots=True)
class Mistake:
    """What surely is wrong with a mask: `what`, as what follows the file's name in a sentence, and the `mend`."""

    what: str
    mend: str

    def sentence(self, subject: str) -> str:
        """All of it as one sentence."""
        return f"{subject} {self.what}: {self.mend}."


@dataclass(frozen=True, slots=True)
class MaskFindings:
    """A mask, interpreted: the labels to use, what surely is wrong with them, and what may be."""

    labels: Labels
    mistake: Mistake | None
    oddities: tuple[str, ...]


def choice(masks: str) -> Masks:
    """The `--masks` of this name; raises `InputError` for another."""
    choices: dict[str, Masks] = {one: one for one in get_args(Masks)}
    if masks not in choices:
        raise InputError(f"There is no --masks {masks}: choose one of {', '.join(choices)}.")
    return choices[masks]


def interpret(labels: Labels, masks: Masks = "auto", *, outlines: bool = False) -> MaskFindings:
    """What a mask holds.

    Args:
        labels: as they were read, (height, width).
        masks: how they are to be taken; see `Masks`.
        outlines: whether they were drawn from outlines, each of which is one nucleus, whatever its pieces are.

    >>> mask = np.zeros((20, 40), np.int32)
    >>> mask[2:9, 2:9] = mask[2:9, 22:29] = 255
    >>> interpret(mask).mistake.what[:39]
    'has the single value 255 in 2 pieces, s'
    >>> interpret(mask, "binary").labels.max().item()
    2
    """
    pieces, notes = _Pieces.of(labels), list[str]()
    if masks == "binary" and not outlines:
        given, labels = labels, _separated(labels, pieces)
        pieces = _Pieces.of(labels)
        if (count := int(labels.max(initial=0))) > np.unique(given[given > 0]).size:
            notes.append(f"Each of {count} pieces was taken as one nucleus: two that touch are one.")
    if masks == "colours" and (ground := _ground(pieces)) is not None:
        labels = np.where(labels == ground, 0, labels).astype(np.int32)
        pieces = _Pieces.of(labels)
    mistake = None if masks in ("labels", "colours") else _mistake(pieces, outlines=outlines)
    oddities = () if mistake else tuple(_oddities(pieces, single=masks == "auto" and not outlines))
    return MaskFindings(labels, mistake, (*notes, *oddities))


def is_outlines(path: Path) -> bool:
    """Whether a mask file holds outlines of nuclei, or a folder a mask of each, and it is no label image."""
    one_each = path.is_dir() and path.suffix.lower() != ".zarr"
    return one_each or path.suffix.lower() in (".geojson", ".json", ".gz", ".zip", ".roi")


def size_mistake(image: tuple[int, ...], mask: tuple[int, ...]) -> Mistake | None:
    """What is wrong where a mask of shape (height, width) is not of its image's size.

    >>> size_mistake((40, 50), (50, 40)).sentence("a_masks.tif")
    'a_masks.tif is 40 x 50 pixels and its image 50 x 40: turn one of them by 90 degrees, and export both at one size.'
    """
    if mask == image:
        return None
    turned = "turn one of them by 90 degrees, and " if mask == image[::-1] else ""
    return Mistake(
        f"is {mask[1]} x {mask[0]} pixels and its image {image[1]} x {image[0]}", f"{turned}export both at one size"
    )


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The connected pieces of equal value (diagonal neighbours count), unknown pixels left out; each array (pieces,).

    `centre` is (pieces, 2); `border` is how many of the image's border pixels a piece has; `shape` is the image's.
    """

    value: NDArray[np.int32]
    area: NDArray[np.int64]
    centre: NDArray[np.float64]
    border: NDArray[np.int64]
    shape: tuple[int, int]

    @classmethod
    def of(cls, labels: Labels) -> _Pieces:
        known = np.maximum(labels, -1)
        numbered = measure.label(known, background=-1, connectivity=2)
        count = int(numbered.max()) + 1
        area = np.bincount(numbered.ravel(), minlength=count)
        value = np.zeros(count, np.int32)
        value[numbered.ravel()] = labels.ravel()
        height, width = labels.shape
        rows, columns = np.ogrid[:height, :width]
        sums = [
            np.bincount(numbered.ravel(), np.broadcast_to(axis, labels.shape).ravel(), minlength=count)
            for axis in (rows, columns)
        ]
        edge = np.ones(labels.shape, bool)
        edge[1:-1, 1:-1] = False
        border = np.bincount(numbered[edge], minlength=count)
        centre = np.stack(sums, axis=1) / np.maximum(area, 1)[:, None]
        return cls(value[1:], area[1:], centre[1:], border[1:], (height, width))

    def share(self, chosen: NDArray[np.bool_]) -> float:
        """The part of the image that these pieces cover."""
        return float(self.area[chosen].sum() / (self.shape[0] * self.shape[1]))

    def border_share(self, chosen: NDArray[np.bool_]) -> float:
        """The part of the image's border that these pieces have."""
        height, width = self.shape
        return float(self.border[chosen].sum() / (height * width - max(0, height - 2) * max(0, width - 2)))

    def without(self, value: int | None) -> _Pieces:
        """The pieces of nuclei: of positive numbers but for this one."""
        kept = self.value > 0 if value is None else (self.value > 0) & (self.value != value)
        return _Pieces(self.value[kept], self.area[kept], self.centre[kept], self.border[kept], self.shape)

    def by_value(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """The positive values, the area of each, and in how many pieces it is, but for crumbs.

        A crumb is a piece below a tenth of the largest one of its value: a slip of the brush, no second nucleus.
        """
        nuclei = self.without(None)
        values, of = np.unique(nuclei.value, return_inverse=True)
        areas = np.bincount(of, nuclei.area, minlength=values.size).astype(np.int64)
        largest = np.zeros(values.size, np.int64)
        np.maximum.at(largest, of, nuclei.area)
        whole = 10 * nuclei.area >= largest[of]
        return values, areas, np.bincount(of[whole], minlength=values.size)


def _mistake(pieces: _Pieces, *, outlines: bool) -> Mistake | None:
    """What surely is wrong, if anything."""
    ground = _ground(pieces)
    values, _, counts = pieces.without(ground).by_value()
    total = int(counts.sum())
    if not outlines and _is_picture(pieces):
        return Mistake(
            f"holds {values.size} values in {pieces.without(None).area.size} pieces, as an image does, or a mask that"
            " was saved as JPEG or whose numbers repeat",
            f"give the masks in its place, saved as 16-bit TIFF or PNG, {_PURPOSE}",
        )
    if ground is not None:
        share = pieces.share(pieces.value == ground)
        return Mistake(
            f"has the label {ground} on {share:.0%} of its pixels, where the background should be 0",
            f"set the background to 0, or give --masks binary, which takes it so, {_PURPOSE}",
        )
    if outlines or not _is_classes(pieces.without(ground)):
        return None
    if values.size == 1:
        return Mistake(
            f"has the single value {values[0]} in {total} pieces, so it tells nucleus from background but not one"
            " nucleus from the next",
            f"number the nuclei, or give --masks binary, which makes each piece a nucleus, {_PURPOSE}",
        )
    listed = ", ".join(map(str, values[:4])) + (" ..." if values.size > 4 else "")
    return Mistake(
        f"has only the values {listed} in {total} pieces, so they are classes of pixels (such as nucleus and border)"
        " and no numbers of nuclei",
        f"number the nuclei, or give --masks binary, which makes each connected piece a nucleus, {_PURPOSE}",
    )


def _ground(pieces: _Pieces) -> int | None:
    """The positive value that surely is the background's.

    It covers most of the image, or much of one that has no 0, and others lie inside it, or it takes most of the image's
    border. One nucleus that fills an image has no others inside.
    """
    values, areas, _ = pieces.by_value()
    if not values.size:
        return None
    value = int(values[areas.argmax()])
    own, zero = pieces.value == value, pieces.value == 0
    share, at_border = pieces.share(own), pieces.border_share(own)
    others, inside = ~own & ~zero, (pieces.border == 0) & (pieces.area >= _SMALL)
    if share == 1:
        return value
    if share <= (0.5 if zero.any() else 0.2):
        return None
    if others.any():
        many = others.sum() > 2 or not zero.any()
        return value if (others & inside).any() or (many and at_border > 0.5) else None
    holes = pieces.share(zero & inside)
    return value if holes >= 0.01 or (holes > 0 and at_border == 1) else None


def _is_picture(pieces: _Pieces) -> bool:
    """Whether it looks like an image: values in many pieces each, or pieces of hardly a pixel side by side."""
    nuclei = pieces.without(None)
    values, count = np.unique(nuclei.value).size, nuclei.area.size
    if values <= 10 or count < 50:
        return False
    return count >= 3 * values or bool(pieces.share(pieces.value > 0) > 0.05 and nuclei.area.mean() < 4)


def _is_classes(nuclei: _Pieces) -> bool:
    """Whether values stand for classes, as they are in many pieces, or each in pieces far apart.

    Two pieces may be one nucleus that was cut.
    """
    values, _, counts = nuclei.by_value()
    if values.size == 1:
        return bool(counts[0] > 2 or (counts[0] == 2 and values[0] in (1, 2, 255, 65535)))
    if values.size > 2 and (counts > 1).all() and _scattered(nuclei) == values.size:
        return True
    return values.size > 0 and bool(counts.sum() >= 3 * values.size)


def _separated(labels: Labels, pieces: _Pieces) -> Labels:
    """A mask with 0 for the background, and a class mask's connected pieces as nuclei."""
    ground = _ground(pieces)
    values, _, _ = pieces.without(ground).by_value()
    if ground is not None:
        inverted = not values.size
        nucleus = (labels == 0) if inverted else (labels > 0) & (labels != ground)
        labels = np.where(labels < 0, labels, labels * nucleus + nucleus * inverted).astype(np.int32)
    if not _is_picture(pieces) and (values.size <= 1 or _is_classes(pieces.without(ground))):
        found = measure.label(labels > 0, connectivity=2)
        labels = np.where(labels < 0, labels, found).astype(np.int32)
    return labels


def _oddities(pieces: _Pieces, *, single: bool) -> list[str]:
    """What may be wrong; with `single` also whether a single nucleus may be a class mask in one piece."""
    values, areas, counts = pieces.by_value()
    if not values.size:
        return ["The mask has no nucleus."]
    oddities = []
    if single and values.size == 1 and values[0] == 255 and counts[0] == 1:
        oddities.append(
            "The mask has the single value 255 in 1 piece: it tells nucleus from background, not one nucleus from the"
            " next."
        )
    share = pieces.share(pieces.value == values[areas.argmax()])
    if values.size > 1 and share > 0.5:
        oddities.append(f"Label {values[areas.argmax()]} covers {share:.0%} of the image: is it the background?")
    if scattered := _scattered(pieces.without(None)):
        oddities.append(
            f"{_count(scattered, 'nucleus', 'nuclei')} in pieces far apart: give each piece a number of its own."
        )
    if small := int((areas < _SMALL).sum()):
        oddities.append(f"{_count(small, 'nucleus', 'nuclei')} of fewer than {_SMALL} pixels.")
    return oddities


def _scattered(nuclei: _Pieces) -> int:
    """How many nuclei have a piece whose centre is more than the nucleus's diameter from the largest piece's centre."""
    order = np.lexsort((-nuclei.area, nuclei.value))
    value, area, centre = nuclei.value[order], nuclei.area[order], nuclei.centre[order]
    _, first, of = np.unique(value, return_index=True, return_inverse=True)
    diameter = 2 * np.sqrt(np.bincount(of, area) / np.pi)
    far = np.linalg.norm(centre - centre[first][of], axis=1) > diameter[of]
    return int(np.unique(of[far]).size)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
