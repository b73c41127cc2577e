"""What holds for every format: whole or not at all, in bounded memory, the same every time."""

import hashlib
import os
import resource
import signal
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nucleate.errors import OutputError
from nucleate.io.formats import FORMATS

OPTIONAL = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow, an extra of its own")
EVERY = pytest.mark.parametrize(
    "kind", [pytest.param(one, id=name, marks=[OPTIONAL] if name == "parquet" else []) for name, one in FORMATS.items()]
)


def content(path):
    """What a file or a folder holds, as one number for each file."""
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    return {str(one.relative_to(path)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def noise(nuclei_of):
    """Labels that do not compress, so that every format writes many bytes."""
    return nuclei_of(np.random.default_rng(0).permutation(20_000)[:9999].reshape(99, 101) % 300)


def test_the_formats_and_their_files():
    assert {name: kind.file("a.b") for name, kind in FORMATS.items()} == {
        "tif": "a.b_labels.tif",
        "zarr": "a.b_labels.zarr",
        "geojson": "a.b.geojson",
        "roi": "a.b_rois.zip",
        "csv": "a.b.csv",
        "parquet": "a.b.parquet",
        "cellprofiler": "a.b_cellprofiler.csv",
    }
    assert all(kind.name == name for name, kind in FORMATS.items())


@EVERY
def test_the_same_nuclei_give_the_same_bytes_and_replace_what_was_there(tmp_path, noise, nuclei_of, kind):
    path = tmp_path / "deep" / kind.file("cells")
    kind.write(path, nuclei_of(np.ones((3, 3), np.int32)))
    other = content(path)
    kind.write(path, noise)
    first = content(path)
    assert first != other
    kind.write(path, noise)
    assert content(path) == first
    assert names(path.parent) == [path.name]


@EVERY
@pytest.mark.parametrize("shape", [(1, 1), (700, 3)])
def test_no_nuclei_can_be_written(tmp_path, nuclei_of, kind, shape):
    kind.write(tmp_path / "x", nuclei_of(np.zeros(shape, np.int32)))
    assert names(tmp_path) == ["x"]


@EVERY
def test_names_that_are_not_unicode_can_be_written(tmp_path, nuclei_of, kind):
    kind.write(tmp_path / "x", nuclei_of(np.eye(4, dtype=np.int32), name=os.fsdecode(b"cells\xff")))
    assert names(tmp_path) == ["x"]


@EVERY
def test_boxes_are_bounded_and_nuclei_pass_one_by_one(tmp_path, field, kind):
    """The first dimension grows, what is asked for at once does not."""
    nuclei = field(30, 130)  # 1200 x 5200 pixels
    kind.write(tmp_path / "x", nuclei)
    assert all(box.height * box.width <= 1024**2 for box in nuclei.boxes)
    assert all(0 <= box.y < box.bottom <= 1200 and 0 <= box.x < box.right <= 5200 for box in nuclei.boxes)
    assert sum(box.height * box.width for box in nuclei.boxes) in (0, 1200 * 5200)  # every pixel once, or none
    assert nuclei.most <= 3


@EVERY
def test_the_share_that_is_done_rises_to_one(tmp_path, field, kind):
    shares = []
    kind.write(tmp_path / "x", field(3, 4), shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0 and shares[0] > 0


@EVERY
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_end_in_the_middle_leaves_what_was_there(tmp_path, noise, kind, error):
    path = tmp_path / "x"
    kind.write(path, noise)
    before = content(path)

    def stop(share):
        raise error

    with pytest.raises(error):
        kind.write(path, noise, stop)
    assert content(path) == before and names(tmp_path) == ["x"]


@EVERY
def test_a_full_disk_leaves_what_was_there(tmp_path, noise, nuclei_of, kind):
    """A real refusal in the middle of a file: the limit on file size."""
    path = tmp_path / "x"
    kind.write(path, nuclei_of(np.ones((3, 3), np.int32)))
    before = content(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"x cannot be written \(File too large\)"):
            kind.write(path, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert content(path) == before and names(tmp_path) == ["x"]


@EVERY
def test_a_place_that_cannot_be_written_to_is_named(tmp_path, nuclei_of, kind):
    one = nuclei_of(np.ones((3, 3), np.int32))
    (tmp_path / "file").write_bytes(b"kept")
    for path in (Path("/proc/cells"), tmp_path / "file" / "cells"):
        with pytest.raises(OutputError, match=rf"^{path} cannot be written \(.*\): free some space or choose another"):
            kind.write(path, one)
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"kept"


@EVERY
def test_what_is_something_else_is_not_replaced(tmp_path, nuclei_of, kind):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "note.txt").write_text("kept")
    with pytest.raises(OutputError, match="cells"):
        kind.write(tmp_path / "cells", nuclei_of(np.ones((3, 3), np.int32)))
    assert names(tmp_path) == ["cells"] and names(tmp_path / "cells") == ["note.txt"]
