"""One mask for each nucleus: the files of a folder, or the pages of a TIFF file, put together into one label image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io.files import reading
from nucleate.io.formats import imagej_roi
from nucleate.io.formats.painting import MOST_WORK, Canvas
from nucleate.io.reader import is_image, open_reader
from nucleate.io.tiff_reader import planes
from nucleate.types import Labels

_STACK = 0.5  # part of the painted pixels; where more are in several pages, these are the planes of a stack


def is_mask_file(path: Path) -> bool:
    """Whether a file in a folder of masks is one: an image, or a single ImageJ region.

    >>> is_mask_file(Path("1.png")), is_mask_file(Path("0001-0002.roi")), is_mask_file(Path("notes.txt"))
    (True, True, False)
    """
    return is_image(path) or (path.suffix.lower() == ".roi" and not path.name.startswith("."))


def holds_masks(folder: Path) -> bool:
    """Whether a folder holds files that may be masks of single nuclei."""
    with reading(folder):
        return any(map(is_mask_file, folder.iterdir()))


def read_folder(folder: Path, shape: tuple[int, int] | None = None) -> tuple[Labels, tuple[str, ...]]:
    """The masks of a folder as one label image, numbered in the order of their names, and what is odd about them.

    Args:
        folder: holds an image for each nucleus, 0 where it is not; or an ImageJ region for each.
        shape: (height, width) of the image.

    Raises:
        ImageError: a file cannot be read, is of another size, or holds several values as a label image does.
    """
    with reading(folder):
        files = sorted(path for path in folder.iterdir() if is_mask_file(path))
    if not files:
        raise ImageError(f"{folder} cannot be read as masks, as it holds none: put an image for each nucleus into it.")
    if all(file.suffix.lower() == ".roi" for file in files):
        if shape is None:
            raise ImageError(f"{folder} holds regions alone, and its image's size is needed: save them as one ZIP.")
        canvas = Canvas(shape, folder)
        for file in files:
            for outline in imagej_roi.read(file)[0]:
                canvas.add(outline)
        return canvas.labels, canvas.notes()
    return _together(((_plane(file), file) for file in files), shape, folder)


def read_pages(path: Path) -> tuple[Labels, tuple[str, ...]] | None:
    """The pages of a TIFF file, each the mask of one nucleus, as one label image, and what is odd about them.

    None for a file of one plane, and where the pages are no such masks.
    """
    pages = planes(path)
    if not pages or not all(map(_is_mask, pages)):
        return None
    masks = [page.astype(np.bool_) for page in pages]
    covered = np.sum(masks, axis=0, dtype=np.int32)
    if np.count_nonzero(covered > 1) > _STACK * np.count_nonzero(covered):
        return None
    return _together(((mask, path) for mask in masks), None, path)


def _together(
    masks: Iterable[tuple[NDArray[np.generic], Path]], shape: tuple[int, int] | None, path: Path
) -> tuple[Labels, tuple[str, ...]]:
    canvas, work = None, 0
    for mask, file in masks:
        shape = shape or (mask.shape[0], mask.shape[1])
        canvas = canvas or Canvas(shape, path)
        work += mask.size
        if mask.shape != shape:
            raise ImageError(
                f"{file} is {mask.shape[1]} x {mask.shape[0]} pixels where {shape[1]} x {shape[0]} are needed: export"
                " all masks at the image's size."
            )
        if not _is_mask(mask):
            raise ImageError(
                f"{file} holds {np.unique(mask).size} values where one nucleus is needed, 0 around it: give one mask"
                " for each nucleus, or one label image for all."
            )
        if work > MOST_WORK:
            raise ImageError(f"{path} holds more than {MOST_WORK} pixels of masks: save one label image.")
        canvas.add_pixels(np.flatnonzero(mask))
    assert canvas is not None  # as there is a mask
    notes = (note.replace("outlines", "masks").replace("outline", "mask") for note in canvas.notes())
    return canvas.labels, tuple(notes)


def _is_mask(values: NDArray[np.generic]) -> bool:
    """Whether there is but one value besides 0."""
    inside = values[values != 0]
    return not inside.size or bool((inside == inside[0]).all() and inside[0] > 0)


def _plane(path: Path) -> NDArray[np.generic]:
    with open_reader(path, labels=True) as reader, reading(path):
        values = reader.read(reader.box)
    return np.asarray(values.max(axis=2))
