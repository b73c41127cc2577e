"""GeoJSON as QuPath reads and writes it (0.4 and later): each nucleus is a detection with outline and measurements."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleate.io.atomic import atomic
from nucleate.io.formats.polygons import Ring, trace
from nucleate.io.formats.progress import Observe, observed
from nucleate.io.instances import Instance, Instances

CLASSIFICATION = {"name": "Nucleus", "color": [255, 221, 0]}
"""What QuPath calls the detections, and the red, green and blue that it draws them in."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "nucleate")


def write(path: Path, nuclei: Instances, observe: Observe | None = None) -> None:
    """Write a FeatureCollection (RFC 7946), one line a nucleus.

    Coordinates are pixel edges in pixels of the whole slide at full resolution: (place in the region + `origin`) x
    `downsample`. An outline holds exactly the pixels of the label; holes are inner rings, and a nucleus in several
    pieces is a MultiPolygon. The id of a nucleus is a UUID (RFC 9562, version 5) of the image's name, the region and
    the number, so that the same result has the same ids.
    """
    with atomic(path) as file:
        file.write(b'{"type": "FeatureCollection", "features": [')
        ahead = b"\n"
        for found in observed(nuclei, nuclei.count, observe):
            file.write(ahead + json.dumps(feature(found, nuclei), allow_nan=False).encode("ascii"))
            ahead = b",\n"
        file.write(b"\n]}\n")


def feature(found: Instance, nuclei: Instances) -> dict[str, Any]:
    """One nucleus as a GeoJSON Feature."""
    polygons = [[_ring(ring, found, nuclei) for ring in polygon] for polygon in trace(found.mask)]
    several = len(polygons) > 1
    return {
        "type": "Feature",
        "id": _identifier(found.nucleus.id, nuclei),
        "geometry": {
            "type": "MultiPolygon" if several else "Polygon",
            "coordinates": polygons if several else polygons[0],
        },
        "properties": {
            "objectType": "detection",
            "classification": CLASSIFICATION,
            "measurements": measurements(found, nuclei),
        },
    }


def shape(mask: NDArray[np.bool_], top: int, left: int, kind: str, classification: dict[str, Any]) -> dict[str, Any]:
    """A mask, whose first pixel lies at (`top`, `left`), as a GeoJSON Feature of this kind of object and this class."""
    polygons = [[[(x + left, y + top) for x, y in (*ring, ring[0])] for ring in polygon] for polygon in trace(mask)]
    several = len(polygons) > 1
    return {
        "type": "Feature",
        "geometry": {
            "type": "MultiPolygon" if several else "Polygon",
            "coordinates": polygons if several else polygons[0],
        },
        "properties": {"objectType": kind, "classification": classification},
    }


def measurements(found: Instance, nuclei: Instances) -> dict[str, float]:
    """What is known of a nucleus, under names as QuPath has them; lengths in micrometres where the pixel size is
    known, else in pixels of the segmented level."""
    nucleus, size = found.nucleus, nuclei.pixel_size
    unit, length = ("µm", size) if size else ("px", 1.0)
    values: dict[str, float] = {
        f"Area {unit}^2": round(nucleus.area * length**2, 4),
        f"Diameter {unit}": round(nucleus.diameter * length, 4),
        "Mean intensity": nucleus.mean_intensity,
        "Score": nucleus.score,
    }
    values |= {
        f"Mean intensity {name}": mean for name, mean in zip(nuclei.channels, nucleus.channel_means, strict=True)
    }
    if nucleus.entropy is not None:
        values["Entropy bits"] = nucleus.entropy
    return values


def _ring(ring: Ring, found: Instance, nuclei: Instances) -> list[tuple[float, float]]:
    """On the whole slide; closed, as GeoJSON has it, by its first corner."""
    top, left = nuclei.origin[0] + found.box.y, nuclei.origin[1] + found.box.x
    scale: float = int(nuclei.downsample) if nuclei.downsample == int(nuclei.downsample) else nuclei.downsample
    return [(round((x + left) * scale, 3), round((y + top) * scale, 3)) for x, y in (*ring, ring[0])]


def _identifier(number: int, nuclei: Instances) -> str:
    # A file name that is not UTF-8 reaches Python as lone surrogates.
    name = nuclei.name.encode("utf-8", "backslashreplace").decode("utf-8")
    return str(uuid.uuid5(_NAMESPACE, f"{name} {nuclei.downsample} {nuclei.origin} {nuclei.shape} {number}"))
