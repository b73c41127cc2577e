"""What lies in one folder: images, masks, what `nucleate predict` wrote, and what is there but cannot be read."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nucleate.errors import DatasetError, ImageError, InputError
from nucleate.io.formats import FORMATS, entropy_tiff
from nucleate.io.label_file import CELLPOSE, was_changed
from nucleate.io.ome_zarr import holds_labels, is_zarr
from nucleate.io.prediction_json import KIND, read_record
from nucleate.io.reader import holds_outlines, is_image

LABEL_FORMATS = ("tif", "zarr", "geojson", "roi")
"""The formats of `nucleate predict` that hold labels, the one to read first."""

_MICROSCOPES = (
    "lsm",
    "oib",
    "oif",
    "vsi",
    "dv",
    "ims",
    "mrxs",
    "scn",
    "qptiff",
    "zvi",
    "stk",
    "flex",
)
_OTHER_IMAGES = ("bmp", "gif", "webp", "jp2", "jxl", "dcm", "heic", "psd", "pgm", "ppm", "nii", "mha", "mhd", "nrrd")
_ARRAYS = ("npy", "npz", "h5", "hdf5", "mat")
_ANNOTATIONS = {
    "_seg.npy": ("Cellpose", CELLPOSE),
    ".npy": ("NumPy", "save each array as a label image: tifffile.imwrite('NAME.tif', labels)"),
    ".npz": ("NumPy", "save each array as a label image: tifffile.imwrite('NAME.tif', labels)"),
    ".mat": ("MATLAB", "save each array as a label image: imwrite(uint16(labels), 'NAME.tif')"),
    ".h5": ("HDF5", "export them from the program that wrote them as TIFF"),
    ".xml": ("XML annotations", "open them in QuPath and export them as GeoJSON (NAME.geojson)"),
    ".qpdata": ("QuPath", "export the annotations from QuPath as GeoJSON (NAME.geojson)"),
    ".labeling": ("Labkit", "export them from Labkit as a label image in TIFF"),
    ".txt": ("YOLO", "write each image's outlines as GeoJSON or as a label image"),
}
_LABELME = ("labelme", "write their outlines as label images: docs/how-to/own-images.md has the lines for it")


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a folder, sorted, hidden ones left out.

    `images` are named like images and no results of prediction; `masks` may be masks, results among them; `results`
    are the names of the files that `nucleate predict` wrote, each with the name of its image and its format; `coco` are
    COCO files, each with the masks of many images; `others` are further files.
    """

    folder: Path
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    results: dict[str, tuple[str, str]]
    coco: tuple[Path, ...]
    others: tuple[Path, ...]
    folders: tuple[Path, ...]

    def written(self, mask: Path) -> bool:
        """Whether `nucleate predict` wrote this file."""
        return mask.name in self.results


def contents(folder: Path) -> Contents:
    """Look into a folder; raises `DatasetError` where it cannot be read."""
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        results = results_among(entries)
        images = [path for path in entries if path.name not in results and _may_be_image(path)]
        masks = [
            path for path in entries if results.get(path.name, ("", "tif"))[1] in LABEL_FORMATS and _may_be_mask(path)
        ]
        folders = [path for path in entries if path.is_dir() and not is_image(path)]
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read ({error.strerror}): check who may read it.") from error
    coco = [path for path in entries if path.suffix.lower() == ".json" and path not in masks and coco_file(path)]
    coco = [path for path in coco if path.name not in results]
    known = {*images, *masks, *folders, *coco}
    others = [path for path in entries if path not in known and path.name not in results]
    return Contents(folder, tuple(images), tuple(masks), results, tuple(coco), tuple(others), tuple(folders))


def results_among(entries: Iterable[Path]) -> dict[str, tuple[str, str]]:
    """What `nucleate predict` wrote, known by its NAME.json: names of files -> the image's name and the format."""
    found: dict[str, tuple[str, str]] = {}
    for path in entries:
        if path.suffix.lower() != ".json" or KIND.encode() not in _head(path):
            continue
        name = path.stem
        files = {one.name: one.file(name) for one in FORMATS.values()}
        try:
            record = read_record(path)
            files = files if record is None else record.files
        except InputError:
            pass  # its results are no images, whatever is wrong with it
        extra = {"overlay": f"{name}_overlay.png", "entropy": f"{name}{entropy_tiff.ENDING}", "record": path.name}
        found.update({file: (name, kind) for kind, file in (extra | files).items()})
    return found


