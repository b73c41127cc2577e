"""Score predicted label images against the true ones: find the partners, match, pool.

Nothing is decided here that bears on the scores; those are defined in `nucleate.postprocess.scores`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nucleate.data import names
from nucleate.data.contents import LABEL_FORMATS, Contents, coco_file, contents, current
from nucleate.data.dataset import find
from nucleate.data.masks import Masks, interpret, is_outlines
from nucleate.errors import DatasetError, ImageError
from nucleate.io.axes import name_of
from nucleate.io.label_file import as_labels, read_label_file, was_changed
from nucleate.io.ome_zarr import holds_labels, is_zarr
from nucleate.postprocess.matching import THRESHOLDS, Matching, match
from nucleate.postprocess.scores import Scores, pool
from nucleate.types import Labels


@dataclass(frozen=True, slots=True)
class ImageEvaluation:
    """One image: the two files, None where arrays were given, and what was matched in them."""

    name: str
    predicted: Path | None
    truth: Path | None
    matching: Matching


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All images, sorted by name, and their pooled scores. `left_out` names the predictions without true labels,
    `failed` says of each image that could not be scored why, and `warnings` what may be wrong with the true labels."""

    images: tuple[ImageEvaluation, ...]
    scores: Scores
    left_out: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def evaluate(
    predicted: Path | str | ArrayLike,
    truth: Path | str | ArrayLike,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    masks: Masks = "auto",
) -> Evaluation:
    """Score two label images, or two folders of them.

    Label images are read from every format that `nucleate predict` writes: TIFF, OME-Zarr labels, GeoJSON, ImageJ
    regions of interest; and from PNG. A folder of true labels may be a data set in any layout that `data.dataset.find`
    knows, or hold nothing but label images. Of a folder that `nucleate predict` wrote, its results are scored. Files
    are partners when their names agree without extension and without marks such as `_labels` or `_img`
    (`data.names.core`); subfolders count as part of the name. Every true label image needs its prediction; predictions
    without true labels are left out and named in the result, and so is a pair of which one cannot be read.

    Args:
        predicted: a file, a folder or an array (height, width): 0 background, 1..N one nucleus each.
        truth: the same of the true nuclei; negative labels are unknown.
        thresholds: the intersections over union at which a pair of nuclei counts as found.
        masks: how masks are taken; see `data.masks`.

    Returns:
        The scores of each image and of all together.

    Raises:
        DatasetError: a path does not exist, a file stands beside a folder, a folder has no label images or two of one
            name, or a true label image has no prediction.
        ImageError: partners are of different size, a file or array is no label image, or its values surely are a
            mistake (an image, a class mask).

    >>> labels = np.array([[1, 1, 0], [0, 0, 2]])
    >>> evaluate(labels, labels).scores.panoptic_quality
    1.0
    """
    paths = [one for one in (predicted, truth) if isinstance(one, Path | str)]
    if not paths:
        found, expected = (_array(one, which, masks) for one, which in ((predicted, "predicted"), (truth, "true")))
        _check_sizes(found, expected, "The array of predicted labels", "the array of true labels")
        image = ImageEvaluation("array", None, None, match(expected, found, thresholds))
        return Evaluation((image,), pool([image.matching]))
    if len(paths) == 1:
        raise DatasetError(f"{paths[0]} is a path and its partner an array: give two arrays or two paths.")
    return _evaluate_paths(Path(paths[0]), Path(paths[1]), thresholds, masks)


def _evaluate_paths(predicted: Path, truth: Path, thresholds: Sequence[float], masks: Masks) -> Evaluation:
    for path in (predicted, truth):
        if not path.exists():
            raise DatasetError(f"{path} does not exist; give a label image or a folder of label images.")
    if _is_folder(predicted) != _is_folder(truth):
        file, folder = (truth, predicted) if _is_folder(predicted) else (predicted, truth)
        raise DatasetError(f"{file} is a file but {folder} is a folder; give two files or two folders.")
    if not _is_folder(predicted):
        written = contents(predicted.absolute().parent).written(predicted)
        labels = read_both(predicted, truth, masks)
        image, warnings = _compare(truth.stem, predicted, truth, labels, thresholds, masks, written=written)
        return Evaluation((image,), pool([image.matching]), warnings=warnings)
    results = _results_in(predicted)
    predictions, truths = results or _truths_in(predicted), _truths_in(truth)
    partners = _partners(predictions, truths, predicted)
    images, failed, all_warnings = list[ImageEvaluation](), list[str](), list[str]()
    for name in sorted(truths):
        files = predictions[partners[name]], truths[name]
        try:
            labels = read_both(*files, masks)
        except (ImageError, OSError) as error:
            failed.append(str(error))
            continue
        image, warnings = _compare(name, *files, labels, thresholds, masks, written=bool(results))
        images.append(image)
        all_warnings += warnings
    if not images:
        raise ImageError(failed[0])
    left_out = tuple(sorted(set(predictions) - set(partners.values())))
    scores = pool(image.matching for image in images)
    return Evaluation(tuple(images), scores, left_out, tuple(failed), tuple(all_warnings))


