"""A model as a package for bioimage.io: `rdf.yaml` of format 0.5, weights, test tensors, cover and documentation.

Weights in one package must agree, so both files of weights, ONNX and TorchScript, hold the network alone: normalised
image in, maps out. The TorchScript file from pixels to labels is attached.

The format: https://bioimage.io/docs (the model description of bioimageio.spec). The description is written as JSON,
which is YAML, too.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray

from nucleate.data.normalization import HIGHEST, LOWEST
from nucleate.errors import InputError
from nucleate.inference.scripted import traced
from nucleate.inference.torchscript import example, labelling, packed, planes, saved
from nucleate.networks.store import CARD, Model, embedded_folders
from nucleate.report.overlay import draw_outlines
from nucleate.sentences import count
from nucleate.types import Image, Labels

FORMAT = "0.5.4"

EPSILON = 1e-6
"""What the format adds to the range of an image before it divides by it, where nothing else is said."""

ONNX, NETWORK, LABELS, RDF, README, COVER = (
    "network.onnx",
    "network.pt",
    "labels.pt",
    "rdf.yaml",
    "README.md",
    "cover.png",
)


@dataclass(frozen=True, slots=True)
class Credits:
    """Who made a model: names of `authors`, the SPDX identifier of its `licence`, DOIs or addresses to `cite`.

    Raises `InputError` for what the format does not take.
    """

    authors: tuple[str, ...] = ()
    licence: str | None = None
    cite: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.authors:
            if not name.strip() or "/" in name:
                raise InputError(f"--author is {name!r}: give a name, without a slash.")
        if self.licence is not None and not re.fullmatch(r"[A-Za-z0-9.+-]+", self.licence):
            raise InputError(
                f"--licence is {self.licence!r}: give an identifier of https://spdx.org/licenses, such as CC-BY-4.0."
            )
        for one in self.cite:
            if not re.fullmatch(r"10\.\d+/\S+|https?://\S+", one):
                raise InputError(f"--cite is {one!r}: give a DOI, such as 10.1038/s41592-019-0612-7, or an address.")

    def entries(self) -> dict[str, Any]:
        """These as the format has them."""
        cited = [{"text": one, "url" if one.startswith("http") else "doi": one} for one in self.cite]
        return {
            "authors": [{"name": name} for name in self.authors],
            "cite": cited,
            **({} if self.licence is None else {"license": self.licence}),
        }


EMBEDDED = Credits(("Nucleate contributors",), "Apache-2.0", ("10.1038/s41592-019-0612-7",))
"""Of the models inside the package where nothing else is said; cited is the paper of the images that they learnt from:
Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", 2019."""


def package(model: Model, graph: bytes, opset: int, facts: Mapping[str, str], credits: Credits | None = None) -> bytes:
    """The package as a zip file; `graph` is the network as ONNX of this operator set, `facts` its metadata.

    Raises `OutputError` where the labels of the attached file differ from those of `Predictor`.
    """
    if credits is None:
        own = model.folder.resolve() in embedded_folders()
        credits = EMBEDDED if own else Credits()
    image = example(model)
    pixels = planes(image)[None]
    made = labelling(model, facts)
    network = traced(model.network)
    with torch.inference_mode():
        maps = network(torch.from_numpy(normalised(model, pixels))).numpy()
    files = {
        ONNX: graph,
        NETWORK: saved(network, facts),
        LABELS: made.content,
        "image.npy": _npy(pixels),
        "maps.npy": _npy(maps),
        COVER: _cover(image, made.labels),
        README: _documentation(model, facts, credits).encode(),
    }
    text = json.dumps(_description(model, files, opset, facts, credits), indent=2, allow_nan=False)
    return packed({RDF: text.encode() + b"\n", **files})


