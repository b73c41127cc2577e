"""What benchmarks/fuzz.py alters: sound files of every format, and who reads them."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from nucleate.errors import NucleateError
from nucleate.io.base import Reader
from nucleate.io.label_file import read_labels
from nucleate.io.prediction_json import read_record
from nucleate.io.reader import open_reader, read_image
from nucleate.types import Box

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
