"""A model folder: weights and everything that is needed to use them and to know where they come from.

weights.safetensors   the folded network: plain convolutions
model.json            `Manifest`, checked when read; it holds the checksum of the weights and is written last
history.jsonl         one line an epoch
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
from typing import Annotated, Any, Literal, Self, get_args

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from nucleate.data.normalization import Normalisation
from nucleate.errors import ModelError
from nucleate.io.atomic import atomic
from nucleate.networks.unet import Architecture, UNet
from nucleate.types import Thresholds

WEIGHTS, MANIFEST, HISTORY, CURVES, CARD, REPORT = (
    "weights.safetensors",
    "model.json",
    "history.jsonl",
    "curves.png",
    "README.md",
    "report.html",
)
EPOCH = {"epoch", "train_loss", "valid_loss", "score", "panoptic_quality"}
"""What a line of the history tells, at least."""

EMBEDDED = ("fluorescence", "brightfield")
"""The models inside the package, by name."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


PartName = Literal["encoder", "decoder", "heads"]

PARTS: tuple[PartName, ...] = ("encoder", "decoder", "heads")
"""The parts of a network, in the order of computation."""


class ArchitecturePart(_Part):
    """The network (see `nucleate.networks.unet.Architecture`), and which `parts` of it the weights hold."""

    name: Literal["unet"] = "unet"
    channels: int = Field(ge=1, le=64)
    classes: int = Field(ge=2, le=64)
    widths: tuple[Annotated[int, Field(ge=8, le=1024, multiple_of=8)], ...] = Field(min_length=1, max_length=8)
    parameters: int = Field(ge=1)
    parts: tuple[PartName, ...] = PARTS

    @field_validator("parts")
    @classmethod
    def _begin_with_the_encoder(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if not parts or parts != PARTS[: len(parts)]:
            raise ValueError("parts must be encoder, or encoder and decoder, or all three")
        return parts


class NormalisationPart(_Part):
    """Percentiles of the whole image that become 0 and 1."""

    low: float = Field(ge=0, le=100)
    high: float = Field(ge=0, le=100)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


class ThresholdsPart(_Part):
    """See `nucleate.postprocess.instances_from_maps.Thresholds`."""

    foreground: float = Field(gt=0, lt=1)
    peak_threshold: float = Field(gt=0, lt=1)
    nms_radius: float = Field(ge=0, le=4)
    assign_radius: float = Field(ge=0, le=4)
    min_area: int = Field(ge=0)
    seed_foreground: float = Field(default=0.0, ge=0, lt=1)


class DataPart(_Part):
    """What the model was trained on, in numbers."""

    source: str
    licence: str = ""
    labelled: int = Field(ge=0)
    nuclei: int = Field(ge=0)
    median_diameter: float = Field(ge=0)
    validation: str
    channels: tuple[str, ...]


class TrainingPart(_Part):
    """How the run went: its end was decided after `stop_epoch`, over-fitting began after epoch `over_fitting`."""

    seed: int
    loss: str
    epochs: int = Field(ge=0)
    steps: int = Field(ge=0)
    seconds: float = Field(ge=0)
    best_epoch: int = Field(ge=0)
    stopped: str
    stop_epoch: int | None = Field(default=None, ge=0)
    over_fitting: int | None = Field(default=None, ge=1)


EngineName = Literal["torch", "openvino", "openvino-int8"]


class EnginesPart(_Part):
    """The engines side by side: `panoptic_quality` of each on the validation images (see `nucleate.inference.select`);
    `ranges` are what the engine of 8-bit integers needs: see `nucleate.inference.quantize`."""

    panoptic_quality: dict[EngineName, Annotated[float, Field(ge=0, le=1)]]
    ranges: dict[str, tuple[FiniteFloat, FiniteFloat]] = {}

    @model_validator(mode="after")
    def _has_the_reference(self) -> Self:
        if "torch" not in self.panoptic_quality:
            raise ValueError("torch must be among the engines")
        if any(low > high for low, high in self.ranges.values()):
            raise ValueError("a range must not end before it begins")
        return self


class Ancestor(_Part):
    """A model that this one was trained from, by its name and the checksum of its weights."""

    name: str
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")


def _complete(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores in which the numbers that `nucleate info` shows are there; see `nucleate.postprocess.scores.Scores`."""
    rows = scores.get("thresholds")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("thresholds must be a list of rows")
    wanted: list[tuple[dict[str, Any], tuple[str, ...]]] = [(scores, ("panoptic_quality", "aji"))]
    wanted += [(row, ("threshold", "precision", "recall", "f1", "ap")) for row in rows]
    for part, names in wanted:
        for name in names:
            if not isinstance(part.get(name), int | float):
                raise ValueError(f"{name} must be a number")
    return scores


class Manifest(_Part):
    """model.json, format 2.

    `lineage` names the models that this one was trained from, the first of them first; `trainings` are its own, in the
    order in which they were done. Format 1 is read, too (`_upgraded`).
    """

    format: Literal[2] = 2
    name: str
    architecture: ArchitecturePart
    normalisation: NormalisationPart
    thresholds: ThresholdsPart
    pixel_size: float | None = Field(default=None, gt=0)
    data: DataPart
    lineage: tuple[Ancestor, ...] = ()
    trainings: tuple[TrainingPart, ...] = Field(min_length=1)
    scores: dict[str, Annotated[dict[str, Any], AfterValidator(_complete)]]
    versions: dict[str, str]
    engines: EnginesPart | None = None
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @property
    def training(self) -> TrainingPart:
        """The last training."""
        return self.trainings[-1]


_THRESHOLDS_1 = {
    "heat": "peak_threshold",
    "separation": "nms_radius",
    "reach": "assign_radius",
    "smallest": "min_area",
    "certainty": "seed_foreground",
}
"""What format 1 called the thresholds."""


def _upgraded(found: Any) -> Any:
    """The content of a model.json of format 1 as one of format 2; anything else as it is."""
    if not isinstance(found, dict) or found.get("format") != 1:
        return found
    manifest = {**found, "format": 2}
    if "training" in manifest:
        manifest["trainings"] = [manifest.pop("training")]
    if isinstance(manifest.get("thresholds"), dict):
        # Models of before this threshold was tuned take any seed.
        old = {"certainty": 0.0, **manifest["thresholds"]}
        manifest["thresholds"] = {_THRESHOLDS_1.get(name, name): value for name, value in old.items()}
    engines = manifest.get("engines")
    if isinstance(engines, dict) and isinstance(engines.get("measured"), dict):
        known = get_args(EngineName)
        quality = {
            name: part.get("panoptic_quality") if isinstance(part, dict) else part
            for name, part in engines["measured"].items()
            if name in known
        }
        ranges = engines.get("ranges", {})
        renamed = {_renamed(name): limits for name, limits in ranges.items()} if isinstance(ranges, dict) else ranges
        manifest["engines"] = {"panoptic_quality": quality, "ranges": renamed}
    return manifest


_MODULES_1 = (
    ("stem", "encoder.stem"),
    ("down", "encoder.down"),
    ("encode", "encoder.blocks"),
    ("up", "decoder.up"),
    ("decode", "decoder.blocks"),
    ("head", "heads.maps"),
)
"""What format 1 called the modules of the network."""


def _renamed(name: str) -> str:
    """The name of a module, or of a tensor of it, of format 1 in format 2.

    >>> _renamed("encode.0.first.weight"), _renamed("stem"), _renamed("encoder.stem.bias")
    ('encoder.blocks.0.first.weight', 'encoder.stem', 'encoder.stem.bias')
    """
    top, dot, rest = name.partition(".")
    return dict(_MODULES_1).get(top, top) + dot + rest


@dataclass(frozen=True, slots=True)
class Model:
    """A trained network with its manifest. `folder` is where it was read from."""

    network: UNet
    manifest: Manifest
    folder: Path

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(**self.manifest.thresholds.model_dump())

    @property
    def normalisation(self) -> Normalisation:
        return Normalisation(**self.manifest.normalisation.model_dump())


def locate(name: str) -> Path:
    """The folder of a model: of an embedded one by its name, unless a folder of that name is there."""
    if name in EMBEDDED and not Path(name).is_dir():
        return Path(str(resources.files("nucleate") / "networks" / "pretrained" / name))
    return Path(name)


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
    path = folder / WEIGHTS
    content = _content(path)
    if hashlib.sha256(content).hexdigest() != manifest.weights_sha256:
        raise ModelError(f"{path} is not the file that {MANIFEST} describes (cut or altered): copy the model again.")
    part = manifest.architecture
    if whole and part.parts != PARTS:
        raise ModelError(
            f"{folder} holds the {' and '.join(part.parts)} of a network alone: train a model from it first."
        )
    network = UNet(Architecture(part.channels, part.classes, part.widths)).folded()
    _load(network, content, part.parts, path)
    if manifest.engines is not None:
        convolutions = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
        unknown = manifest.engines.ranges.keys() - convolutions
        if unknown:
            raise ModelError(
                f"{folder / MANIFEST} is cut or altered at engines.ranges (the network has no convolution"
                f" {min(unknown)}): copy the model again."
            )
    return Model(network, manifest, folder)


def _load(network: UNet, content: bytes, parts: Sequence[str], path: Path) -> None:
    """Give these parts of a network the weights of a safetensors file."""
    try:
        tensors = {_renamed(name): t.float() for name, t in load_tensors(content).items()}
        others = {name: t for name, t in network.state_dict().items() if name.partition(".")[0] not in parts}
        if others.keys() & tensors.keys():
            raise RuntimeError("weights of parts that are not named")
        network.load_state_dict(others | tensors)
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path} does not fit the architecture in {MANIFEST}: copy the model again.") from error


def read_manifest(folder: Path) -> Manifest:
    """Read and check model.json alone."""
    if not folder.is_dir():
        choices = ", ".join(EMBEDDED)
        raise ModelError(
            f"There is no model {folder}: give the folder that `nucleate train` wrote, or one of {choices}."
        )
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(_upgraded(json.loads(_content(path))), strict=False)
    except (ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise ModelError(f"{path} is cut or altered at its text ({error}): copy the model again.") from error
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its text"
        raise ModelError(f"{path} is cut or altered at {where} ({first['msg']}): copy the model again.") from error


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The run's history, one dict an epoch. Raises `ModelError` where it is cut, altered or missing."""
    path, epochs = folder / HISTORY, sum(training.epochs for training in read_manifest(folder).trainings)
    try:
        rows = [json.loads(line) for line in _content(path).decode().splitlines()]
    except ValueError as error:
        raise ModelError(f"{path} is cut or altered: copy the model again.") from error
    if len(rows) != epochs or not all(isinstance(row, dict) and row.keys() >= EPOCH for row in rows):
        raise ModelError(f"{path} does not hold the {epochs} epochs of {MANIFEST}: copy the model again.")
    return rows


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: copy the model again, whole.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}).") from error


def architecture_part(architecture: Architecture) -> ArchitecturePart:
    """The architecture as the manifest holds it, with the number of its folded parameters."""
    count = sum(p.numel() for p in UNet(architecture).folded().parameters())
    return ArchitecturePart(
        channels=architecture.channels,
        classes=architecture.classes,
        widths=architecture.widths,
        parameters=count,
    )