def normalised(model: Model, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixels as the network is to see them, by the steps that the description names."""
    low, high = np.percentile(pixels, (model.normalisation.low, model.normalisation.high))
    return np.asarray(np.clip((pixels - low) / (high - low + EPSILON), LOWEST, HIGHEST), dtype=np.float32)


def map_names(classes: int) -> list[str]:
    """The names of the network's outputs.

    >>> map_names(2)
    ['background', 'nucleus', 'heat', 'offset_y', 'offset_x', 'log_radius']
    """
    kinds = ["nucleus"] if classes == 2 else [f"nucleus_{number}" for number in range(1, classes)]
    return ["background", *kinds, "heat", "offset_y", "offset_x", "log_radius"]


def title(name: str) -> str:
    """The name of a model in the letters and the length that the format takes.

    >>> title("fluorescence"), title("Zellkerne_ä.2")
    ('Nucleate fluorescence', 'Nucleate Zellkerne_--2')
    """
    return ("Nucleate " + re.sub(r"[^A-Za-z0-9_+\- ()]", "-", name))[:64].strip()


def _description(
    model: Model, files: Mapping[str, bytes], opset: int, facts: Mapping[str, str], credits: Credits
) -> dict[str, Any]:
    manifest, architecture = model.manifest, model.network.architecture

    def file(name: str, **more: Any) -> dict[str, Any]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest(), **more}

    def axes(names: list[str], size: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        sizes = {side: size or {"tensor_id": "image", "axis_id": side} for side in "yx"}
        space = [{"type": "space", "id": side, "size": sizes[side]} for side in "yx"]
        return [{"type": "batch"}, {"type": "channel", "channel_names": names}, *space]

    stride = architecture.stride
    scale = {
        "axes": ["channel", "y", "x"],
        "min_percentile": manifest.normalisation.low,
        "max_percentile": manifest.normalisation.high,
    }
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": title(manifest.name),
        "description": _summary(model),
        **credits.entries(),
        "covers": [file(COVER)],
        "documentation": file(README),
        "attachments": [file(LABELS)],
        "tags": ["nuclei", "instance-segmentation", "2d", "microscopy", "nucleate"],
        "git_repo": "https://github.com/nucleate/nucleate",
        "inputs": [
            {
                "id": "image",
                "description": "The image, its intensities as they are.",
                "axes": axes(_channels(model), {"min": stride, "step": stride}),
                "data": {"type": "float32"},
                "test_tensor": file("image.npy"),
                "preprocessing": [
                    {"id": "scale_range", "kwargs": scale},
                    {"id": "clip", "kwargs": {"min": LOWEST, "max": HIGHEST}},
                ],
            }
        ],
        "outputs": [
            {
                "id": "maps",
                "description": "What README.md says of each map; labels.pt makes labels of them.",
                "axes": axes(map_names(architecture.classes), None),
                "data": {"type": "float32"},
                "test_tensor": file("maps.npy"),
            }
        ],
        "weights": {
            "torchscript": file(NETWORK, pytorch_version=torch.__version__.partition("+")[0]),
            "onnx": file(ONNX, opset_version=opset, parent="torchscript"),
        },
        "config": {"nucleate": dict(facts)},
    }


def _channels(model: Model) -> list[str]:
    names, number = list(model.manifest.data.channels), model.network.architecture.channels
    return names if len(names) == number else [f"channel {n}" for n in range(1, number + 1)]


def _summary(model: Model) -> str:
    channels = _channels(model)
    data = model.manifest.data
    return (
        f"Finds nuclei in images with {count(len(channels), 'channel')} ({', '.join(channels)}). Trained with Nucleate"
        f" on {count(data.labelled, 'labelled image')} with {count(data.nuclei, 'nucleus', 'nuclei')}."
    )[:512]


def _documentation(model: Model, facts: Mapping[str, str], credits: Credits) -> str:
    """What a person reads: how the maps become labels, how to check the model, and the model's card."""
    path = model.folder / CARD
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    # What the model learnt from, and how well; not the pictures, nor comments, nor the folder that it lay in.
    card = "".join(card.partition("\n## ")[1:]).lstrip()
    card = re.sub(r"(?m)^(!\[|<!--).*\n?", "", card)
    outputs = "\n".join(f"- {line}" for line in json.loads(facts["outputs"]))
    return f"""# {title(model.manifest.name)}

{_summary(model)}

{f"Authors: {', '.join(credits.authors)}. " * bool(credits.authors)}Licence: {credits.licence or "not said"}.

## Use

`network.onnx` and `network.pt` hold the network alone. Their output, for each pixel, in this order:

{outputs}

`labels.pt`, attached, is a TorchScript file from the image, as it is, to labels: it scales intensities, resizes the
image so that its nuclei have the size that the network knows, and separates them. In Python, with PyTorch alone:

    model = torch.jit.load("labels.pt")
    labels = model(image)  # (batch, channels, height, width) -> (batch, 1, height, width), int32

## Validation

Label some images of your own, and compare:

    nucleate predict MODEL IMAGES --out found
    nucleate evaluate found MASKS

{card}"""


def _cover(image: Image, labels: Labels) -> bytes:
    """The test image beside the same with the outline of each nucleus, a PNG file twice as wide as high."""
    halves = [draw_outlines(image, one) for one in (np.zeros_like(labels), labels)]
    return bytes(imagecodecs.png_encode(np.concatenate(halves, axis=1), level=6))


def _npy(values: NDArray[np.float32]) -> bytes:
    out = io.BytesIO()
    np.save(out, values)  # of numbers: nothing is pickled
    return out.getvalue()
