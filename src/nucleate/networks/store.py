"""A model folder: weights and everything that is needed to use them and to know where they come from.

weights.safetensors   the folded network: plain convolutions
model.json            `Manifest`, checked when read; it holds the checksum of the weights and is written last
history.jsonl         one line an epoch
curves.png            the same as a picture; not needed to predict
README.md             the card: what it was trained on, how it scores, how to use it; not needed either
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from nucleate.data.normalization import Normalisation
from nucleate.errors import ModelError
from nucleate.io.atomic import atomic
from nucleate.networks.unet import Architecture, UNet
from nucleate.types import Thresholds

WEIGHTS, MANIFEST, HISTORY, CURVES, CARD = (
    "weights.safetensors",
    "model.json",
    "history.jsonl",
    "curves.png",
    "README.md",
)
EPOCH = {"epoch", "train_loss", "valid_loss", "score", "panoptic_quality"}
"""What a line of the history tells, at least."""

EMBEDDED = ("fluorescence", "brightfield")
"""The models inside the package, by name."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArchitecturePart(_Part):
    """The network: see `nucleate.networks.unet.Architecture`."""

    name: Literal["unet"] = "unet"
    channels: int = Field(ge=1, le=64)
    classes: int = Field(ge=2, le=64)
    widths: tuple[Annotated[int, Field(ge=8, le=1024, multiple_of=8)], ...] = Field(min_length=1, max_length=8)
    parameters: int = Field(ge=1)


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
    heat: float = Field(gt=0, lt=1)
    separation: float = Field(ge=0, le=4)
    reach: float = Field(ge=0, le=4)
    smallest: int = Field(ge=0)
    certainty: float = Field(default=0.0, ge=0, lt=1)


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


EngineName = Literal["torch", "openvino", "openvino-int8", "onnx"]


class EnginePart(_Part):
    """How an engine did with this model; see `nucleate.inference.select`."""

    panoptic_quality: float = Field(ge=0, le=1)
    megapixels_per_second: float = Field(gt=0)
    seconds_to_start: float = Field(ge=0)

    def seconds(self, megapixels: float) -> float:
        """Until so many megapixels are done, the start included."""
        return self.seconds_to_start + megapixels / self.megapixels_per_second


class EnginesPart(_Part):
    """The engines side by side: quality on the validation images, and speed on this kind of processor. `ranges` are
    what the engine of 8-bit integers needs: see `nucleate.inference.quantize`."""

    processor: str
    measured: dict[EngineName, EnginePart]
    ranges: dict[str, tuple[FiniteFloat, FiniteFloat]] = {}

    @model_validator(mode="after")
    def _has_the_reference(self) -> Self:
        if "torch" not in self.measured:
            raise ValueError("torch must be among the engines")
        if any(low > high for low, high in self.ranges.values()):
            raise ValueError("a range must not end before it begins")
        return self


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
    """model.json."""

    format: Literal[1] = 1
    name: str
    architecture: ArchitecturePart
    normalisation: NormalisationPart
    thresholds: ThresholdsPart
    pixel_size: float | None = Field(default=None, gt=0)
    data: DataPart
    training: TrainingPart
    scores: dict[str, Annotated[dict[str, Any], AfterValidator(_complete)]]
    versions: dict[str, str]
    engines: EnginesPart | None = None
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")


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


def encode_weights(network: UNet, *, half: bool = False) -> bytes:
    """The folded weights as a safetensors file; `half` stores them in float16, half the size."""
    tensors = network.folded().state_dict()
    kind = torch.float16 if half else torch.float32
    encoded: bytes = save_tensors({name: t.detach().cpu().to(kind).contiguous() for name, t in tensors.items()})
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


def read(folder: Path) -> Model:
    """Read a model folder. Raises `ModelError` with the file's name where one is missing, cut or altered."""
    manifest = read_manifest(folder)
    path = folder / WEIGHTS
    content = _content(path)
    if hashlib.sha256(content).hexdigest() != manifest.weights_sha256:
        raise ModelError(f"{path} is not the file that {MANIFEST} describes (cut or altered): copy the model again.")
    part = manifest.architecture
    network = UNet(Architecture(part.channels, part.classes, part.widths)).folded()
    try:
        network.load_state_dict({name: t.float() for name, t in load_tensors(content).items()})
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path} does not fit the architecture in {MANIFEST}: copy the model again.") from error
    if manifest.engines is not None:
        convolutions = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
        unknown = manifest.engines.ranges.keys() - convolutions
        if unknown:
            raise ModelError(
                f"{folder / MANIFEST} is cut or altered at engines.ranges (the network has no convolution"
                f" {min(unknown)}): copy the model again."
            )
    return Model(network, manifest, folder)


def read_manifest(folder: Path) -> Manifest:
    """Read and check model.json alone."""
    if not folder.is_dir():
        choices = ", ".join(EMBEDDED)
        raise ModelError(
            f"There is no model {folder}: give the folder that `nucleate train` wrote, or one of {choices}."
        )
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(_content(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its text"
        raise ModelError(f"{path} is cut or altered at {where} ({first['msg']}): copy the model again.") from error


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The run's history, one dict an epoch. Raises `ModelError` where it is cut, altered or missing."""
    path, epochs = folder / HISTORY, read_manifest(folder).training.epochs
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
