"""Score predicted label images against the true ones: find the partners, match, pool.

Nothing is decided here that bears on the scores; those are defined in `nucleate.postprocess.scores`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nucleate.errors import DatasetError, ImageError
from nucleate.io.axes import name_of
from nucleate.io.ome_zarr import holds_labels, is_zarr
from nucleate.io.reader import LABEL_MARKS, as_labels, holds_outlines, read_labels, unmarked
from nucleate.postprocess.matching import THRESHOLDS, Matching, match
from nucleate.postprocess.scores import Scores, pool
from nucleate.types import Labels

KIND = "nucleate evaluation"
"""Under `kind` in the JSON, and so told apart from any other."""

_EXTENSIONS = (".tif", ".tiff", ".png")
_IMAGE_ENDINGS = ("", "_img", "_0000")
"""What the name of an image may have beyond the name of its mask: nothing, or what Cellpose or nnU-Net adds."""
_FOLDERS = ("labels", "masks", "labelsTr")
_MARKED, _ZARR, _GEOJSON, _ROIS, _UNMARKED = range(5)


@dataclass(frozen=True, slots=True)
class ImageEvaluation:
    """One image: the two files, None where arrays were given, and what was matched in them."""

    name: str
    predicted: Path | None
    truth: Path | None
    matching: Matching


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All images, sorted by name, and their pooled scores. `left_out` names the predictions without true labels."""

    images: tuple[ImageEvaluation, ...]
    scores: Scores
    left_out: tuple[str, ...] = ()


