"""A model as a TorchScript file: pixels in, labels out; or the network alone, as ONNX files have it."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from nucleate.data.synthetic import microscopy
from nucleate.errors import OutputError
from nucleate.inference.predictor import Predictor
from nucleate.inference.scripted import Scripted
from nucleate.io.axes import RGB
from nucleate.networks.runtime import device
from nucleate.networks.store import Model
from nucleate.types import Image, Labels

FACTS = "nucleate.json"
"""The file inside a TorchScript file that holds the metadata, for `_extra_files` of `torch.jit.load`."""

TOLERANCE = 1e-3
"""The labels of the file and of PyTorch tell nucleus from background alike at all but this share of pixels."""

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold: the same file at any time


@dataclass(frozen=True, slots=True)
class Labelling:
    """The `content` of a TorchScript file from pixels to labels, the `labels` that it gives of the `example`, and the
    share of pixels where they differ from those of `Predictor`."""

    content: bytes
    labels: Labels
    difference: float


def labelling(model: Model, facts: Mapping[str, str]) -> Labelling:
    """The TorchScript file from pixels to labels, with these facts in it.

    Raises `OutputError` where they differ by more than `TOLERANCE`.
    """
    script, image = Scripted(model).to(device()).eval(), example(model)
    with warnings.catch_warnings():
        # PyTorch advises against TorchScript in favour of what QuPath, Fiji and bioimage.io do not read.
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = torch.jit.script(script)
    expected = Predictor(model, engine="torch", bfloat16=False).segment(image).labels
    with torch.inference_mode():
        found = compiled(torch.from_numpy(planes(image))[None].to(device()))[0, 0].cpu().numpy()
    if np.mean((found > 0) != (expected > 0)) > TOLERANCE:
        raise OutputError(
            "The labels of the TorchScript file differ from those of nucleate predict: install another torch."
        )
    return Labelling(saved(compiled.cpu(), facts), found, float(np.mean(found != expected)))


def saved(module: nn.Module, facts: Mapping[str, str]) -> bytes:
    """A scripted or traced module as a file. What PyTorch adds for its error messages, the folders of this machine
    among it, is left out.

    Raises `OutputError` where PyTorch cannot.
    """
    assert isinstance(module, torch.jit.ScriptModule)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        whole = module.save_to_buffer(_extra_files={FACTS: json.dumps(dict(facts))})
    return packed({name: content for name, content in _members(whole) if not name.endswith(".debug_pkl")})


def packed(files: Mapping[str, bytes]) -> bytes:
    """Files by their names as a zip file, as they are: the same bytes at any time.

    >>> packed({"a": b"1"}) == packed({"a": b"1"}), len(packed({"a": b"1"})) > 0
    (True, True)
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return out.getvalue()


def _members(whole: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def example(model: Model) -> Image:
    """A drawn image for this model: stained tissue for colours, else nuclei that shine, alike in each channel."""
    names, count = tuple(model.manifest.data.channels), model.network.architecture.channels
    if names == RGB or (count == 3 and not names):
        return microscopy.tissue(0, SIDE, SIDE)[0]
    image = microscopy.fluorescence(0, SIDE, SIDE)[0]
    names = names if len(names) == count else tuple(f"channel {number}" for number in range(1, count + 1))
    return Image(image.name, np.repeat(image.pixels, count, axis=2), names)


SIDE = 256
"""Pixels, of the drawn image; a multiple of the stride of networks of up to eight levels."""


def planes(image: Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The pixels (channels, height, width), float32."""
    return np.ascontiguousarray(np.moveaxis(image.pixels, 2, 0), dtype=np.float32)
