"""ImageJ regions of interest, as a ZIP that its ROI Manager opens: one ROI a nucleus, named by its number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from roifile import ROI_TYPE, ImagejRoi

from nucleate.io.atomic import atomic
from nucleate.io.formats.polygons import trace
from nucleate.io.formats.progress import Observe, observed
from nucleate.io.formats.zip_stream import ZipStream
from nucleate.io.instances import Instance, Instances

FURTHEST = 60535
"""Pixels; the largest coordinate that ImageJ takes from the 16 bits of a polygon, of which it leaves 5000 to negative
ones. The 32-bit floats of a composite ROI are exact up to 2**24."""

_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0  # the segments of a path, as java.awt.geom.PathIterator numbers them


def write(path: Path, nuclei: Instances, observe: Observe | None = None) -> None:
    """Write one ROI for each nucleus; filling it selects exactly the pixels of the label.

    Coordinates are corners of pixels of the segmented level, counted from its beginning, also where only a region of
    it was segmented. A nucleus in one piece without holes is a traced polygon with whole coordinates. A composite ROI
    holds what has several rings, and what lies beyond the reach of a polygon's coordinates.
    """
    with atomic(path) as file, ZipStream(file, path.parent) as archive:
        for found in observed(nuclei, nuclei.count, observe):
            archive.add(f"{found.nucleus.id}.roi", region(found, nuclei.origin).tobytes())


def region(found: Instance, origin: tuple[int, int]) -> ImagejRoi:
    """One nucleus as an ROI."""
    top, left = origin[0] + found.box.y, origin[1] + found.box.x
    rings = [np.add(ring, (left, top)) for polygon in trace(found.mask) for ring in polygon]
    right, bottom = left + found.box.width, top + found.box.height
    roi = ImagejRoi(name=str(found.nucleus.id), top=top, left=left, bottom=bottom, right=right)
    if len(rings) == 1 and max(right, bottom) <= FURTHEST:
        roi.roitype = ROI_TYPE.TRACED
        roi.integer_coordinates = rings[0] - (left, top)
        roi.n_coordinates = len(rings[0])
    else:
        roi.roitype = ROI_TYPE.RECT
        roi.multi_coordinates = np.concatenate([_path(ring) for ring in rings]).astype(np.float32)
        roi.shape_roi_size = roi.multi_coordinates.size
    return roi


def _path(ring: NDArray[np.int64]) -> NDArray[np.float64]:
    """The ring as (kind of segment, x, y) from corner to corner, and the segment that closes it."""
    segments = np.column_stack([np.full(len(ring), _LINE), ring]).ravel()
    segments[0] = _MOVE
    return np.append(segments, _CLOSE)
