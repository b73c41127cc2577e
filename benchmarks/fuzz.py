"""Files that were altered, of every format that is read and of our own: each is read, or refused in a sentence.

    python benchmarks/fuzz.py [--count 100000] [--seed 0] [--jobs 2] [--keep FOLDER] [--only TARGET ...]

Case N of a seed is always the same file. It is read in a process of its own kind, which may take 1 GiB beyond what it
begins with, and 10 seconds. What counts as a failure: an error that is no NucleateError, a process that dies, one that
takes longer, one that needs more memory. The file of each failure goes to `--keep`, with what it raised.

Prints a table of the targets, and as its last line JSON. Exit code 1 where anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from nucleate.errors import NucleateError
from nucleate.io.base import Reader
from nucleate.io.prediction_json import read_record
from nucleate.io.reader import open_reader, read_image, read_labels
from nucleate.types import Box

MEMORY, SECONDS = 2**30, 10.0
"""What a case may take: bytes beyond those that its process begins with, and time."""

Files = dict[str, bytes]
"""The files of a folder, by their places in it."""


@dataclass(frozen=True)
class Target:
    """What is altered and who reads it: `make` gives sound folders, `act` reads one of them, `altered` names the files
    that are altered (all by default)."""

    make: Callable[[], list[Files]]
    act: Callable[[Path], object]
    altered: str = ""


# What is sound -----------------------------------------------------------------------------------------------------

_SIDE = 40
_Y, _X = np.mgrid[:_SIDE, :_SIDE]
_GREY = ((_Y * 5 + _X * 3) % 251).astype(np.uint8)
_RGB = np.dstack([_GREY, _GREY[::-1], _GREY[:, ::-1]])
_STACK = np.stack([_GREY, _GREY.T]).astype(np.uint16) * 200


def _tiff(pixels: np.ndarray, **options: object) -> bytes:
    with io.BytesIO() as file:
        tifffile.imwrite(file, pixels, **options)
        return file.getvalue()


def _pyramid() -> bytes:
    with io.BytesIO() as file:
        with tifffile.TiffWriter(file, bigtiff=True, ome=True) as writer:
            options = {"photometric": "rgb", "tile": (16, 16), "compression": "zlib"}
            writer.write(
                _RGB, subifds=2, metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, **options
            )
            writer.write(_RGB[::2, ::2], subfiletype=1, metadata=None, **options)
            writer.write(_RGB[::4, ::4], subfiletype=1, metadata=None, **options)
        return file.getvalue()


def _tiffs() -> list[Files]:
    packed = ["lzw", "zlib", "zstd", "packbits", "lzma", "jpeg2000"]
    made = [
        *(_tiff(_GREY, compression=one, tile=tile) for one in packed for tile in ((16, 16), None)),
        *(_tiff(_GREY.astype(kind), bigtiff=big) for kind in (np.uint8, ">u2", np.float32) for big in (False, True)),
        *(_tiff(_RGB, photometric="rgb", compression="jpeg", tile=tile) for tile in ((16, 16), None)),
        _tiff(_STACK, imagej=True, metadata={"axes": "CYX", "Labels": ["DAPI", "GFP"]}),
        _tiff(_STACK, ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}),
        _tiff(_STACK, photometric="minisblack", metadata={"axes": "CYX"}, compression="zlib"),
        _tiff(np.moveaxis(_RGB, 2, 0), photometric="rgb", planarconfig="separate"),
        _tiff(_GREY > 99),
        _tiff(_GREY, photometric="palette", colormap=np.arange(768, dtype=np.uint16).reshape(3, 256)),
        _tiff(_GREY, compression="zlib", predictor=True, rowsperstrip=7, description="Aperio Image |MPP = 0.25"),
        _pyramid(),
    ]
    return [{"image.tif": data} for data in made]


def _pngs() -> list[Files]:
    made = [_GREY, _RGB, np.dstack([_RGB, _GREY]), _GREY.astype(np.uint16) * 200]
    return [{"image.png": imagecodecs.png_encode(one)} for one in made]


def _jpegs() -> list[Files]:
    made = [imagecodecs.jpeg8_encode(_GREY), imagecodecs.jpeg8_encode(_RGB, level=70)]
    return [{"image.jpg": data} for data in made]


def _zarrs() -> list[Files]:
    import zarr

    found = []
    for version, shards in ((2, None), (3, None), (3, (40, 40))):
        with tempfile.TemporaryDirectory() as name:
            group = zarr.create_group(Path(name), zarr_format=version)
            more = {"shards": shards} if shards else {}
            array = group.create_array("0", shape=_GREY.shape, chunks=(20, 20), dtype="u1", **more)
            array[:] = _GREY
            scale = [{"type": "scale", "scale": [0.5, 0.5]}]
            axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
            image = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "version": "0.4"}]
            group.attrs.update(
                {"multiscales": image} if version == 2 else {"ome": {"version": "0.5", "multiscales": image}}
            )
            found.append({f"image.zarr/{place}": data for place, data in _read(Path(name)).items()})
    return found


def _outlines() -> list[Files]:
    from nucleate.io.formats import geojson, imagej_roi
    from nucleate.io.instances import Instance, Instances
    from nucleate.types import Nucleus

    class Two(Instances):
        name, shape, count = "image", (_SIDE, _SIDE), 2

        def read(self, box: Box) -> np.ndarray:
            return np.zeros(box.shape, np.uint32)

        def __iter__(self) -> Iterator[Instance]:
            for number in (1, 2):
                mask = np.ones((6, 8), bool)
                mask[2:4, 3:5] = number == 1
                nucleus = Nucleus(number, 9.0 * number, 8.0, 44, 7.5, 10.0, 0.5)
                yield Instance(nucleus, Box(9 * number, 5, 6, 8), mask)

    with tempfile.TemporaryDirectory() as name:
        places = [Path(name) / "image.geojson", Path(name) / "image_rois.zip"]
        geojson.write(places[0], Two())
        imagej_roi.write(places[1], Two())
        return [{place.name: place.read_bytes()} for place in places]


def _records() -> list[Files]:
    record = {
        "kind": "nucleate prediction",
        "image": str(Path(tempfile.gettempdir()) / "image.tif"),
        **{"level": 0, "origin": [0, 0], "shape": [40, 40], "downsample": 1.0, "pixel_size": 0.5, "count": 2},
        **{"files": {"tif": "image_labels.tif", "csv": "image.csv"}, "identity": "0" * 32, "environment": None},
    }
    return [{"image.json": json.dumps(record, indent=2).encode()}]


def _models() -> list[Files]:
    from nucleate.networks.store import locate

    return [_read(locate("fluorescence"))]


def _checkpoints() -> list[Files]:
    import torch

    from nucleate.training.checkpoint import FILE, Checkpoint, TrainingState

    row = {"epoch": 1, "train_loss": 0.5, "valid_loss": 0.5, "score": 0.5, "panoptic_quality": 0.5}
    with tempfile.TemporaryDirectory() as name:
        tensors = {"network/stem.weight": torch.ones(4, 1, 3, 3), "optimiser.0/step": torch.tensor(3.0)}
        Checkpoint(Path(name)).write(tensors, TrainingState(step=3, history=[row]), {"seed": 0})
        return [{FILE: (Path(name) / FILE).read_bytes()}]


def _work_folders() -> list[Files]:
    from nucleate.inference.resume import open_work

    with tempfile.TemporaryDirectory() as name:
        store = open_work(Path(name), "image", {"image": "0", "tile": 64})
        store.put("block", {"heat": np.arange(12, dtype=np.float32), "labels": np.ones((3, 4), np.int32)})
        return [_read(Path(name))]


def _curves() -> list[Files]:
    rows = [{"epoch": n, "train_loss": 1 / n, "valid_loss": 1 / n + 0.1, "score": 1 - 1 / n} for n in range(1, 30)]
    lines = "\n".join(json.dumps(row) for row in rows)
    table = "epoch,train,valid\n" + "\n".join(f"{n},{1 / n},{1 / n + 0.1}" for n in range(1, 30))
    return [{"curve.csv": table.encode()}, {"curve.csv": lines.encode()}]


def _read(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Who reads it ------------------------------------------------------------------------------------------------------


def _image(path: Path) -> None:
    """As `predict` and `check` do: by boxes, and as a whole."""
    with contextlib.suppress(NucleateError), open_reader(path) as reader:
        _ends(reader)
        if len(reader.levels) > 1:
            with open_reader(path, len(reader.levels) - 1) as lowest:
                _ends(lowest)
    with contextlib.suppress(NucleateError):
        read_image(path)
    with contextlib.suppress(NucleateError):
        read_labels(path)


def _ends(reader: Reader) -> None:
    height, width = (min(side, 64) for side in reader.shape)
    reader.read(Box(0, 0, height, width))
    reader.read(Box(reader.shape[0] - height, reader.shape[1] - width, height, width))


def _only(folder: Path) -> Path:
    return next(folder.iterdir())


def _model(folder: Path) -> None:
    from nucleate.networks.store import read, read_history

    with contextlib.suppress(NucleateError):
        read(folder)
    with contextlib.suppress(NucleateError):
        read_history(folder)


def _checkpoint(folder: Path) -> None:
    from nucleate.training.checkpoint import Checkpoint

    Checkpoint(folder).read({"seed": 0})


def _work(folder: Path) -> None:
    from nucleate.inference.resume import open_work

    open_work(folder, "image", {"image": "0", "tile": 64}).get("block")


def _curve(folder: Path) -> None:
    from nucleate.curves.compare import outcomes
    from nucleate.curves.history import read

    outcomes(read(_only(folder)))


TARGETS = {
    "tiff": Target(_tiffs, lambda folder: _image(_only(folder))),
    "png": Target(_pngs, lambda folder: _image(_only(folder))),
    "jpeg": Target(_jpegs, lambda folder: _image(_only(folder))),
    "zarr": Target(_zarrs, lambda folder: _image(_only(folder))),
    "outlines": Target(_outlines, lambda folder: read_labels(_only(folder), (_SIDE, _SIDE))),
    "record": Target(_records, lambda folder: read_record(_only(folder))),
    "model": Target(_models, _model, altered=r"model\.json|history\.jsonl|weights\.safetensors"),
    "checkpoint": Target(_checkpoints, _checkpoint),
    "work": Target(_work_folders, _work),
    "curves": Target(_curves, _curve),
}
IMAGES = ("tiff", "tiff", "tiff", "tiff", "png", "jpeg", "zarr", "outlines")
"""The targets that are no files of our own; most ways to go wrong are in TIFF."""

# What is altered ---------------------------------------------------------------------------------------------------

_EDGES = (0, 1, 2, 7, 8, 255, 256, 2**15, 2**16 - 1, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63)
_TOKENS = (
    *(
        b"1e999",
        b"-1",
        b"0",
        b"99999999999999999999",
        b"NaN",
        b"Infinity",
        b"null",
        b"true",
        b'""',
        b"[]",
        b"{}",
        b"1.5",
    ),
    *(
        b'"\\u0000"',
        b"[" * 5000,
        b'{"a":' * 3000,
        b'"../../x"',
        b"-0.0",
        b"[[1]]",
        b"\xff",
        b"1" * 5000,
        b'"' + b"x" * 200000,
    ),
)
_TEXT = re.compile(rb'"[^"\n]{0,80}"|-?\d+\.?\d*|[\[\]{},:]|\w+')


def altered(data: bytes, chance: random.Random) -> bytes:
    """The bytes of a file with one to four changes."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        if not changed:
            break
        if b"\0" not in data[:64] and chance.random() < 0.7:
            _alter_text(changed, chance)
        else:
            _alter_bytes(changed, chance)
    return _with_checksums(bytes(changed)) if data[:4] == b"\x89PNG" and chance.random() < 0.7 else bytes(changed)


