"""GeoJSON as QuPath exports it, read: nuclei, and rectangles that say what was labelled.

    class                    is
    Training, Region*        a part of the image in which every nucleus was labelled
    Validation               the same, for validation
    Ignore*                  unknown
    any other, or none       a nucleus; where there are detections or cells, only those are

Where there is a part that was labelled, all outside such parts is unknown. An ellipse, which GeoJSON has not, is one
again (QuPath marks its polygon, and the box of that is the ellipse's).
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.errors import ImageError
from nucleate.io.files import open_regular, read_bytes, reading
from nucleate.io.formats.polygons import Outline, ellipse

LARGEST = 2**30
"""Bytes of a JSON file that is read, unpacked."""

GZIP = b"\x1f\x8b"
"""How a packed file begins."""

_POLYGONS = ("Polygon", "MultiPolygon")
_NO_OBJECTS = ("root", "tmaCore")


@dataclass(slots=True)
class Annotations:
    """What was drawn, in pixels of the slide at full resolution: nuclei in their order; the parts that were labelled
    for training, and for validation; what is unknown. `notes` say what was left out."""

    nuclei: list[Outline] = field(default_factory=list)
    training: list[Outline] = field(default_factory=list)
    validation: list[Outline] = field(default_factory=list)
    unknown: list[Outline] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def moved(self, scale: float, origin: tuple[int, int]) -> Annotations:
        """The same in pixels of a level, where one spans `scale` of the slide, counted from (y, x)."""

        def moved(part: list[Outline]) -> list[Outline]:
            return [[ring / scale - origin[::-1] for ring in rings] for rings in part]

        return Annotations(
            moved(self.nuclei), moved(self.training), moved(self.validation), moved(self.unknown), self.notes
        )


def load(path: Path) -> Any:
    """The value of a JSON file, packed by gzip or not.

    Raises:
        ImageError: it cannot be read, is no JSON, or has more than `LARGEST` bytes.
    """
    try:
        return json.loads(_unpacked(path))
    except (RecursionError, ValueError) as error:
        raise ImageError(f"{path} is no GeoJSON or COCO ({error!r:.200}): export it again.") from error


def parse(value: Any, path: Path) -> Annotations:
    """The annotations in the value of a GeoJSON file: a FeatureCollection, a Feature, or a list of features.

    Raises:
        ImageError: naming `path`, where it is no GeoJSON.

    >>> square = {"type": "Polygon", "coordinates": [[[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]]}
    >>> classes = {"classification": {"name": "Training"}}
    >>> features = [{"geometry": square}, {"geometry": square, "properties": classes}]
    >>> found = parse(features, Path("cells.geojson"))
    >>> len(found.nuclei), len(found.training)
    (1, 1)
    """
    try:
        return _parse(value)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ImageError(f"{path} is no GeoJSON of polygons ({error!r:.200}): export the nuclei again.") from error


def _parse(value: Any) -> Annotations:
    features = [value] if isinstance(value, dict) and value.get("type") == "Feature" else value
    features = features if isinstance(features, list) else features["features"]
    found, detections, others, left_out = Annotations(), list[Outline](), list[Outline](), 0
    for feature in features:
        properties = feature.get("properties") or {}
        kind = properties.get("objectType")
        geometry = feature.get("nucleusGeometry") or feature["geometry"]
        if not geometry or kind in _NO_OBJECTS:
            continue
        if geometry["type"] not in _POLYGONS:
            left_out += 1
            continue
        _part_of(found, properties, detections if kind in ("detection", "cell") else others).append(_rings(geometry))
    found.nuclei = detections or others
    if left_out:
        found.notes.append(
            f"{left_out} {'point or line is' if left_out == 1 else 'points and lines are'} left out, having no area."
        )
    if detections and others:
        found.notes.append(
            f"{len(others)} {'annotation' if len(others) == 1 else 'annotations'} beside detections"
            f" {'is' if len(others) == 1 else 'are'} no nuclei here: give what was labelled the class Training, and"
            " delete or convert the others in QuPath."
        )
    return found


def _part_of(found: Annotations, properties: dict[str, Any], nuclei: list[Outline]) -> list[Outline]:
    """Where an object belongs, by its class."""
    name = _class(properties).rstrip("*").casefold()
    places = {"training": found.training, "validation": found.validation}
    if name.startswith("region"):
        return found.training
    return found.unknown if name.startswith("ignore") else places.get(name, nuclei)


def _class(properties: dict[str, Any]) -> str:
    """The name of an object's class as versions of QuPath write it; "" without one."""
    value = properties.get("classification") or ""
    if isinstance(value, dict):
        value = value.get("name") or (value.get("names") or [""])[0]
    return str(value).strip()


def _rings(geometry: dict[str, Any]) -> Outline:
    polygons = geometry["coordinates"]
    rings = [
        _corners(ring)
        for polygon in (polygons if geometry["type"] == "MultiPolygon" else [polygons])
        for ring in polygon
    ]
    if geometry.get("isEllipse") is True and len(rings) == 1 and len(rings[0]):
        (left, top), (right, bottom) = rings[0].min(axis=0).tolist(), rings[0].max(axis=0).tolist()
        return [ellipse(left, top, right, bottom)]
    return rings


def _corners(ring: Any) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    corners = np.asarray(ring, dtype=np.float64)
    if corners.ndim != 2 or corners.shape[1] < 2 or not np.isfinite(corners).all():
        raise ValueError(f"a ring of shape {corners.shape}")
    return corners[:, :2]


def _unpacked(path: Path) -> bytes:
    with open_regular(path) as file, reading(path):
        packed = file.read(2) == GZIP
    if not packed:
        return read_bytes(path, LARGEST)
    try:
        with open_regular(path) as file, gzip.open(file) as unpacking:
            data = unpacking.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImageError(f"{path} cannot be unpacked ({error}): copy or export it again.") from error
    if len(data) > LARGEST:
        raise ImageError(f"{path} unpacks to more than {LARGEST} bytes: export fewer objects.")
    return data
