"""Keeps crops of their training images with the models of the package, for learning on-line (`training.replay`).

    python benchmarks/embedded_crops.py --data DATA [--old 24] [--sentinel 8]

DATA holds MODEL/{train,val}/{images,masks} (BBBC038v1, in the public domain), the images that the model was trained and
validated on. Old crops are of `train`, those of the sentinel set of `val`. Fewer than `nucleate train` keeps, so that
the package stays small. The same data give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from nucleate.data.dataset import find, pair
from nucleate.data.normalization import normalise
from nucleate.io.atomic import atomic, write_text
from nucleate.networks import store
from nucleate.training.hold_out import Pair
from nucleate.training.replay import Memory, crops


def pairs(folder: Path, channels: int) -> list[Pair]:
    """All labelled images of a folder, normalised."""
    return [(normalise(image, channels), labels) for image, labels in map(pair, find(folder).labelled)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--old", type=int, default=24)
    parser.add_argument("--sentinel", type=int, default=8)
    options = parser.parse_args()
    for name in store.EMBEDDED:
        folder = store.locate(name)
        channels = store.read_manifest(folder).architecture.channels
        part = 2 if channels > 1 else 1  # a crop in colour takes twice the bytes
        old, held_out = (pairs(options.data / name / split, channels) for split in ("train", "val"))
        memory = Memory(
            tuple(crops(old, options.old // part, [0, 0])),
            tuple(crops(held_out, options.sentinel // part, [0, 1])),
        )
        content = memory.encoded()
        with atomic(folder / store.REPLAY) as file:
            file.write(content)
        manifest = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
        manifest["replay_sha256"] = hashlib.sha256(content).hexdigest()
        write_text(folder / store.MANIFEST, json.dumps(manifest, indent=2) + "\n")
        print(f"{name}: {len(memory.old)} old crops and {len(memory.sentinel)} held out, {len(content):,} bytes")


if __name__ == "__main__":
    main()
