"""What was predicted of one image and where it lies: NAME.json beside the files that prediction writes."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nucleate.errors import InputError
from nucleate.io.atomic import write_json
from nucleate.io.instances import Instances
from nucleate.types import Plane

KIND = "nucleate prediction"
"""Under `kind` in the file, and so told apart from any other JSON."""


@dataclass(frozen=True, slots=True)
class Environment:
    """With what an image was segmented: the `engine` that ran the network, the `number_format` of its products,
    and the `versions` of the packages that the result depends on. It does not depend on the number of threads or
    processes."""

    engine: str
    number_format: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """One prediction. `image` is where the image was, absolute; `level` the one of its pyramid that was segmented;
    `origin`, `shape`, `downsample`, `pixel_size` and `count` are those of its `Instances`; `files` the names of the
    files in the record's own folder, by format; `identity` is the same for the same image, model, environment and
    options, and empty where that is not known, as `environment` is None in files of earlier versions.

    `digests` has the SHA-256 of each of the `files` (`io.digest`) as it was written; `relative` is where the image was
    from the record's own folder, None where that cannot be said; `series` which image of its file it was, from 1, None
    of a file with one; `z` and `t` which plane and frame of a stack it was, as of `types.Plane`; `notes` what a person
    should know of the result; `novelty` how far the image lies from those that the model was trained on, above 1 where
    it is unlike them, None where that is not known."""

    image: str
    level: int
    origin: tuple[int, int]
    shape: tuple[int, int]
    downsample: float
    pixel_size: float | None
    count: int
    files: dict[str, str]
    identity: str = ""
    environment: Environment | None = None
    digests: dict[str, str] = field(default_factory=dict)
    relative: str | None = None
    series: int | None = None
    notes: tuple[str, ...] = ()
    novelty: float | None = None
    z: int | str | None = None
    t: int | None = None

    @property
    def plane(self) -> Plane:
        """Which image of its file it was."""
        return Plane(self.series, self.z, self.t)

    def locate(self, folder: Path) -> Path:
        """The image: from the record's own folder, with which it may have been moved, else where it was."""
        near = folder / self.relative if self.relative else None
        # Of a name that no system allows, this says that it is not there; Path.exists() would raise.
        return near if near is not None and os.path.exists(near) else Path(self.image)  # noqa: PTH110 - see above

    @classmethod
    def of(
        cls,
        nuclei: Instances,
        image: Path,
        level: int,
        files: dict[str, str],
        identity: str = "",
        environment: Environment | None = None,
        *,
        digests: dict[str, str] | None = None,
        relative: str | None = None,
        plane: Plane | None = None,
        notes: tuple[str, ...] = (),
    ) -> PredictionRecord:
        """The record of these nuclei, found in that level of the image."""
        return cls(
            image=str(image.resolve()),
            level=level,
            origin=nuclei.origin,
            shape=nuclei.shape,
            downsample=nuclei.downsample,
            pixel_size=nuclei.pixel_size,
            count=nuclei.count,
            files=files,
            identity=identity,
            environment=environment,
            digests=digests or {},
            relative=relative,
            series=(plane or Plane()).series,
            z=(plane or Plane()).z,
            t=(plane or Plane()).t,
            notes=notes,
            novelty=nuclei.novelty,
        )


def is_unlike(novelty: float | None) -> bool:
    """Whether an image is unlike those that its model was trained on; it is not where that is not known."""
    return novelty is not None and novelty > 1


def relative_to(folder: Path, image: Path) -> str | None:
    """Where an image is from a folder; None where the way leads over another drive."""
    try:
        return Path(os.path.relpath(image.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return None


def record_file(stem: str) -> str:
    """The name of the record of an image of this name.

    >>> record_file("plate.1")
    'plate.1.json'
    """
    return f"{stem}.json"


def write_record(path: Path, record: PredictionRecord) -> None:
    """Write the record; raises `OutputError` as `io.atomic.atomic` does."""
    said = {name: value for name, value in asdict(record).items() if name not in ("z", "t") or value is not None}
    write_json(path, {"kind": KIND, **said})


def read_record(path: Path) -> PredictionRecord | None:
    """The record in a file; None where the file is JSON of another kind.

    Names in `files` that are not plain names of files, and so could lead out of the folder, are refused.

    Raises `InputError` for a file that cannot be read or holds something else than a record should.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check who may read it.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): run nucleate predict again.") from error
    if not isinstance(value, dict) or value.get("kind") != KIND:
        return None
    wrong = [one.name for one in fields(PredictionRecord) if not _fits(one.name, value.get(one.name))]
    if wrong:
        raise InputError(f"{path} has no usable {wrong[0]} in it: run nucleate predict again.")
    known: dict[str, Any] = {one.name: value.get(one.name) for one in fields(PredictionRecord)}
    known = {name: one for name, one in known.items() if one is not None or name == "pixel_size"}
    known["origin"], known["shape"] = tuple(known["origin"]), tuple(known["shape"])
    known["notes"] = tuple(known.get("notes", ()))
    if "environment" in known:
        known["environment"] = Environment(**{one.name: value["environment"][one.name] for one in fields(Environment)})
    return PredictionRecord(**known)


def _fits(name: str, value: Any) -> bool:
    """Whether a value from a file can be that field of a record."""
    if name == "image":
        return isinstance(value, str) and Path(value).is_absolute() and "\0" not in value
    if name in ("identity", "relative"):
        return value is None or (isinstance(value, str) and "\0" not in value)
    if name == "digests":
        return value is None or (isinstance(value, dict) and all(isinstance(one, str) for one in value.values()))
    if name in ("series", "z", "t"):
        return value is None or (_whole(value) and value > 0) or (name == "z" and value in ("max", "mean"))
    if name == "notes":
        return value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value))
    if name == "environment":
        return value is None or (isinstance(value, dict) and _is_environment(value))
    if name in ("level", "count"):
        return _whole(value)
    if name in ("origin", "shape"):
        return (
            isinstance(value, list)
            and len(value) == 2
            and all(map(_whole, value))
            and (name == "origin" or 0 not in value)
        )
    if name == "files":
        return isinstance(value, dict) and all(isinstance(one, str) and _plain(one) for one in value.values())
    if name == "novelty":
        return value is None or value == 0 or _positive(value)
    return (name == "pixel_size" and value is None) or _positive(value)


def _is_environment(value: dict[str, Any]) -> bool:
    versions = value.get("versions")
    return (
        isinstance(value.get("engine"), str)
        and isinstance(value.get("number_format"), str)
        and isinstance(versions, dict)
        and all(isinstance(one, str) for one in versions.values())
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _plain(name: str) -> bool:
    """Whether it names a file in the folder itself. What separates folders depends on the system."""
    return name not in ("", ".", "..") and "\0" not in name and Path(name).name == name
