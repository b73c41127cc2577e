"""ImageJ regions of interest, as a ZIP that its ROI Manager opens and saves: one ROI a nucleus."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from roifile import ROI_TYPE, ImagejRoi

from nucleate.errors import ImageError
from nucleate.io.atomic import atomic
from nucleate.io.cache import LARGEST_PIECE
from nucleate.io.files import open_regular
from nucleate.io.formats.polygons import Outline, ellipse, trace
from nucleate.io.formats.progress import Observe, observed
from nucleate.io.instances import Instance, Instances

FURTHEST = 60535
"""Pixels; the largest coordinate that ImageJ takes from the 16 bits of a polygon, of which it leaves 5000 to negative
ones. The 32-bit floats of a composite ROI are exact up to 2**24."""

SINGLE = b"Iout"
"""How the file of a single region begins."""

_AREAS = (ROI_TYPE.POLYGON, ROI_TYPE.RECT, ROI_TYPE.OVAL, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # where the time of ZIP begins: the same nuclei give the same bytes
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0  # the segments of a path, as java.awt.geom.PathIterator numbers them


def write(path: Path, nuclei: Instances, observe: Observe | None = None) -> None:
    """Write one ROI for each nucleus; filling it selects exactly the pixels of the label.

    Coordinates are corners of pixels of the segmented level, counted from its beginning, also where only a region of
    it was segmented. A nucleus in one piece without holes is a traced polygon with whole coordinates. A composite ROI
    holds what has several rings, and what lies beyond the reach of a polygon's coordinates.
    """
    with atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
        for found in observed(nuclei, nuclei.count, observe):
            member = zipfile.ZipInfo(f"{found.nucleus.id}.roi", _FIRST_DAY)
            member.create_system = 0  # the same on every system
            archive.writestr(member, region(found, nuclei.origin).tobytes(), zipfile.ZIP_DEFLATED)


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


def read(path: Path) -> tuple[list[Outline], tuple[str, ...]]:
    """The outlines of the nuclei in a ZIP of ImageJ regions of interest, in its order, or in a file of a single one,
    in pixels of the image; and what was left out: points and lines, which have no area.

    Polygons, freehand and traced regions are their corners; ovals are ellipses; composite regions are all their rings.

    Raises:
        ImageError: the file cannot be read, or holds no regions or broken ones.
    """
    try:
        regions = [ImagejRoi.frombytes(one) for one in _stored(path)]
        if any(one.roitype == ROI_TYPE.UNKNOWN for one in regions):
            raise ValueError("a region of an unknown kind")
        areas = [one for one in regions if one.roitype in _AREAS]
        left_out = len(regions) - len(areas)
        what = "point or line is" if left_out == 1 else "points and lines are"
        return [_outline(one) for one in areas], (f"{left_out} {what} left out, having no area.",) if left_out else ()
    except ImageError:
        raise
    except NotImplementedError as error:
        raise ImageError(
            f"{path} has a region with curves, which is not read: in ImageJ choose Edit > Selection > Interpolate and"
            " save it again."
        ) from error
    except Exception as error:  # a broken archive or region raises whatever its broken field leads to
        raise ImageError(f"{path} is no ZIP of ImageJ regions ({error!r:.200}): save them again.") from error


def _stored(path: Path) -> Iterator[bytes]:
    """The regions in a file, each as it is stored."""
    with open_regular(path) as file:
        if (start := file.read(len(SINGLE))) == SINGLE:
            data = start + file.read(LARGEST_PIECE)
            yield data
            return
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            members = [one for one in archive.infolist() if one.filename.lower().endswith(".roi")]
            if (size := sum(member.file_size for member in members)) > LARGEST_PIECE:
                raise ImageError(
                    f"{path} unpacks to {size} bytes of regions, above the limit of {LARGEST_PIECE}: save fewer regions"
                    " in one file."
                )
            if not members and archive.namelist():
                raise ValueError("no .roi file in it")
            for member in members:
                yield archive.read(member)


def _outline(roi: ImagejRoi) -> Outline:
    plain = roi.subpixel_coordinates is None and roi.integer_coordinates is None and roi.multi_coordinates is None
    if plain and roi.roitype in (ROI_TYPE.OVAL, ROI_TYPE.RECT):
        left, top, right, bottom = (float(edge) for edge in (roi.left, roi.top, roi.right, roi.bottom))
        if roi.subpixelrect:
            left, top, right, bottom = roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        rings = [ellipse(left, top, right, bottom) if roi.roitype == ROI_TYPE.OVAL else corners]
    else:
        rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in roi.coordinates(multi=True)]
    if not all(np.isfinite(ring).all() for ring in rings):
        raise ValueError("coordinates that are not finite")
    return rings
