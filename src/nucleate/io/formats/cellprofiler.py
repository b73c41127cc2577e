"""CSV as CellProfiler's ExportToSpreadsheet writes it of one image set: a row a nucleus, under its names."""

from __future__ import annotations

import codecs
import csv
from pathlib import Path

from nucleate.io.atomic import atomic
from nucleate.io.formats.progress import Observe, observed
from nucleate.io.instances import Instances

IMAGE, OBJECTS = "ImageNumber", "Nuclei"
"""The first column of every table of CellProfiler's, and what it calls the objects."""


def write(path: Path, nuclei: Instances, observe: Observe | None = None) -> None:
    """Write ImageNumber, 1, and ObjectNumber, the label, and what `nuclei.cellprofiler` measures.

    The table of a whole run, in which images are numbered, is made of these (`inference.cellprofiler`).
    """
    more = nuclei.cellprofiler
    with atomic(path) as file:
        lines = csv.writer(codecs.getwriter("utf-8")(file), lineterminator="\n")
        lines.writerow([IMAGE, "ObjectNumber", *(more.columns if more else ())])
        found = observed(nuclei, nuclei.count, observe)
        lines.writerows([1, one.nucleus.id, *(more(one) if more else ())] for one in found)
