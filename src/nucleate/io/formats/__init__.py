"""The files that prediction writes, one format a module: each takes `Instances` as a stream, however many there are.

tif      NAME_labels.tif   label image for anything that reads TIFF
csv      NAME.csv          table of measurements
parquet  NAME.parquet      the same
cellprofiler  NAME_cellprofiler.csv  a table under CellProfiler's names
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nucleate.io.formats import cellprofiler, geojson, imagej_roi, label_tiff, label_zarr, parquet, table
from nucleate.io.formats.progress import Observe
from nucleate.io.instances import Instances


class Write(Protocol):
    """Write all nuclei to `path`, whole or not at all; `observe` is told the share that is done, 0..1.

    Raises `OutputError` where the system refuses: no space, no permission, something in the way.
    """

    def __call__(self, path: Path, nuclei: Instances, observe: Observe | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of file: the name that asks for it, what follows the image's name in the file's, and its writer."""

    name: str
    ending: str
    write: Write

    def file(self, stem: str) -> str:
        """The name of the file for an image of this name.

        >>> FORMATS["tif"].file("cells"), FORMATS["csv"].file("plate.1")
        ('cells_labels.tif', 'plate.1.csv')
        """
        return stem + self.ending


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("tif", "_labels.tif", label_tiff.write),
        Format("zarr", "_labels.zarr", label_zarr.write),
        Format("geojson", ".geojson", geojson.write),
        Format("roi", "_rois.zip", imagej_roi.write),
        Format("csv", ".csv", table.write),
        Format("parquet", ".parquet", parquet.write),
        Format("cellprofiler", "_cellprofiler.csv", cellprofiler.write),
    )
}
"""The formats by the names that `nucleate predict --format` takes."""