def evaluate(
    predicted: Path | str | ArrayLike, truth: Path | str | ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> Evaluation:
    """Score two label images, or two folders of them.

    Label images are read from TIFF and PNG, and in every other format that `nucleate predict` writes: OME-Zarr labels,
    GeoJSON, ImageJ regions of interest (`x_rois.zip`). Files of two folders are partners when their names agree without
    extension and without a final `_labels`, `_masks`, `_cp_masks` or `_rois`; once one TIFF or PNG of a folder bears
    such a mark, only those of them that do count. Of one image in several formats, one is read: a TIFF or PNG with such
    a mark, else OME-Zarr, GeoJSON, regions of interest. A folder that holds `labels/`, `masks/` or `labelsTr/` stands
    for that. So what `nucleate predict` wrote is scored against the data set it was made from, as both are: the
    prediction of the image `x_img` (Cellpose) or `x_0000` (nnU-Net) is the partner of the mask `x`. Every true label
    image needs its prediction; predictions without true labels are left out and named in the result.

    Args:
        predicted: a file, a folder or an array (height, width): 0 background, 1..N one nucleus each.
        truth: the same of the true nuclei; negative labels are unknown.
        thresholds: the intersections over union at which a pair of nuclei counts as found.

    Returns:
        The scores of each image and of all together.

    Raises:
        DatasetError: a path does not exist, a file stands beside a folder, a folder has no label images or two of one
            name, or a true label image has no prediction.
        ImageError: partners are of different size, or a file or array is no label image.

    >>> labels = np.array([[1, 1, 0], [0, 0, 2]])
    >>> evaluate(labels, labels).scores.panoptic_quality
    1.0
    """
    paths = [one for one in (predicted, truth) if isinstance(one, Path | str)]
    if not paths:
        found, expected = (_array(one, which) for one, which in ((predicted, "predicted"), (truth, "true")))
        _check_sizes(found, expected, "The array of predicted labels", "the array of true labels")
        image = ImageEvaluation("array", None, None, match(expected, found, thresholds))
        return Evaluation((image,), pool([image.matching]))
    if len(paths) == 1:
        raise DatasetError(f"{paths[0]} is a path and its partner an array: give two arrays or two paths.")
    return _evaluate_paths(Path(paths[0]), Path(paths[1]), thresholds)


def _evaluate_paths(predicted: Path, truth: Path, thresholds: Sequence[float]) -> Evaluation:
    for path in (predicted, truth):
        if not path.exists():
            raise DatasetError(f"{path} does not exist; give a label image or a folder of label images.")
    if _is_folder(predicted) != _is_folder(truth):
        file, folder = (truth, predicted) if _is_folder(predicted) else (predicted, truth)
        raise DatasetError(f"{file} is a file but {folder} is a folder; give two files or two folders.")
    if not _is_folder(predicted):
        image = _compare(truth.stem, predicted, truth, thresholds)
        return Evaluation((image,), pool([image.matching]))
    predictions, truths = _label_files(predicted), _label_files(truth)
    partners = {
        name: name + ending for name in truths for ending in reversed(_IMAGE_ENDINGS) if name + ending in predictions
    }
    missing = sorted(set(truths) - set(partners))
    if missing:
        others = f" and {len(missing) - 1} more have" if len(missing) > 1 else " has"
        raise DatasetError(
            f"{truths[missing[0]]}{others} no predicted partner in {predicted}; "
            f"put a label image named {missing[0]}.tif there, or take the true one away."
        )
    images = tuple(_compare(name, predictions[partners[name]], truths[name], thresholds) for name in sorted(truths))
    scores = pool(image.matching for image in images)
    return Evaluation(images, scores, tuple(sorted(set(predictions) - set(partners.values()))))


def to_json(evaluation: Evaluation) -> str:
    """Return the pooled scores, each image's own and the files they come from, as indented JSON."""
    document = {
        "kind": KIND,
        "scores": evaluation.scores.as_dict(),
        "images": [
            {
                "name": image.name,
                "predicted": None if image.predicted is None else str(image.predicted),
                "true": None if image.truth is None else str(image.truth),
                "scores": pool([image.matching]).as_dict(),
            }
            for image in evaluation.images
        ],
        "left_out": list(evaluation.left_out),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _array(values: Any, which: str) -> Labels:
    """A label image from an array."""
    where = f"The array of {which} labels"
    array = np.asarray(values)
    if array.ndim != 2 or array.size == 0:
        raise ImageError(f"{where} has shape {array.shape}: give one label image, (height, width).")
    return as_labels(array, where)


def _compare(name: str, predicted: Path, truth: Path, thresholds: Sequence[float]) -> ImageEvaluation:
    found, expected = read_labels(predicted), read_labels(truth)
    if found.shape != expected.shape:  # outlines do not say how far their image reaches beyond them
        height, width = (max(sides) for sides in zip(found.shape, expected.shape, strict=True))
        found, expected = read_labels(predicted, (height, width)), read_labels(truth, (height, width))
    _check_sizes(found, expected, predicted, truth)
    return ImageEvaluation(name, predicted, truth, match(expected, found, thresholds))


def _check_sizes(found: Labels, expected: Labels, predicted: object, truth: object) -> None:
    if found.shape != expected.shape:
        sizes = [" x ".join(str(side) for side in labels.shape) for labels in (found, expected)]
        raise ImageError(
            f"{predicted} is {sizes[0]} pixels (height x width) but {truth} is {sizes[1]}; "
            f"both must be of one image at one size."
        )


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder of files, and no OME-Zarr image."""
    return path.is_dir() and not is_zarr(path)


def _label_files(folder: Path) -> dict[str, Path]:
    """The label images of a folder by their name without extension and mark."""
    holder = next((folder / inner for inner in _FOLDERS if _is_folder(folder / inner)), folder)
    files = sorted((kind, file) for file in holder.iterdir() if (kind := _kind(file)) is not None)
    if any(kind == _MARKED for kind, _ in files):
        files = [(kind, file) for kind, file in files if kind != _UNMARKED]
    found: dict[str, tuple[int, Path]] = {}
    for kind, file in files:
        name = unmarked(name_of(file))
        if name in found and found[name][0] == kind:
            raise DatasetError(f"{found[name][1]} and {file.name} are both label images of {name}; take one away.")
        found.setdefault(name, (kind, file))
    if not found:
        raise DatasetError(f"{holder} holds no label image; put .tif or .png label images there.")
    return {name: file for name, (_, file) in found.items()}


def _kind(path: Path) -> int | None:
    """How surely a file holds labels, the surest first; None for what does not."""
    if path.name.startswith("."):
        return None
    if path.is_dir():
        return _ZARR if path.suffix.lower() == ".zarr" and is_zarr(path) and holds_labels(path) else None
    if path.suffix.lower() in _EXTENSIONS:
        return _MARKED if name_of(path).endswith(LABEL_MARKS) else _UNMARKED
    return (_GEOJSON if path.suffix.lower() == ".geojson" else _ROIS) if holds_outlines(path) else None
