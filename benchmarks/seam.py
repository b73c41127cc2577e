"""How many nuclei of a slide change with the size of its tiles: Nucleate's, StarDist's and Cellpose's.

    python benchmarks/seam.py nucleate --slide slide.tif --model MODEL [--float32] [--blocks 3072]
    python benchmarks/seam.py images   --data DATA --model MODEL [--float32] [--tiles 64 100 256]
    python benchmarks/seam.py stardist --slide slide.tif --python PYTHON --model DIR  [--side 6000]
    python benchmarks/seam.py cellpose --slide slide.tif --python PYTHON --model FILE [--side 3000]

The slide is one that benchmarks/slide.py assembles; the peers' models and environments are those of benchmarks/peers.
Each label image is compared with that of the whole in one piece (Cellpose: with that of its default tiles). A nucleus
*differs* where no nucleus of the other has exactly its pixels, and is *lost* where none overlaps it with an IoU of
0.5 or more; both are counted in the direction in which there are more. Numbers do not matter. For Nucleate, regions
cut out with `--region` are compared, too, up to their very border: with the same pixels of the whole.

With `--blocks` also the whole with another size of what the network sees at once. That size is fixed in Nucleate, as a
convolution may round differently for each: it shows what is left to the last bit then, not what a user meets.

With `images` each of the `test` images of DATA (see protocol.py) is grouped at once, straight from the network's
output, and in streamed tiles; the rows are sums over all images, so 0 means that no nucleus of any image differs.

Prints a table, and as its last line JSON.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from protocol import HERE, run

from nucleate.data.normalization import normalise
from nucleate.inference.block_store import MemoryBlockStore
from nucleate.inference.predictor import Predictor
from nucleate.io.reader import MemoryReader, read_image
from nucleate.networks.store import locate, read
from nucleate.postprocess.instances_from_maps import instances_from_maps

TILES = (256, 512, 1000, 2048)
ORIGINS = ((0, 0), (1, 1), (777, 1234), (1500, 301), (2999, 3000), (4097, 2048))
REGION = 1600

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Difference:
    """Of two label images of one slide; see the top."""

    nuclei: int
    others: int
    differ: int
    lost: int


def difference(labels: Labels, other: Labels) -> Difference:
    """
    >>> a = np.array([[1, 1, 0, 2, 2]])
    >>> difference(a, np.array([[7, 7, 0, 3, 0]]))
    Difference(nuclei=2, others=2, differ=1, lost=0)
    """
    areas, others = np.bincount(labels.ravel()), np.bincount(other.ravel())
    areas[0] = others[0] = 0
    common = (labels > 0) & (other > 0)
    pairs = labels[common].astype(np.int64) * len(others) + other[common]
    pairs, shared = np.unique(pairs, return_counts=True)
    a, b = np.divmod(pairs, len(others))
    union = areas[a] + others[b] - shared
    same, found = union == shared, 2 * shared >= union
    count, count_others = int((areas > 0).sum()), int((others > 0).sum())
    most = max(count, count_others)
    return Difference(count, count_others, most - int(same.sum()), most - min(map(len, (set(a[found]), set(b[found])))))


def predicted(options: argparse.Namespace, out: Path, *own: object, extra: Sequence[object] = ()) -> Labels:
    """Labels from segment.py with these options of its own and, behind `--`, of `nucleate predict`."""
    float32 = ["--float32"] if options.float32 else []
    command = [sys.executable, HERE / "segment.py", options.model, options.slide, "--out", out, *float32, *own]
    run([*options.through, *command, "--", "--engine", options.engine, "--format", "tif", *extra])
    labels: Labels = tifffile.imread(out / f"{options.slide.stem}_labels.tif")
    return labels


def nucleate(options: argparse.Namespace, folder: Path) -> dict[str, Difference]:
    with tifffile.TiffFile(options.slide) as tiff:
        shape = tiff.pages[0].shape
    whole = predicted(options, folder / "whole", "--whole", "--engine", options.engine)
    rows: dict[str, Difference] = {}

    def add(name: str, labels: Labels, other: Labels) -> None:
        rows[name] = difference(labels, other)
        print(f"{name}: {rows[name]}", flush=True)

    add("whole", whole, whole)
    for tile in options.tiles or TILES:
        add(f"tile {tile}", predicted(options, folder / f"{tile}", extra=["--tile", tile]), whole)
    for y, x in options.origins or ORIGINS:
        box = (y, x, min(REGION, shape[0] - y), min(REGION, shape[1] - x))
        if min(box[2:]) > 0:
            labels = predicted(options, folder / f"{y}_{x}", extra=["--region", *box])
            crop = whole[y : y + box[2], x : x + box[3]]
            add(f"region {' '.join(map(str, box))}", labels, crop)
    for block in options.blocks:
        add(
            f"network in blocks of {block}",
            predicted(options, folder / f"b{block}", "--whole", "--engine", options.engine, "--block", block),
            whole,
        )
    return rows


def images(options: argparse.Namespace, _: Path) -> dict[str, Difference]:
    model = read(locate(str(options.model)))
    predictor = Predictor(model, engine=options.engine, bfloat16=False if options.float32 else None)
    tiles = options.tiles or (64, 100, 256)
    sums = {f"tile {tile}": np.zeros(4, dtype=np.int64) for tile in tiles}
    for path in sorted((options.data / "fluorescence" / "test" / "images").glob("*")):
        reader = MemoryReader(read_image(path))
        pixels = normalise(reader.image, model.manifest.architecture.channels, model.normalisation)
        whole = instances_from_maps(predictor.engine(pixels), predictor.thresholds).labels
        for tile in tiles:
            pipeline = predictor.run(reader, MemoryBlockStore(), region=reader.box, tile=tile)
            labels = pipeline.instances(path.stem).read(reader.box)
            sums[f"tile {tile}"] += astuple(difference(labels, whole))
    return {name: Difference(*map(int, counts)) for name, counts in sums.items()}


def peer(options: argparse.Namespace, folder: Path) -> dict[str, Difference]:
    """The first size is what the others are compared with: 0, the whole, for StarDist, and 224 for Cellpose.

    Blocks of 256 do not hold the context and the overlap that StarDist asks for.
    """
    script, key, sizes = {
        "stardist": ("stardist_run.py", "--blocks", (0, 512, 1000, 2048)),
        "cellpose": ("cellpose_run.py", "--tiles", (224, 256, 512, 1000)),
    }[options.who]
    sizes = tuple(options.tiles or sizes)
    command = [options.python, HERE / "peers" / script, "slide", "--model", options.model, "--image", options.slide]
    print(run([*command, "--out", folder, "--side", options.side, key, *sizes]), flush=True)
    first = tifffile.imread(folder / f"{sizes[0]}.tif")
    names = {0: "whole"}
    return {
        names.get(size, f"tile {size}"): difference(tifffile.imread(folder / f"{size}.tif"), first) for size in sizes
    }


def table(rows: dict[str, Difference]) -> str:
    lines = ["| | nuclei | differ | lost |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {name} | {row.nuclei:,} | {row.differ:,} | {row.lost:,} |" for name, row in rows.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("who", choices=("nucleate", "images", "stardist", "cellpose"))
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--data", type=Path, help="images: where the data are")
    parser.add_argument("--model", required=True)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--tiles", type=int, nargs="+")
    parser.add_argument("--origins", type=int, nargs=2, action="append", metavar=("Y", "X"))
    parser.add_argument("--blocks", type=int, nargs="*", default=[], help="sides of what the network sees at once")
    parser.add_argument("--through", type=shlex.split, default=[], metavar="COMMAND", help="start each process with it")
    parser.add_argument("--python", type=Path, help="Python of the peer's environment")
    parser.add_argument("--side", type=int, default=6000, help="peers: only so much of the slide")
    parser.add_argument("--out", type=Path, help="keep the label images there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.out or Path(name)
        rows = {"nucleate": nucleate, "images": images}.get(options.who, peer)(options, folder)
    print(table(rows))
    print(json.dumps({"who": options.who, "rows": {name: asdict(row) for name, row in rows.items()}}))


if __name__ == "__main__":
    main()
