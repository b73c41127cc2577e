"""model.json and history.jsonl of a model folder: their schemas, and how those of format 1 are read."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from nucleate.networks.unet import Architecture, UNet

FORMAT = 2
"""Of model.json, as it is written."""

Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


PartName = Literal["encoder", "decoder", "heads"]

PARTS: tuple[PartName, ...] = ("encoder", "decoder", "heads")
"""The parts of a network, in the order of computation."""


class ArchitecturePart(_Part):
    """The network (see `nucleate.networks.unet.Architecture`), and which `parts` of it the weights hold."""

    name: Literal["unet"] = "unet"
    channels: int = Field(ge=1, le=64)
    classes: int = Field(ge=2, le=64)
    widths: tuple[Annotated[int, Field(ge=8, le=1024, multiple_of=8)], ...] = Field(min_length=1, max_length=8)
    parameters: int = Field(ge=1, lt=2**63)
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
    min_area: Count
    seed_foreground: float = Field(default=0.0, ge=0, lt=1)


class DataPart(_Part):
    """What the model was trained on, in numbers; `stacks` are the planes (z) and frames (t) that were taken of stacks,
    as `nucleate train --z --t` named them."""

    source: str
    licence: str = ""
    labelled: Count
    unlabelled: Count = 0
    nuclei: Count
    median_diameter: float = Field(ge=0)
    validation: str
    channels: tuple[str, ...]
    stacks: dict[Literal["z", "t"], Annotated[str, Field(pattern=r"^(max|mean|best|each|[1-9]\d{0,8})$")]] = {}


class TrainingPart(_Part):
    """How the run went: its end was decided after `stop_epoch`, over-fitting began after epoch `over_fitting`.

    `reasons` are sentences: why it started from what it did, and why images without labels were used or not.
    """

    seed: Count
    loss: str
    epochs: Count
    steps: Count
    seconds: float = Field(ge=0)
    best_epoch: Count
    stopped: str
    stop_epoch: Count | None = None
    over_fitting: int | None = Field(default=None, ge=1, lt=2**63)
    reasons: tuple[str, ...] = ()


EngineName = Literal["torch", "openvino", "openvino-int8"]


class EnginesPart(_Part):
    """The engines side by side: `panoptic_quality` of each on the validation images (see `nucleate.inference.select`);
    `ranges` are what the engine of 8-bit integers needs: see `nucleate.inference.quantize`."""

    panoptic_quality: dict[EngineName, Annotated[float, Field(ge=0, le=1)]]
    ranges: dict[str, tuple[float, float]] = {}

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


class CorrectionsPart(_Part):
    """What was learnt on-line after the last training (`nucleate.training.online`).

    All corrections up to number `through` were looked at; so many were `learnt`, with so many `nuclei`, and so many
    updates `taken_back`. `weights` and `state` are the files that hold the weights and the state of the learner.
    `levels`: where nuclei were dark that were bright in training, or the reverse, see `normalization.is_inverted`.
    """

    through: Count
    learnt: Count
    taken_back: Count
    nuclei: Count
    weights: str = Field(pattern=r"^online/weights-[01]\.safetensors$")
    state: str = Field(pattern=r"^online/state-[01]\.safetensors$")
    levels: tuple[float, float] | None = None


def _complete(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores in which the numbers that `nucleate info` shows are there; see `nucleate.postprocess.scores.Scores`."""
    rows = scores.get("thresholds")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("thresholds must be a list of rows")
    wanted: list[tuple[dict[str, Any], tuple[str, ...]]] = [(scores, ("panoptic_quality", "aji"))]
    wanted += [(row, ("threshold", "precision", "recall", "f1", "ap")) for row in rows]
    for part, names in wanted:
        for name in names:
            if not _is_number(part.get(name)):
                raise ValueError(f"{name} must be a number")
    return scores


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 2**63 and math.isfinite(value)


class Manifest(_Part):
    """model.json, format 2.

    `lineage` names the models that this one was trained from, the first of them first; `trainings` are its own, in the
    order in which they were done. Format 1 is read, too (`upgraded`).
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
    prototypes_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    replay_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    corrections: CorrectionsPart | None = None

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


def upgraded(found: Any) -> Any:
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
        limits = {renamed(name): one for name, one in ranges.items()} if isinstance(ranges, dict) else ranges
        manifest["engines"] = {"panoptic_quality": quality, "ranges": limits}
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


def renamed(name: str) -> str:
    """The name of a module, or of a tensor of it, of format 1 in format 2.

    >>> renamed("encode.0.first.weight"), renamed("stem"), renamed("encoder.stem.bias")
    ('encoder.blocks.0.first.weight', 'encoder.stem', 'encoder.stem.bias')
    """
    top, dot, rest = name.partition(".")
    return dict(_MODULES_1).get(top, top) + dot + rest


class EpochRow(BaseModel):
    """A line of history.jsonl: what every line tells; all else in it are numbers, too."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, float]

    epoch: int = Field(ge=1, lt=2**63)
    train_loss: float
    valid_loss: float
    score: float
    # What a training has, and what a pre-training has; never null.
    panoptic_quality: float = 0.0
    spread: float = 0.0
    effective_rank: float = 0.0


def fault(error: ValidationError) -> str:
    """Where a file does not fit its schema, and what is wrong there."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "its text"
    return f"{where} ({first['msg']})"


def architecture_part(architecture: Architecture) -> ArchitecturePart:
    """The architecture as the manifest holds it, with the number of its folded parameters."""
    count = sum(p.numel() for p in UNet(architecture).folded().parameters())
    return ArchitecturePart(
        channels=architecture.channels,
        classes=architecture.classes,
        widths=architecture.widths,
        parameters=count,
    )