def _partners(predictions: Mapping[str, Path], truths: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """The name of the prediction of each true label image: the same, or alike but for marks, or, where no other is
    named so, but for the folder."""
    partners: dict[str, str] = {}
    free = predictions.keys() - truths.keys()
    for alike in (_without_marks, _without_folder):
        found, wanted = defaultdict[str, list[str]](list), Counter(map(alike, truths))
        for name in sorted(free - set(partners.values())):
            found[alike(name)].append(name)
        for name in sorted(truths.keys() - predictions.keys() - partners.keys()):
            several = found[alike(name)] if wanted[alike(name)] == 1 else []
            if len(several) > 1:
                raise DatasetError(f"{folder} has {' and '.join(several)} for {truths[name]}: take one of them away.")
            if several:
                partners[name] = several[0]
    partners |= {name: name for name in truths.keys() & predictions.keys()}
    missing = sorted(truths.keys() - partners.keys())
    if missing:
        others = f" and {len(missing) - 1} more have" if len(missing) > 1 else " has"
        raise DatasetError(
            f"{truths[missing[0]]}{others} no predicted partner in {folder}: let nucleate predict segment the images "
            "of these masks into that folder first, or give the masks that belong to it."
        )
    return partners


def _without_marks(name: str) -> str:
    *folders, file = name.split("/")
    return "/".join([*(one for one in folders if not names.is_image_folder(one)), names.core(file)])


def _without_folder(name: str) -> str:
    return names.core(name.rpartition("/")[2])


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """The pooled scores, each image's own and the files they come from, as JSON knows them."""
    return {
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
        "failed": list(evaluation.failed),
    }


def _array(values: Any, which: str, masks: Masks) -> Labels:
    """A label image from an array."""
    where = f"The array of {which} labels"
    array = np.asarray(values)
    if array.ndim != 2 or array.size == 0:
        raise ImageError(f"{where} has shape {array.shape}: give one label image, (height, width).")
    found = interpret(as_labels(array, where), masks)
    if found.mistake is not None:
        raise ImageError(found.mistake.sentence(where))
    return found.labels


def read_both(predicted: Path, truth: Path, masks: Masks = "auto") -> tuple[Labels, Labels]:
    """Predicted and true labels of one image, of one size where outlines leave it open."""

    def read(path: Path, shape: tuple[int, int] | None = None) -> Labels:
        return read_label_file(path, shape, colours=masks == "colours").labels

    found, expected = read(predicted), read(truth)
    if found.shape != expected.shape:  # outlines do not say how far their image reaches beyond them
        height, width = (max(sides) for sides in zip(found.shape, expected.shape, strict=True))
        found, expected = read(predicted, (height, width)), read(truth, (height, width))
    return found, expected


def _compare(
    name: str,
    predicted: Path,
    truth: Path,
    labels: tuple[Labels, Labels],
    thresholds: Sequence[float],
    masks: Masks,
    *,
    written: bool,
) -> tuple[ImageEvaluation, tuple[str, ...]]:
    """The scores of one image, and what may be wrong with its true labels.

    What prediction has `written` is numbered, whatever it looks like.
    """
    found, expected = labels
    _check_sizes(found, expected, predicted, truth)
    if not written:
        found, _ = _taken(found, predicted, masks)
    expected, warnings = _taken(expected, truth, masks)
    image = ImageEvaluation(name, predicted, truth, match(expected, found, thresholds))
    if predicted.samefile(truth):
        warnings = (*warnings, "It is compared with itself.")
    elif was_changed(truth) is False:
        warnings = (*warnings, "It is what nucleate predict found, and nobody has changed it: it is no true mask.")
    return image, tuple(f"{truth}: {oddity}" for oddity in warnings)


def _check_sizes(found: Labels, expected: Labels, predicted: object, truth: object) -> None:
    if found.shape != expected.shape:
        sizes = [" x ".join(str(side) for side in labels.shape) for labels in (found, expected)]
        raise ImageError(
            f"{predicted} is {sizes[0]} pixels (height x width) but {truth} is {sizes[1]}; "
            f"both must be of one image at one size."
        )


def _taken(labels: Labels, path: Path, masks: Masks) -> tuple[Labels, tuple[str, ...]]:
    """Labels as they are to be scored, and what may be wrong with them; refuses what surely is."""
    found = interpret(labels, masks, outlines=is_outlines(path))
    if found.mistake is not None:
        raise ImageError(found.mistake.sentence(str(path)))
    return found.labels, found.oddities


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder of files, and no OME-Zarr image."""
    return path.is_dir() and not is_zarr(path)


def _truths_in(folder: Path) -> dict[str, Path]:
    """The true label images of a folder by the names of their images: of a data set, or all that there are."""
    try:
        dataset = find(folder)
    except DatasetError:
        return _label_files(folder)
    if not dataset.labelled and dataset.notes:
        raise DatasetError(f"{folder} holds no label image that is read. {dataset.notes[0]}")
    if not dataset.labelled:
        return _label_files(folder)
    found = {sample.name: sample.mask for sample in dataset.labelled if sample.mask is not None}
    if together := next((mask for mask in found.values() if mask.suffix == ".json" and coco_file(mask)), None):
        raise DatasetError(
            f"{together} is COCO, which holds the masks of many images: write one for each with nucleate convert, and"
            " compare with those."
        )
    return found


def _results_in(folder: Path, prefix: str = "", depth: int = 3) -> dict[str, Path]:
    """What `nucleate predict` wrote into a folder and its subfolders, by the names of the images."""
    here = contents(folder)
    found = _results(here, prefix)
    for sub in here.folders if depth else ():
        found |= _results_in(sub, f"{prefix}{sub.name}/", depth - 1)
    return found


def _results(here: Contents, prefix: str) -> dict[str, Path]:
    """What prediction wrote into a folder, of each image one file that holds labels."""
    found = defaultdict[str, list[Path]](list)
    for kind in LABEL_FORMATS:
        for file, (name, of) in here.results.items():
            if of == kind and (here.folder / file).exists():
                found[prefix + name].append(here.folder / file)
    return {name: current(files) for name, files in found.items()}


def _label_files(folder: Path) -> dict[str, Path]:
    """The label images of a folder of nothing else, by their names without extension and mark."""
    here = contents(folder)
    holder = next((sub for sub in here.folders if names.is_mask_folder(sub.name)), None)
    here = here if holder is None else contents(holder)
    found = _labels_by_name(here, "")
    if not found:
        for sub in here.folders:
            found |= _labels_by_name(contents(sub), f"{sub.name}/")
    if not found:
        raise DatasetError(f"{here.folder} holds no label image; put .tif or .png label images there.")
    return found


def _labels_by_name(here: Contents, prefix: str) -> dict[str, Path]:
    """Once one label image bears a mark, only those that do count; of several formats of one image, the first."""
    files = sorted((kind, file) for file in here.masks if (kind := _kind(file)) is not None)
    if any(kind == _MARKED for kind, _ in files):
        files = [(kind, file) for kind, file in files if kind != _UNMARKED]
    found: dict[str, tuple[int, Path]] = {}
    for kind, file in files:
        name = prefix + (names.of_mask(name_of(file)) or name_of(file))
        if name in found and found[name][0] == kind:
            raise DatasetError(f"{found[name][1]} and {file.name} are both label images of {name}; take one away.")
        found.setdefault(name, (kind, file))
    return {name: file for name, (_, file) in found.items()}


_MARKED, _ZARR, _GEOJSON, _ROIS, _UNMARKED = range(5)


def _kind(path: Path) -> int | None:
    """How surely a file holds labels, the surest first; None for what does not."""
    ending = path.suffix.lower()
    if path.is_dir():
        return _ZARR if holds_labels(path) else None
    if ending in (".tif", ".tiff", ".png"):
        return _MARKED if names.of_mask(name_of(path)) is not None else _UNMARKED
    return {".geojson": _GEOJSON, ".json": _GEOJSON, ".zip": _ROIS}.get(ending)