def _alter_text(data: bytearray, chance: random.Random) -> None:
    tokens = [match.span() for match in _TEXT.finditer(bytes(data[:100_000]))]
    if tokens:
        begin, end = chance.choice(tokens)
        data[begin:end] = chance.choice((*_TOKENS, b"", bytes(data[begin:end]) * 2))


def _alter_bytes(data: bytearray, chance: random.Random) -> None:
    reach = chance.choice((64, 400, len(data)))
    at = chance.choice((chance.randrange(min(reach, len(data))), max(0, len(data) - 1 - chance.randrange(reach))))
    way = chance.randrange(8)
    if way == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif way == 1:
        data[at] = chance.randrange(256)
    elif way in (2, 3, 4):
        size = chance.choice((2, 4, 8))
        value = (chance.choice(_EDGES) - chance.choice((0, 0, 1))) % 2 ** (8 * size)
        data[at : at + size] = struct.pack(chance.choice("<>") + {2: "H", 4: "I", 8: "Q"}[size], value)
    elif way == 5:
        del data[at : at + chance.choice((1, 4, 12, 100, len(data)))]
    elif way == 6:
        data[at:at] = data[at : at + chance.choice((1, 12, 100))]
    else:
        other = chance.randrange(len(data))
        data[at : at + 12] = data[other : other + 12]


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, so that what is in them is looked at."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out + data[at:]


