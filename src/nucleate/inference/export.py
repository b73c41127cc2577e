"""A model as one file for other programs: ONNX, OpenVINO's own format, TorchScript, or a package for bioimage.io.

The first two hold the network with batch, height and width open, and beside it, as metadata, what a program needs to
use it: how to normalise, what the outputs mean, the thresholds. TorchScript holds all that is done to an image, from
pixels to labels.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import nucleate
from nucleate.data.normalization import HIGHEST, LOWEST
from nucleate.errors import InputError, OutputError
from nucleate.inference.backends import load
from nucleate.inference.bioimageio import Credits, package
from nucleate.inference.torchscript import labelling
from nucleate.io.atomic import atomic
from nucleate.io.ownership import refuse_replacing
from nucleate.networks.store import Model
from nucleate.networks.unet import UNIT, UNet
from nucleate.postprocess import rescale

SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt", "bioimageio": ".zip"}
"""The formats, and how the name of their file ends. OpenVINO keeps the weights beside it, in a file .bin."""

USE = {
    "onnx": """In Python:
    session = onnxruntime.InferenceSession({out})
    maps = session.run(None, {{"image": image}})[0]
    session.get_modelmeta().custom_metadata_map  # how to normalise, what the maps mean, the thresholds""",
    "openvino": """In Python:
    model = openvino.Core().read_model({out})
    maps = openvino.compile_model(model, "CPU")([image])[0]
    model.get_rt_info("nucleate")  # how to normalise, what the maps mean, the thresholds""",
    "torchscript": """In Python, with PyTorch alone:
    model = torch.jit.load({out})
    labels = model(image)  # 0 background, 1 to N the nuclei; int32, (batch, 1, height, width)""",
    "bioimageio": """Test it with bioimageio.core, which is a package of its own, then upload it to bioimage.io:
    bioimageio test {out}""",
}
"""How each is used; `image` is (batch, channels, height, width), for maps float32 and multiples of the stride high and
wide, for labels of any type and size."""

TOLERANCE = 1e-3
"""What is written differs from PyTorch by no more, absolute and relative, or it is refused."""

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Exported:
    """`files` that were written, and the largest `difference` of their outputs from PyTorch's: of maps in their units,
    of `labels` the share of pixels."""

    files: tuple[Path, ...]
    difference: float
    labels: bool = False

    @property
    def checked(self) -> str:
        """What the comparison with PyTorch showed."""
        if not self.labels:
            return f"Its output is PyTorch's within {self.difference:.1g}."
        same = "the same" if self.difference == 0 else f"the same at all but {self.difference:.1%} of the pixels"
        return f"Its labels of a drawn image and those of nucleate predict are {same}."


def export(model: Model, to: str, out: Path, *, overwrite: bool = False, credits: Credits | None = None) -> Exported:
    """Write a model as `to` to the file `out`, after its output has been held against PyTorch's; `credits` are for a
    package of bioimage.io.

    Raises `InputError` for another format or a name that does not end as the format's do, and `OutputError` where the
    file cannot be written or its output differs, and, unless it may be overwritten, where something else is in the way.
    """
    if to not in SUFFIX:
        *others, last = SUFFIX
        raise InputError(f"There is no format {to}: export --to {', '.join(others)} or {last}.")
    if credits is not None and to != "bioimageio":
        raise InputError(f"--author, --licence and --cite are for --to bioimageio: leave them out for {to}.")
    if out.suffix != SUFFIX[to]:
        raise InputError(f"{out} does not end as files for {to} do: give --out {out.stem or 'model'}{SUFFIX[to]}.")
    refuse_replacing(out, b"nucleate", overwrite=overwrite)
    if to == "openvino" and not out.exists():
        refuse_replacing(out.with_suffix(".bin"), None, overwrite=overwrite)  # weights of no description of ours
    if to == "torchscript":
        made = labelling(model, metadata(model))
        parts, difference = {out: made.content}, made.difference
    else:
        parts, difference = _maps(model, to, out, credits)
    with ExitStack() as files:
        # All are on the disk before the first gets its name; the description is named last, its weights beside it.
        for path, content in parts.items():
            file = files.enter_context(atomic(path))
            file.write(content)
            file.flush()
    return Exported(tuple(parts), difference, to == "torchscript")


