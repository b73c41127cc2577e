"""The first images of a data set with their labels drawn in, so that a person sees whether the two fit."""

from __future__ import annotations

import zlib
from pathlib import Path

import imagecodecs
import numpy as np

from nucleate.data.dataset import find
from nucleate.data.inspect import look
from nucleate.data.masks import Masks
from nucleate.errors import DatasetError, ImageError, OutputError
from nucleate.io.atomic import atomic
from nucleate.report.overlay import draw_outlines
from nucleate.types import Image, Labels

HOW_MANY = 3

_STRIPES = 8  # pixels; what is unknown is hatched
_MARK = b"tEXtSoftware\x00nucleate"


def write_pictures(folder: Path, out: Path, masks: Masks = "auto") -> list[Path]:
    """Write the first `HOW_MANY` labelled images as PNG files with the outline of each nucleus, and hatched where the
    labels are unknown; of a folder without masks the first images.

    Raises:
        DatasetError: there is no image that can be read.
        OutputError: a file in the way is no such picture.
    """
    dataset = find(folder)
    written, refused = list[Path](), list[str]()
    for sample in dataset.labelled or dataset.unlabelled:
        if len(written) == HOW_MANY:
            break
        try:
            looked = look(sample, masks)
        except (ImageError, OSError) as error:
            refused.append(str(error))
            continue
        path = out / f"{sample.name.replace('/', '_')}_check.png"
        if path.exists() and _MARK not in path.read_bytes():
            raise OutputError(f"{path} is there already and nucleate did not write it: choose another folder.")
        with atomic(path) as file:
            file.write(_png(looked.image, looked.labels))
        written.append(path)
    if not written:
        raise DatasetError(f"No image of {folder} can be read. {refused[0]}")
    return written


def _png(image: Image, labels: Labels | None) -> bytes:
    picture = draw_outlines(image, np.zeros(image.pixels.shape[:2], np.int32) if labels is None else labels)
    if labels is not None:
        rows, columns = np.indices(labels.shape)
        hatched = (labels < 0) & ((rows + columns) % _STRIPES < _STRIPES // 2)
        picture[hatched] = picture[hatched] // 4 + 96
    data = bytes(imagecodecs.png_encode(picture, level=6))
    end = 8 + 25  # the signature and the header; a text follows that says whose picture it is
    chunk = (len(_MARK) - 4).to_bytes(4, "big") + _MARK + zlib.crc32(_MARK).to_bytes(4, "big")
    return data[:end] + chunk + data[end:]