@cache
def _sound(name: str) -> list[Files]:
    return TARGETS[name].make()


def case(seed: int, number: int, names: tuple[str, ...], folder: Path) -> str:
    """Write case `number` into a folder that is made anew; the name of its target."""
    chance = random.Random(f"{seed} {number}")
    name = chance.choice(names)
    files = chance.choice(_sound(name))
    choices = [one for one in sorted(files) if re.fullmatch(TARGETS[name].altered or ".*", one)]
    broken = chance.choice(choices)
    shutil.rmtree(folder, ignore_errors=True)
    for place, data in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(altered(data, chance) if place == broken else data)
    if name == "model" and broken == "weights.safetensors":  # who alters the weights can alter their checksum
        manifest, now = folder / "model.json", hashlib.sha256((folder / broken).read_bytes()).hexdigest()
        manifest.write_text(re.sub(r'(?<="weights_sha256": ")\w+', now, manifest.read_text()))
    return name


def attempt(name: str, folder: Path) -> str | None:
    """What a case raised that is no sentence; None where all is well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TARGETS[name].act(folder)
    except NucleateError as error:
        if "does not fit in memory" in str(error):
            return f"memory: {error}"
    except MemoryError as error:
        return f"memory: {error!r}"
    except Exception:
        return f"traceback: {traceback.format_exc()}"
    return None


# Many of them ------------------------------------------------------------------------------------------------------


def _work_off(line: Connection, seed: int, names: tuple[str, ...], folder: Path) -> None:
    """Read the cases whose numbers come down the line, with little memory."""
    for name in set(names):
        _sound(name)
        case(seed, 0, (name,), folder)
        attempt(name, folder)  # what is loaded on the way is no memory of a case
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    line.send("ready")
    while (number := line.recv()) is not None:
        name = case(seed, number, names, folder)
        line.send((name, attempt(name, folder)))


class _Worker:
    def __init__(self, seed: int, names: tuple[str, ...], folder: Path) -> None:
        self.folder, self._line = folder, None
        self._begin = lambda: self._start(seed, names)

    def _start(self, seed: int, names: tuple[str, ...]) -> None:
        context = multiprocessing.get_context("fork")
        self._line, end = context.Pipe()
        self._process = context.Process(target=_work_off, args=(end, seed, names, self.folder), daemon=True)
        self._process.start()
        end.close()
        self._line.recv()

    def run(self, number: int, names: tuple[str, ...], seed: int) -> tuple[str, str | None]:
        if self._line is None:
            self._begin()
        assert self._line is not None
        self._line.send(number)
        try:
            if self._line.poll(SECONDS):
                return self._line.recv()
            what = f"hang: more than {SECONDS:g} s"
        except EOFError:
            self._process.join()
            what = f"crash: exit code {self._process.exitcode}"
        self._process.kill()
        self._process.join()
        self._line = None
        return case(seed, number, names, self.folder), what


def run(count: int, seed: int, names: tuple[str, ...], keep: Path | None, first: int = 0) -> dict[str, Counter[str]]:
    """Work off the cases, one after the other; by target how many went how."""
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        worker = _Worker(seed, names, Path(scratch) / "case")
        for number in range(first, first + count):
            name, failure = worker.run(number, names, seed)
            kind = failure.partition(":")[0] if failure else "well"
            found.setdefault(name, Counter())[kind] += 1
            if failure and keep is not None:
                place = keep / f"{name}-{number}-{kind}"
                shutil.copytree(worker.folder, place, dirs_exist_ok=True)
                (place / "failure.txt").write_text(failure)
    return found


def _share(arguments: tuple[int, int, tuple[str, ...], Path | None, int]) -> dict[str, Counter[str]]:
    return run(*arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="a folder for the files that failed")
    parser.add_argument("--only", nargs="+", choices=sorted(TARGETS), default=sorted(TARGETS))
    options = parser.parse_args()
    begun, names = time.monotonic(), tuple(options.only)
    weighted = tuple(name for name in (*IMAGES, *TARGETS) if name in names)
    each = -(-options.count // options.jobs)
    shares = [(each, options.seed, weighted, options.keep, options.first + job * each) for job in range(options.jobs)]
    found: dict[str, Counter[str]] = {}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(options.jobs) as pool:
        for part in pool.map(_share, shares):
            for name, counts in part.items():
                found.setdefault(name, Counter()).update(counts)
    kinds = ("well", "traceback", "crash", "hang", "memory")
    print("target      " + "".join(f"{kind:>11}" for kind in kinds))
    for name, counts in sorted(found.items()):
        print(f"{name:12}" + "".join(f"{counts[kind]:11}" for kind in kinds))
    failed = sum(counts.total() - counts["well"] for counts in found.values())
    print(json.dumps({"cases": each * options.jobs, "failed": failed, "seconds": round(time.monotonic() - begun, 1)}))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
