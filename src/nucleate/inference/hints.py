"""What a person should know of a result: nuclei of a size that is not seen well, and why there may be none at all."""

from __future__ import annotations

import numpy as np
import torch

from nucleate.data.colours import sample
from nucleate.data.normalization import HIGHEST, LOWEST
from nucleate.inference.pipeline import Pipeline
from nucleate.inference.sliding_window import judge
from nucleate.io.axes import RGB
from nucleate.networks.manifest import Manifest
from nucleate.postprocess.rescale import LARGEST
from nucleate.types import Box

SMALLEST = 7
"""Pixels; of nuclei with a smaller diameter many are missed."""

NUCLEI_UM = 5, 15
"""Micrometres; the diameters of most nuclei."""

_BRIGHT = 0.5  # of the range of an image; a ground above it is bright


def remarks(pipeline: Pipeline, manifest: Manifest, count: int) -> list[str]:
    """Sentences on the result of a pipeline that found `count` nuclei; few are found without one."""
    size = _size(pipeline)
    return size if count else [" ".join(("no nucleus was found.", *_why(pipeline, manifest), *size))]


def _size(pipeline: Pipeline) -> list[str]:
    """What there is to say of the size of the nuclei, as it was judged."""
    seen, factor = pipeline.window.diameter, pipeline.reduction
    about = f"its nuclei seem to be about {seen * factor:.0f} pixels large"
    if factor > 1:
        return [f"{about}, so it was segmented reduced by {factor}: outlines are true to about {factor} pixels."]
    if seen > LARGEST:
        return [
            f"{about}, above the {LARGEST:.0f} that are seen whole: take a coarser level (--level, --pixel-size) or"
            " shrink the image."
        ]
    if 0 < seen < SMALLEST:
        return [f"{about}, and below {SMALLEST} many are missed: take an image of higher magnification, or enlarge it."]
    return []


def _why(pipeline: Pipeline, manifest: Manifest) -> list[str]:
    """Why an image may show no nucleus to the model."""
    if pipeline.statistics.constant:
        return ["Every pixel has the same value: export the image again."]
    found = _light(pipeline, manifest)
    trained = manifest.data.median_diameter
    found.append(f"The model is for nuclei of about {trained:.0f} pixels, and sees those of {SMALLEST} to 400.")
    size = pipeline.reader.pixel_size
    if size:
        smallest, largest = (length / size for length in NUCLEI_UM)
        found.append(f"At {size:.3g} µm a pixel most nuclei are {smallest:.0f} to {largest:.0f} pixels large.")
    return found


def _light(pipeline: Pipeline, manifest: Manifest) -> list[str]:
    """Whether the image is bright where those that the model learnt from are dark."""
    statistics, reader = pipeline.statistics, pipeline.reader
    bright = float(np.median(statistics.normalise(sample(reader), reader.channels))) > _BRIGHT
    if manifest.data.channels == RGB:
        return [] if bright else ["Its ground is dark, as in fluorescence: use the model fluorescence."]
    if not bright:
        return []
    if reader.channels == RGB:
        return ["Its ground is bright, as that of stained tissue: use the model brightfield."]
    seen = _inverted(pipeline)
    if not seen:
        return [
            "Its ground is bright: is it a bright-field or phase-contrast image? Use a model that learnt from such."
        ]
    return [
        f"With light and dark exchanged it shows nuclei of about {seen:.0f} pixels: invert the image, as the model is"
        " for bright nuclei on a dark ground."
    ]


@torch.inference_mode()
def _inverted(pipeline: Pipeline) -> float:
    """The median diameter (pixels) that is seen with light and dark exchanged; 0 for no nuclei."""

    def read(box: Box) -> torch.Tensor:
        return (1 - pipeline.read_seen(box)).clamp(LOWEST, HIGHEST)

    return judge(pipeline.network, pipeline.seen.shape, read)[2] * pipeline.reduction
