"""Labels from files of every format, by one route: what is in a file decides how it is read, whatever its ending says.

label image            PNG, TIFF, OME-Zarr: a number for each nucleus, or with `colours` a colour
pages, or a folder     one mask for each nucleus
GeoJSON                outlines as QuPath exports them, packed by gzip or not
ImageJ regions         a ZIP of them, or a single one
COCO                   one JSON file for many images
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import ImageError
from nucleate.io import bitmap, tiff
from nucleate.io.axes import name_of, refuse_not_finite
from nucleate.io.digest import digest_of
from nucleate.io.files import reading
from nucleate.io.formats import coco, imagej_roi, mask_stack, qupath
from nucleate.io.formats.painting import Canvas
from nucleate.io.formats.qupath import GZIP, Annotations
from nucleate.io.ome_zarr import is_zarr
from nucleate.io.prediction_json import PredictionRecord, read_record, record_file
from nucleate.io.reader import LARGEST_LABELS, open_reader, start_of, unmarked, whole
from nucleate.types import Labels, Plane

_JSON_START = re.compile(rb"(\xef\xbb\xbf)?\s*[\[{]")
_ZIP_STARTS = (b"PK\3\4", b"PK\5\6")
_NUMPY_STARTS = (b"\x93NUMPY", b"\x80\x04", b"\x80\x05")

CELLPOSE = "open it in Cellpose and choose File > Save masks as PNG/TIF (NAME_cp_masks.png)"
"""The way out of what needs pickle, which can run code of whoever wrote the file."""


@dataclass(frozen=True, slots=True)
class LabelFile:
    """The labels in a file; `notes` say what is odd about the file, and `validation` (height, width) is True where a
    person has set a part of the image aside for validation, None where nowhere."""

    labels: Labels
    notes: tuple[str, ...] = ()
    validation: NDArray[np.bool_] | None = None


def read_labels(path: Path, shape: tuple[int, int] | None = None, plane: Plane | None = None) -> Labels:
    """The labels of `read_label_file`.

    >>> import tempfile, tifffile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mask.tif"
    ...     tifffile.imwrite(path, np.array([[0, 1], [2, 2]], np.uint16))
    ...     read_labels(path)
    array([[0, 1],
           [2, 2]], dtype=int32)
    """
    return read_label_file(path, shape, plane=plane).labels


def read_label_file(
    path: Path,
    shape: tuple[int, int] | None = None,
    *,
    image: Path | None = None,
    colours: bool = False,
    plane: Plane | None = None,
) -> LabelFile:
    """Read labels from any format that `nucleate predict` writes, and any that people have.

    Integers of any width and floats with whole values are taken. A colour mask is taken where its channels are equal,
    where it is a palette (its indices are the labels), and with `colours`. A mask of one value is returned as it is:
    its nuclei are not told apart here. Outlines are filled and numbered in their order; a pixel belongs to an outline
    where its middle lies inside (`io.formats.painting`). Where they lie beside the record of their prediction
    (NAME.json), that says the region of the slide.

    Args:
        path: of the file, of an OME-Zarr folder, or of a folder with a mask for each nucleus.
        shape: (height, width) of the image that outlines belong to, in pixels; by default what they reach over.
        image: which image it is, for a file with the labels of many.
        colours: take every colour as one nucleus, black as the background.
        plane: which image of a file that holds several, and which plane of a stack of labels.

    Returns:
        int32 of shape (height, width): 0 background, 1..N one nucleus each, negative unknown.

    Raises:
        ImageError: as `read_image`, and for colours, fractions, or values outside int32.
    """
    with reading(path):
        is_folder = path.is_dir()
    if is_folder and not is_zarr(path) and path.suffix.lower() != ".zarr":
        return LabelFile(*mask_stack.read_folder(path, shape))
    start = b"" if is_folder else start_of(path)
    if _JSON_START.match(start) or start.startswith(GZIP):
        value = qupath.load(path)
        if coco.is_coco(value):
            return LabelFile(*_of_coco(path, image, shape))
        return _drawn(path, qupath.parse(value, path), shape, on_slide=True)
    if start.startswith((*_ZIP_STARTS, imagej_roi.SINGLE)):
        outlines, left_out = imagej_roi.read(path)
        return _drawn(path, Annotations(outlines, notes=list(left_out)), shape, on_slide=False)
    if start.startswith(_NUMPY_STARTS):
        way = (
            CELLPOSE
            if path.name.endswith("_seg.npy")
            else "save its labels as TIFF: tifffile.imwrite('NAME.tif', labels)"
        )
        raise ImageError(f"{path} is no label image, and reading such a file may run code in it: {way}.")
    one = plane in (None, Plane())
    if one and start.startswith(tiff.SIGNATURES) and (pages := mask_stack.read_pages(path)) is not None:
        return LabelFile(*pages)
    with open_reader(path, labels=True, plane=plane) as reader:
        values = whole(reader, path, LARGEST_LABELS, least=4)
    with reading(path):
        if colours and start.startswith(bitmap.JPEG_SIGNATURE):
            raise ImageError(f"{path} is a JPEG, which changes colours near edges: save the masks as PNG or TIFF.")
        return LabelFile(of_colours(values) if colours else as_labels(values, path))


def as_labels(values: NDArray[np.generic], where: object) -> Labels:
    """An array as a label image, int32 of shape (height, width).

    Args:
        values: whole numbers of any type, (height, width) or (height, width, channels) with equal channels.
        where: what an error names.

    Raises:
        ImageError: colours, fractions, NaN, or values outside int32.
    """
    refuse_not_finite(values, where)
    if values.ndim == 3:
        if not (values == values[..., :1]).all():
            raise ImageError(
                f"{where} is a mask with {values.shape[2]} different channels: save it with one channel, a number for"
                " each nucleus and 0 for the background, or say with --masks colours that each colour is one nucleus."
            )
        values = values[..., 0]
    if values.dtype.kind not in "buif":
        raise ImageError(f"{where} is a mask of type {values.dtype}: save it as 16-bit integers.")
    if values.dtype.kind == "f" and (values != np.trunc(values)).any():
        raise ImageError(f"{where} is a mask with fractions in it: save whole numbers, one for each nucleus.")
    lowest, highest = values.min(), values.max()
    limit = np.iinfo(np.int32)
    if int(lowest) < limit.min or int(highest) > limit.max:
        raise ImageError(f"{where} is a mask with values from {lowest} to {highest}: number its nuclei from 1.")
    return np.ascontiguousarray(values, dtype=np.int32)


def of_colours(values: NDArray[np.generic]) -> Labels:
    """Labels of an array (height, width, channels) in which each colour is one nucleus and black, all 0, is background;
    numbered in the order of the colours.

    >>> of_colours(np.array([[[0, 0, 0], [9, 0, 1]], [[2, 7, 7], [9, 0, 1]]])).tolist()
    [[0, 2], [1, 2]]
    """
    flat = values.reshape(-1, values.shape[-1])
    colours, of = np.unique(flat, axis=0, return_inverse=True)
    black = int((colours[:1] == 0).all())
    return np.asarray(of.reshape(values.shape[:2]) + (1 - black), np.int32)


def _of_coco(path: Path, image: Path | None, shape: tuple[int, int] | None) -> tuple[Labels, tuple[str, ...]]:
    found = coco.load(path)
    name = found.of(image) if image is not None else next(iter(found.images)) if len(found.images) == 1 else None
    if name is None:
        asked = "" if image is None else f" and none, or several, called {image.name}"
        raise ImageError(
            f"{path} holds the nuclei of {len(found.images)} images{asked}: nucleate convert writes a label image for"
            " each image that it names."
        )
    return coco.paint(found, name, shape)


def _drawn(path: Path, found: Annotations, shape: tuple[int, int] | None, *, on_slide: bool) -> LabelFile:
    """Outlines as labels; `on_slide` where their coordinates are those of the whole slide at full resolution."""
    record = _record_of(path)
    if record is not None:
        found = found.moved(record.downsample if on_slide else 1.0, record.origin)
        shape = record.shape
    if shape is None:
        every = (*found.nuclei, *found.training, *found.validation, *found.unknown)
        corners = np.concatenate([np.ones((1, 2)), *(ring for rings in every for ring in rings)])
        shape = int(np.ceil(corners[:, 1].max())), int(np.ceil(corners[:, 0].max()))
    if shape[0] * shape[1] * 4 > LARGEST_LABELS:
        raise ImageError(
            f"{path} reaches over {shape[0]} x {shape[1]} pixels, above the limit of {LARGEST_LABELS // 4}: cut it up"
            " first."
        )
    with reading(path):
        canvas = Canvas(shape, path)
        for rings in found.nuclei:
            canvas.add(rings)
        labels, validation = canvas.labels, None
        if found.training or found.validation:
            validation = canvas.area(found.validation)
            labels = _known(labels, validation | canvas.area(found.training))
            validation = _whole(labels, validation) if found.validation else None
        if found.unknown:
            labels[canvas.area(found.unknown)] = -1
        return LabelFile(labels, (*found.notes, *canvas.notes()), validation)


def _known(labels: Labels, known: NDArray[np.bool_]) -> Labels:
    """Labels of what was labelled: all outside is unknown, and so is what lies inside of a nucleus that for the larger
    part lies outside, as nobody may have drawn it whole."""
    count = int(labels.max(initial=0)) + 1
    area, inside = (np.bincount(labels[where], minlength=count) for where in (labels > 0, (labels > 0) & known))
    cut = 2 * inside < area
    return np.where(known & ~cut[labels], labels, -1).astype(np.int32)


def _whole(labels: Labels, part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A part of an image, with each nucleus in it whole, or not at all: by where the larger part of it is."""
    positive = np.maximum(labels, 0)
    area = np.bincount(positive.ravel())
    inside = np.bincount(positive[part], minlength=area.size)
    return np.where(positive > 0, (2 * inside >= area)[positive], part)


def was_changed(path: Path) -> bool | None:
    """Whether a result of `nucleate predict`, a file or an OME-Zarr folder, was changed since it was written; None for
    what is no result, and where its record has no digest of it."""
    record = _record_of(path)
    written = {} if record is None else {file: record.digests.get(kind) for kind, file in record.files.items()}
    digest = written.get(path.name)
    return None if digest is None else digest != digest_of(path)


def _record_of(path: Path) -> PredictionRecord | None:
    """The record of the prediction that wrote a file, where it lies beside it."""
    beside = path.with_name(record_file(unmarked(name_of(path))))
    record = read_record(beside) if beside.is_file() else None
    return record if record is not None and path.name in record.files.values() else None
