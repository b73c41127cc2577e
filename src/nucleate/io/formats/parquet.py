"""Parquet: the table of `table` for programs that read columns; needs pyarrow, the extra `nucleate[parquet]`."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from nucleate.errors import InputError
from nucleate.io.atomic import atomic
from nucleate.io.formats import table
from nucleate.io.formats.progress import Observe, observed
from nucleate.io.instances import Instances

_TOGETHER = 2**16
"""Rows that are in memory at once, and make a group of the file."""


def require() -> None:
    """Raise `InputError` where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise InputError("--format parquet needs pyarrow: pip install 'nucleate[parquet]'.")


def write(path: Path, nuclei: Instances, observe: Observe | None = None) -> None:
    """Write the columns of `table`, 64-bit whole numbers and floats, in the order of the nuclei."""
    require()
    import pyarrow
    from pyarrow import parquet

    names, rows = table.header_and_rows(nuclei)
    whole = ("id", "area")
    schema = pyarrow.schema([(name, pyarrow.int64() if name in whole else pyarrow.float64()) for name in names])
    with atomic(path) as file, parquet.ParquetWriter(file, schema) as writer:
        every = observed(rows, nuclei.count, observe)
        while group := list(islice(every, _TOGETHER)):
            columns = [
                pyarrow.array(column, field.type)
                for column, field in zip(zip(*group, strict=True), schema, strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