def _maps(model: Model, to: str, out: Path, credits: Credits | None) -> tuple[dict[Path, bytes], float]:
    """The files of a format whose network gives maps, and the largest difference of its output from PyTorch's."""
    load("onnx")
    from nucleate.inference.onnx_graph import OPSET, to_onnx

    facts = metadata(model)
    graph = to_onnx(model.network, facts).SerializeToString()
    if to == "openvino":
        description, weights = _as_openvino(graph, facts)
        difference = _difference(model.network, _with_openvino(description, weights), out)
        return {out: description, out.with_suffix(".bin"): weights}, difference
    difference = _difference(model.network, _with_onnx_runtime(graph), out)
    return {out: graph if to == "onnx" else package(model, graph, OPSET, facts, credits)}, difference


def metadata(model: Model) -> dict[str, str]:
    """What a program needs to use the network: texts, the longer ones as JSON."""
    manifest, architecture = model.manifest, model.network.architecture
    kinds = ["nucleus"] if architecture.classes == 2 else [f"nucleus, kind {n}" for n in range(1, architecture.classes)]
    facts = {
        "channels": list(manifest.data.channels),
        "normalisation": {
            **manifest.normalisation.model_dump(),
            "lowest": LOWEST,
            "highest": HIGHEST,
            "formula": "clip((x - p_low) / (p_high - p_low), lowest, highest), percentiles p of the whole image",
        },
        "stride": architecture.stride,
        "padding": "zeros below and to the right, to a multiple of the stride",
        "outputs": [
            *(f"logit of {kind}" for kind in ("background", *kinds)),
            "logit of the heat, 1 at centres",
            f"offset to the centre along y, in units of {UNIT:g} pixels",
            f"offset to the centre along x, in units of {UNIT:g} pixels",
            f"natural logarithm of the radius in units of {UNIT:g} pixels",
        ],
        "zoom": {
            "diameters": rescale.DIAMETERS,
            "factors": rescale.FACTORS,
            "worthwhile": rescale.WORTHWHILE,
            "formula": "an image whose median nucleus has diameter d pixels is resized by z = clip(1, diameters[0] / d,"
            " diameters[1] / d), clipped to factors; by 1 where max(z, 1 / z) < worthwhile",
        },
        "thresholds": manifest.thresholds.model_dump(),
        "pixel_size": manifest.pixel_size,
    }
    texts = {
        "name": manifest.name,
        "source": manifest.data.source,
        "licence": manifest.data.licence,
        "weights_sha256": manifest.weights_sha256,
        "nucleate": nucleate.__version__,
    }
    return texts | {key: json.dumps(value) for key, value in facts.items()}


def _as_openvino(graph: bytes, facts: dict[str, str]) -> tuple[bytes, bytes]:
    """The two files of OpenVINO's format: the description, with the facts in its `rt_info`, and the weights."""
    openvino = load("openvino")
    read = openvino.Core().read_model(graph)
    for key, value in facts.items():
        read.set_rt_info(value, ["nucleate", key])
    try:
        # OpenVINO writes files only; the rest of the way is that of every output.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            openvino.save_model(read, path, compress_to_fp16=False)
            return path.read_bytes(), path.with_suffix(".bin").read_bytes()
    except (OSError, RuntimeError) as error:
        raise OutputError(f"OpenVINO cannot write to {tempfile.gettempdir()}: free some space there.") from error


def _with_onnx_runtime(graph: bytes) -> Run:
    session = load("onnxruntime").InferenceSession(graph, providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(None, {"image": image})[0])


def _with_openvino(description: bytes, weights: bytes) -> Run:
    core = load("openvino").Core()
    compiled = core.compile_model(core.read_model(description, weights), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: np.asarray(compiled([image])[0])


def _difference(network: UNet, run: Run, out: Path) -> float:
    """The largest difference from PyTorch, float32, on random images. Raises `OutputError` beyond `TOLERANCE`."""
    architecture = network.architecture
    sides = 2 * architecture.stride, 3 * architecture.stride
    images = torch.empty(2, architecture.channels, *sides)
    images.uniform_(LOWEST, HIGHEST, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.folded().cpu()(images)
    found = torch.from_numpy(run(images.numpy()))
    if not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise OutputError(
            f"{out} is not written: its output differs from PyTorch's by {float((found - expected).abs().max()):.2g}:"
            " install other versions of the packages of nucleate[engines]."
        )
    return float((found - expected).abs().max())
