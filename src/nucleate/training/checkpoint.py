"""The state of an unfinished run in one file: tensors and, in the same file's header, the numbers.

One file, written aside and renamed, so that a crash leaves either the state before or the state after. Its header
also holds a checksum of all that it says, since a run that is resumed from altered weights would not show it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nucleate.errors import ModelError
from nucleate.io.atomic import atomic
from nucleate.networks.manifest import fault
from nucleate.networks.store import UNFINISHED

FILE = UNFINISHED
FORMAT = 3
"""Of the file; a run begun by a version that wrote another one cannot be resumed."""


Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _complete(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the history: numbers, among them those that the run's end is decided from."""
    for name in ("epoch", "train_loss", "valid_loss", "score", *row):
        if not isinstance(row.get(name), int | float):
            raise ValueError(f"{name} is no number")
    return row


@dataclass(slots=True)
class TrainingState:
    """Where a run stands, beside its tensors.

    Once the end is decided: the cool-down is steps `cool_start` to `cool_end`, after epoch `stop_epoch`; over-fitting
    began after epoch `over_fitting`, if at all. `validation_seconds` is what the last validation took. `losses` are
    those of the steps of an epoch that is not over.
    """

    step: Count = 0
    seconds: Seconds = 0.0
    validation_seconds: Seconds = 0.0
    cool_start: Count | None = None
    cool_end: Count | None = None
    stop_epoch: Count | None = None
    over_fitting: Count | None = None
    why: str = ""
    best_epoch: Count = 0
    best_score: float = -1.0
    losses: list[float] = field(default_factory=list)
    history: list[Annotated[dict[str, Any], AfterValidator(_complete)]] = field(default_factory=list)

    @property
    def cool_down(self) -> tuple[int, int] | None:
        """First and last step of the cool-down, once it is decided."""
        return None if self.cool_start is None or self.cool_end is None else (self.cool_start, self.cool_end)

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.cool_end is not None and self.step >= self.cool_end

    def begin_cool_down(self, steps: int, why: str) -> None:
        """Decide the end: the learning rate goes to zero over the next `steps` steps."""
        self.cool_start, self.cool_end, self.why = self.step, self.step + steps, why
        self.stop_epoch = len(self.history)


_STATE = TypeAdapter(TrainingState)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The file of an unfinished run in `folder`.

    The `identity` of a run is what must be the same for it to be resumed as if it had not been interrupted.
    """

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def write(self, tensors: Mapping[str, Tensor], state: TrainingState, identity: Mapping[str, Any]) -> None:
        """Write the file anew."""
        content = encode(tensors, state, identity)
        with atomic(self.path) as file:
            file.write(content)

    def read(self, identity: Mapping[str, Any]) -> tuple[dict[str, Tensor], TrainingState]:
        """Tensors, their order in memory included, and state as they were written.

        Raises:
            ModelError: There is no such file, it was cut or altered, or the run was begun with another identity.
        """
        if not self.path.exists():
            raise ModelError(f"{self.folder} holds no unfinished run ({FILE} is missing): train without --resume.")
        try:
            tensors, run = decode(self.path.read_bytes())
            self._expect(run, identity)
            return tensors, state_of(run)
        except ValidationError as error:
            raise self.damaged(fault(error)) from error
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self.damaged(error) from error

    def damaged(self, reason: object) -> ModelError:
        """What to say of a file that cannot be used."""
        return ModelError(f"{self.path} is damaged ({reason}): delete it and train without --resume.")

    def _expect(self, run: dict[str, Any], identity: Mapping[str, Any]) -> None:
        if not isinstance(run["identity"], dict):
            raise TypeError("identity")
        if run.get("format") != FORMAT:
            raise ModelError(
                f"The run in {self.folder} was begun by another version of Nucleate: delete {self.path} and train "
                "without --resume."
            )
        before, now = run["identity"], json.loads(json.dumps(dict(identity)))
        differs = [_difference(name, before.get(name), now[name]) for name in now if before.get(name) != now[name]]
        if differs:
            raise ModelError(
                f"The run in {self.folder} was begun with another choice of {', '.join(differs)}: give the same images "
                f"and options to resume it, or delete {self.path}."
            )


def encode(tensors: Mapping[str, Tensor], state: TrainingState, identity: Mapping[str, Any]) -> bytes:
    """A run as the bytes of a file."""
    # The file holds rows after rows; which tensors were channels-last is noted beside, since an optimiser that
    # walks weights and moments in the order of memory needs both in the same.
    last = [name for name, t in tensors.items() if not t.is_contiguous() and is_channels_last(t)]
    held = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps({"format": FORMAT, "state": asdict(state), "identity": dict(identity), "channels_last": last})
    content: bytes = save(held, {"run": text, "sha256": checksum(held, text)})
    return content


def decode(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, their order in memory included, and what else `encode` was given.

    Raises SafetensorError, KeyError, TypeError or ValueError where the bytes are others.
    """
    tensors: dict[str, Tensor] = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    if header["sha256"] != checksum(tensors, header["run"]):
        raise ValueError("altered")
    run: dict[str, Any] = json.loads(header["run"])
    for name in run["channels_last"]:
        tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)
    return tensors, run


def state_of(run: Mapping[str, Any]) -> TrainingState:
    """The state in what `decode` gave."""
    return _STATE.validate_python(run["state"])


def _difference(name: str, before: object, now: object) -> str:
    short = all(isinstance(value, int | float | str) for value in (before, now))
    return f"{name} ({before} then, {now} now)" if short else name


def is_channels_last(tensor: Tensor) -> bool:
    """Whether it lies in memory as convolutions are fastest."""
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def checksum(tensors: dict[str, Tensor], text: str) -> str:
    """Of tensors and a text, SHA-256."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