def skipped(files: Sequence[Path]) -> list[str]:
    """A sentence for each kind of images that cannot be read: how many there are, and the way out."""
    unread = [path for path in files if not is_image(path) and not path.name.endswith("_seg.npy")]
    kinds = Counter(path.name.lower().removesuffix(".gz").rpartition(".")[2] for path in unread)
    ways = (
        (_MICROSCOPES, "open them in Fiji (Plugins > Bio-Formats) and save them as TIFF"),
        (_OTHER_IMAGES, "open them in Fiji and save them as TIFF or PNG"),
        (_ARRAYS, "save each plane as TIFF: tifffile.imwrite('NAME.tif', array)"),
    )
    sentences = []
    for endings, way in ways:
        present = [f"{kinds[ending]} {ending.upper()}" for ending in endings if kinds[ending]]
        if present:
            sentences.append(f"Skipped, as they cannot be read: {', '.join(present)}; {way}.")
    return sentences


def unread_annotations(files: Sequence[Path], images: Iterable[str]) -> tuple[str, list[Path], str] | None:
    """Masks in a form that is not read: the name of the form, its files, and the way out; None where there are none.

    `images` are the names of the images that files must bear to be taken for theirs.
    """
    named = set(images)
    found: dict[tuple[str, str], list[Path]] = {}
    for path in files:
        for ending, form in _ANNOTATIONS.items():
            if path.name.lower().endswith(ending) and path.name[: -len(ending)] in named and _is_annotation(path):
                found.setdefault(form, []).append(path)
                break
        if path.suffix.lower() == ".json":
            head = _head(path, 1 << 16)
            if b'"shapes"' in head and path.stem in named:
                found.setdefault(_LABELME, []).append(path)
    if not found:
        return None
    (program, way), paths = max(found.items(), key=lambda item: len(item[1]))
    return program, paths, way


def _is_annotation(path: Path) -> bool:
    """Whether a text file of an image's name holds outlines, and not what a microscope notes beside its images."""
    if path.suffix.lower() == ".xml":
        return b"<annotation" in _head(path, 4096).lower()
    return path.suffix.lower() != ".txt" or re.match(rb"\d+( [\d.]+){4}", _head(path)) is not None


def coco_file(path: Path) -> bool:
    """Whether a JSON file begins as those of COCO do, in whatever order its parts are."""
    head = _head(path, 1 << 16)
    return b'"shapes"' not in head and (
        b'"annotations"' in head or b'"image_id"' in head or (b'"images"' in head and b'"file_name"' in head)
    )


def _head(path: Path, size: int = 256) -> bytes:
    """How a file begins; nothing of one that cannot be read."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def _may_be_image(path: Path) -> bool:
    """Whether it is named like an image, and a folder is OME-Zarr and not the labels of an image beside it."""
    if not is_image(path) or not path.is_dir():
        return is_image(path)
    try:
        return is_zarr(path) and not holds_labels(path)
    except ImageError:
        return True  # what is wrong with it is said where it is read


def _may_be_mask(path: Path) -> bool:
    if path.is_dir():
        return is_image(path) and is_zarr(path)
    if is_image(path) or holds_outlines(path):
        return True
    if path.suffix.lower() == ".zip":
        return _holds_rois(path)
    return path.suffix.lower() == ".json" and b'"Feature' in _head(path)


def _holds_rois(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.lower().endswith(".roi") for name in archive.namelist()[:100])
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def current(files: Sequence[Path]) -> Path:
    """Of files with the result of one image, the one that was corrected since, else the first.

    Raises:
        DatasetError: several were changed, and so may differ.
    """
    changed = [file for file in files if was_changed(file)] if len(files) > 1 else []
    if len(changed) > 1:
        raise DatasetError(
            f"{changed[0]} and {changed[1].name} were both changed since nucleate predict wrote them: keep the one that"
            " is right."
        )
    return changed[0] if changed else files[0]
