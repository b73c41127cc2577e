"""Where a model that learns on-line stands, in one file; and the commit by which a model folder takes a new state.

    MODEL/online/weights-0.safetensors, weights-1.safetensors     the weights that serve, of now and of before
    MODEL/online/state-0.safetensors, state-1.safetensors         the same of the state
    MODEL/online/base.json                                        model.json as it was before any correction

Of each pair, the one that model.json does not name is written, and then model.json is replaced by one that names it: a
single renaming, before which the folder is the model before and after which it is the model after. The weights of the
training, and its model.json, stay as they were: going back is one renaming, too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nucleate.errors import ModelError
from nucleate.io.atomic import atomic
from nucleate.networks import store
from nucleate.networks.manifest import Ancestor, CorrectionsPart, Manifest, upgraded
from nucleate.networks.unet import UNet
from nucleate.training.checkpoint import Count, checksum, is_channels_last
from nucleate.training.replay import Reservoir, from_tensors, to_tensors

FOLDER = "online"
BASE = "online/base.json"
FORMAT = 1
"""Of the state's file."""

Score = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of a state: those of `CorrectionsPart`; the steps done; the crops that the reservoir has seen; the
    score of the sentinel set by the model before any correction and by that of now, None while it is not measured; the
    window of `drift.adwin`; what the last update said, for the journal; and the level of the images of the training,
    the number of the corrections that were inverted, and the mean of their levels."""

    through: Count = 0
    learnt: Count = 0
    taken_back: Count = 0
    nuclei: Count = 0
    steps: Count = 0
    seen: Count = 0
    sentinel_base: Score | None = None
    sentinel: Score | None = None
    errors: list[Score] = field(default_factory=list)
    before: Score | None = None
    after: Score | None = None
    sentinel_before: Score | None = None
    last_taken_back: bool = False
    drift: bool = False
    own_level: float = 0.0
    inverted: Count = 0
    inverted_level: float = 0.0

    @property
    def levels(self) -> tuple[float, float] | None:
        """Those of `normalization.is_inverted`; None while no correction was inverted."""
        return (self.own_level, self.inverted_level) if self.inverted else None


_NUMBERS = TypeAdapter(Numbers)


@dataclass(frozen=True, slots=True)
class LearnerState:
    """Everything that the next update depends on besides its correction: `tensors` of the network that learns, of the
    average that serves, and of the optimiser; the `reservoir` of earlier crops; and the `numbers`."""

    tensors: dict[str, Tensor]
    reservoir: Reservoir
    numbers: Numbers

    def encoded(self) -> bytes:
        """As the bytes of a file, the same for the same state."""
        tensors = {**self.tensors, **to_tensors(self.reservoir.kept, "crop")}
        last = sorted(name for name, t in tensors.items() if not t.is_contiguous() and is_channels_last(t))
        held = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        numbers = _NUMBERS.dump_python(replace(self.numbers, seen=self.reservoir.seen))
        text = json.dumps({"format": FORMAT, "numbers": numbers, "channels_last": last})
        # One entry alone: several would come in an order by chance.
        content: bytes = save(held, {"state": json.dumps([text, checksum(held, text)])})
        return content

    @classmethod
    def decoded(cls, content: bytes, path: Path) -> LearnerState:
        """Raises ModelError where the bytes are others."""
        try:
            tensors: dict[str, Tensor] = load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            text, wanted = json.loads(header["state"])
            said = json.loads(text)
            if wanted != checksum(tensors, text) or said["format"] != FORMAT:
                raise ValueError("altered, or of another version")
            for name in said["channels_last"]:
                tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)
            numbers = _NUMBERS.validate_python(said["numbers"])
            crops = {name: tensors.pop(name) for name in list(tensors) if name.startswith("crop/")}
            return cls(tensors, Reservoir(from_tensors(crops, "crop"), numbers.seen), numbers)
        except (ValidationError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{path} is damaged ({error}): go back to before the corrections with --undo, or copy the model again."
            ) from error


def read_state(folder: Path, manifest: Manifest) -> LearnerState | None:
    """The state that model.json names; None before any correction."""
    if manifest.corrections is None:
        return None
    path = folder / manifest.corrections.state
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} is missing: copy the model again, whole.") from error
    return LearnerState.decoded(content, path)


def read_base(folder: Path) -> tuple[Manifest, bytes]:
    """The manifest of the model before any correction, and its bytes."""
    path = folder / BASE
    if not path.exists():
        path = folder / store.MANIFEST
    content = path.read_bytes()
    try:
        return Manifest.model_validate(upgraded(json.loads(content)), strict=False), content
    except ValueError as error:
        raise ModelError(f"{path} is cut or altered: copy the model again.") from error


def commit(folder: Path, state: LearnerState, average: UNet | None) -> Manifest:
    """Make the folder that of this state; `average` are the weights that serve, None for those that serve now."""
    base, base_content = read_base(folder)
    if not (folder / BASE).exists():
        _write(folder / BASE, base_content)
    before, numbers = store.read_manifest(folder).corrections, state.numbers
    slot = 0 if before is None else 1 - int(before.state.endswith("1.safetensors"))
    serving = folder / (store.WEIGHTS if before is None else before.weights)
    weights = serving.read_bytes() if average is None else store.encode_weights(average)
    part = CorrectionsPart(
        through=numbers.through,
        learnt=numbers.learnt,
        taken_back=numbers.taken_back,
        nuclei=numbers.nuclei,
        weights=f"{FOLDER}/weights-{slot}.safetensors",
        state=f"{FOLDER}/state-{slot}.safetensors",
        levels=numbers.levels,
    )
    changes: dict[str, Any] = {
        # What was measured with the weights before says nothing of these.
        "scores": {},
        "engines": None,
        "prototypes_sha256": None,
        "lineage": (*base.lineage, Ancestor(name=base.name, weights_sha256=base.weights_sha256)),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "corrections": part,
    }
    manifest = base.model_copy(update=changes)
    _write(folder / part.weights, weights)
    _write(folder / part.state, state.encoded())
    _write(folder / store.MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return manifest


def restore_base(folder: Path) -> None:
    """Make the folder that of the model before any correction."""
    if (folder / BASE).exists():
        _write(folder / store.MANIFEST, (folder / BASE).read_bytes())


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as file:
        file.write(content)
