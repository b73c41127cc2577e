"""A model folder: weights and everything that is needed to use them and to know where they come from.

weights.safetensors   the folded network: plain convolutions
model.json            `Manifest`, checked when read; it holds the checksum of the weights and is written last
history.jsonl         one line an epoch
prototypes.safetensors  points that stand for the training images (`prototypes`); not needed to predict
replay.safetensors    crops of the training images, for on-line learning; not needed to predict
corrections/          what was corrected: images and masks; not needed to predict
online/               the weights after corrections, which model.json then names, and the state of the learner
curves.png            the same as a picture; not needed to predict
README.md             the card: what it was trained on, how it scores, how to use it; not needed either
report.html           what it finds in the images held out, beside the truth; not needed either
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from nucleate.data.normalization import Normalisation
from nucleate.errors import ModelError
from nucleate.io.atomic import atomic
from nucleate.networks.embedding import statistics
from nucleate.networks.manifest import (
    FORMAT,
    PARTS,
    ArchitecturePart,
    EpochRow,
    Manifest,
    PartName,
    fault,
    renamed,
    upgraded,
)
from nucleate.networks.prototypes import Prototypes
from nucleate.networks.unet import Architecture, UNet
from nucleate.sentences import command
from nucleate.types import Thresholds

WEIGHTS, MANIFEST, HISTORY, CURVES, CARD, REPORT, PROTOTYPES, REPLAY = (
    "weights.safetensors",
    "model.json",
    "history.jsonl",
    "curves.png",
    "README.md",
    "report.html",
    "prototypes.safetensors",
    "replay.safetensors",
)
FILES = (WEIGHTS, MANIFEST, HISTORY, CURVES, CARD, PROTOTYPES, REPLAY)
"""What may be written into a model folder."""

UNFINISHED = "training.safetensors"
"""In place of the others: the state of a run that is not finished (see `nucleate.training.checkpoint`)."""

EMBEDDED = ("fluorescence", "brightfield")
"""The models inside the package, by name."""


@dataclass(frozen=True, slots=True)
class Model:
    """A trained network with its manifest. `folder` is where it was read from; `prototypes` stand for the training
    images, None where the folder holds none."""

    network: UNet
    manifest: Manifest
    folder: Path
    prototypes: Prototypes | None = None

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(**self.manifest.thresholds.model_dump())

    @property
    def normalisation(self) -> Normalisation:
        return Normalisation(**self.manifest.normalisation.model_dump())


def locate(name: str) -> Path:
    """The folder of a model: of an embedded one by its name, unless a model folder of that name is there. `./NAME` is
    always a folder.

    >>> locate("fluorescence").parent.name, locate("./fluorescence").as_posix()
    ('pretrained', 'fluorescence')
    """
    if name in EMBEDDED and not is_hidden(name):
        return Path(str(resources.files("nucleate") / "networks" / "pretrained" / name))
    return Path(name)


def embedded_folders() -> tuple[Path, ...]:
    """Those of the models inside the package."""
    return tuple(Path(str(resources.files("nucleate") / "networks" / "pretrained" / one)).resolve() for one in EMBEDDED)


def is_hidden(name: str) -> bool:
    """Whether the embedded model of this name is hidden by a model folder in the working directory."""
    return name in EMBEDDED and (Path(name) / MANIFEST).is_file()


def encode_weights(network: UNet, *, half: bool = False, parts: Sequence[PartName] = PARTS) -> bytes:
    """The folded weights of these parts as a safetensors file; `half` stores them in float16, half the size."""
    tensors = network.folded().state_dict()
    kind = torch.float16 if half else torch.float32
    kept = {name: t for name, t in tensors.items() if name.partition(".")[0] in parts}
    encoded: bytes = save_tensors({name: t.detach().cpu().to(kind).contiguous() for name, t in kept.items()})
    return encoded


def write(
    folder: Path,
    manifest: Manifest,
    weights: bytes,
    history: Sequence[Mapping[str, Any]],
    extra: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model folder, `extra` files of it by their names among them.

    The manifest is written last, so that a folder with a manifest is whole.
    """
    lines = "".join(json.dumps(dict(row)) + "\n" for row in history)
    parts = {
        WEIGHTS: weights,
        HISTORY: lines.encode(),
        **(extra or {}),
        MANIFEST: (manifest.model_dump_json(indent=2) + "\n").encode(),
    }
    for name, content in parts.items():
        with atomic(folder / name) as file:
            file.write(content)


