"""Score predicted label images on disk against the true ones: find the partners, match, pool.

Nothing is decided here that bears on the scores; those are defined in `nucleate.postprocess.scores`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nucleate.errors import DatasetError, ImageError
from nucleate.io.axes import name_of
from nucleate.io.reader import read_labels
from nucleate.postprocess.matching import THRESHOLDS, Matching, match
from nucleate.postprocess.scores import Scores, pool

_EXTENSIONS = (".tif", ".tiff", ".png")
_MARKS = ("_labels", "_cp_masks", "_masks")
_IMAGE_ENDINGS = ("", "_img", "_0000")
"""What the name of an image may have beyond the name of its mask: nothing, or what Cellpose or nnU-Net adds."""
_FOLDERS = ("labels", "masks", "labelsTr")


@dataclass(frozen=True, slots=True)
class ImageEvaluation:
    """One image: the two files and what was matched in them."""

    name: str
    predicted: Path
    true: Path
    matching: Matching


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All images, sorted by name, and their pooled scores. `left_out` names the predictions without true labels."""

    images: tuple[ImageEvaluation, ...]
    scores: Scores
    left_out: tuple[str, ...] = ()


def evaluate(predicted: Path, true: Path, thresholds: Sequence[float] = THRESHOLDS) -> Evaluation:
    """Score two label images, or two folders of them.

    Files of two folders are partners when their names agree without extension (`.tif`, `.ome.tif`, `.tiff`, `.png`)
    and without a final `_labels`, `_masks` or `_cp_masks`; once one file of a folder bears such a mark, only marked
    files of it count. A folder that holds `labels/`, `masks/` or `labelsTr/` stands for that. So what `nucleate
    predict` wrote is scored against the data set it was made from, as both are: a prediction named after the image
    `x_img` (Cellpose) or `x_0000` (nnU-Net) is the partner of the mask `x`. Every true label image needs its
    prediction; predictions without true labels are left out and named in the result.

    Raises `DatasetError` for a path that does not exist, a file beside a folder, a folder without label images, two
    files of one name, and a true label image without a prediction; `ImageError` for partners of different size and
    for a file that is no label image.
    """
    predicted, true = Path(predicted), Path(true)
    for path in (predicted, true):
        if not path.exists():
            raise DatasetError(f"{path} does not exist; give a label image or a folder of label images.")
    if predicted.is_dir() != true.is_dir():
        file, folder = (true, predicted) if predicted.is_dir() else (predicted, true)
        raise DatasetError(f"{file} is a file but {folder} is a folder; give two files or two folders.")
    if not predicted.is_dir():
        image = _compare(true.stem, predicted, true, thresholds)
        return Evaluation((image,), pool([image.matching]))
    predictions, truths = _label_files(predicted), _label_files(true)
    partners = {
        name: name + ending for name in truths for ending in reversed(_IMAGE_ENDINGS) if name + ending in predictions
    }
    missing = sorted(set(truths) - set(partners))
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DatasetError(
            f"{truths[missing[0]]}{others} has no predicted partner in {predicted}; "
            f"put a label image named {missing[0]}.tif there, or take the true one away."
        )
    images = tuple(_compare(name, predictions[partners[name]], truths[name], thresholds) for name in sorted(truths))
    scores = pool(image.matching for image in images)
    return Evaluation(images, scores, tuple(sorted(set(predictions) - set(partners.values()))))


def to_json(evaluation: Evaluation) -> str:
    """Return the pooled scores, each image's own and the files they come from, as indented JSON."""
    document = {
        "scores": evaluation.scores.as_dict(),
        "images": [
            {"name": i.name, "predicted": str(i.predicted), "true": str(i.true), "scores": pool([i.matching]).as_dict()}
            for i in evaluation.images
        ],
        "left_out": list(evaluation.left_out),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _compare(name: str, predicted: Path, true: Path, thresholds: Sequence[float]) -> ImageEvaluation:
    found, expected = read_labels(predicted), read_labels(true)
    if found.shape != expected.shape:
        sizes = [" x ".join(str(side) for side in labels.shape) for labels in (found, expected)]
        raise ImageError(
            f"{predicted} is {sizes[0]} pixels (height x width) but {true} is {sizes[1]}; "
            f"both must be of one image at one size."
        )
    return ImageEvaluation(name, predicted, true, match(expected, found, thresholds))


def _label_files(folder: Path) -> dict[str, Path]:
    """Return the label images of a folder by their name without extension and mark."""
    holder = next((folder / inner for inner in _FOLDERS if (folder / inner).is_dir()), folder)
    files = sorted(
        f for f in holder.iterdir() if f.is_file() and f.suffix.lower() in _EXTENSIONS and not f.name.startswith(".")
    )
    marked = [f for f in files if name_of(f).endswith(_MARKS)]
    found: dict[str, Path] = {}
    for file in marked or files:
        name = name_of(file)
        for mark in _MARKS:
            name = name.removesuffix(mark)
        if name in found:
            raise DatasetError(f"{found[name]} and {file.name} are both label images of {name}; take one away.")
        found[name] = file
    if not found:
        raise DatasetError(f"{holder} holds no label image; put .tif or .png label images there.")
    return found