def read(folder: Path, *, whole: bool = True) -> Model:
    """Read a model folder.

    Args:
        folder: the model folder.
        whole: refuse a model that holds only some parts of the network; else the others are as they are initialised.

    Raises:
        ModelError: a file is missing, cut or altered, which is named; or the model is not whole.
    """
    manifest = read_manifest(folder)
    path = folder / (WEIGHTS if manifest.corrections is None else manifest.corrections.weights)
    content = described(path, manifest.weights_sha256)
    part = manifest.architecture
    if whole and part.parts != PARTS:
        raise ModelError(
            f"{folder} is pre-trained and finds no nuclei yet (it holds the {' and '.join(part.parts)} of a network"
            f" alone): train a model from it, {command('train', 'FOLDER', '--from', folder, '--out', 'MODEL')}."
        )
    network = _network(manifest.architecture, content, path)
    if manifest.engines is not None:
        convolutions = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
        unknown = manifest.engines.ranges.keys() - convolutions
        if unknown:
            raise ModelError(
                f"{folder / MANIFEST} is cut or altered at engines.ranges (the network has no convolution"
                f" {min(unknown)}): copy the model again."
            )
    return Model(network, manifest, folder, _prototypes(folder / PROTOTYPES, manifest))


def described(path: Path, sha256: str) -> bytes:
    """The content of a file whose checksum the manifest holds."""
    content = _content(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(f"{path} is not the file that {MANIFEST} describes (cut or altered): copy the model again.")
    return content


def _prototypes(path: Path, manifest: Manifest) -> Prototypes | None:
    if manifest.prototypes_sha256 is None:
        return None
    content = described(path, manifest.prototypes_sha256)
    try:
        found = Prototypes.decoded(content)
        if found.points.shape[1] != statistics(manifest.architecture.widths):
            raise ValueError("other widths")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} does not fit the architecture in {MANIFEST}: copy the model again.") from error
    return found


def _network(part: ArchitecturePart, content: bytes, path: Path) -> UNet:
    """The network whose weights are a safetensors file; parts that it does not hold are as they are initialised."""
    try:
        tensors = {renamed(name): t.float() for name, t in load_tensors(content).items()}
        # Before memory is taken for a network: the largest tensors of it must be in the file.
        blocks = [tensors[f"encoder.blocks.{level}.first.weight"].shape for level in range(len(part.widths) - 1)]
        if blocks != [(width, width, 3, 3) for width in part.widths[1:]]:
            raise ValueError("other widths")
        network = UNet(Architecture(part.channels, part.classes, part.widths)).folded()
        others = {name: t for name, t in network.state_dict().items() if name.partition(".")[0] not in part.parts}
        if others.keys() & tensors.keys():
            raise ValueError("weights of parts that are not named")
        network.load_state_dict(others | tensors)
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} does not fit the architecture in {MANIFEST}: copy the model again.") from error
    return network


def read_manifest(folder: Path) -> Manifest:
    """Read and check model.json alone."""
    if not folder.is_dir():
        choices = ", ".join(EMBEDDED)
        raise ModelError(
            f"There is no model {folder}: give the folder that `nucleate train` wrote, or one of {choices}."
        )
    path = folder / MANIFEST
    if not path.exists() and (folder / UNFINISHED).exists():
        raise ModelError(f"{folder} holds a training that is not finished: run its command again with --resume.")
    try:
        found = upgraded(json.loads(_content(path)))
        if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] > FORMAT:
            raise ModelError(
                f"{path} was written by a newer version of Nucleate (format {found['format']}, known up to {FORMAT}):"
                " install that version."
            )
        return Manifest.model_validate(found, strict=False)
    except ValidationError as error:
        raise ModelError(f"{path} is cut or altered at {fault(error)}: copy the model again.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is cut or altered at its text ({error}): copy the model again.") from error


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The run's history, one dict an epoch. Raises `ModelError` where it is cut, altered or missing."""
    path, epochs = folder / HISTORY, sum(training.epochs for training in read_manifest(folder).trainings)
    try:
        rows = [json.loads(line) for line in _content(path).decode().splitlines()]
        for row in rows:
            EpochRow.model_validate(row)
    except ValidationError as error:
        raise ModelError(f"{path} is cut or altered at {fault(error)}: copy the model again.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is cut or altered at its text ({error}): copy the model again.") from error
    if len(rows) != epochs:
        raise ModelError(f"{path} does not hold the {epochs} epochs of {MANIFEST}: copy the model again.")
    return rows


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: copy the model again, whole.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}).") from error
