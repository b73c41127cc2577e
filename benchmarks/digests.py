"""What the embedded models and a short training run compute, as digests: a change of form must not change them.

    python benchmarks/digests.py before.json --data DATA      # before a change
    python benchmarks/digests.py after.json --data DATA       # after it
    python benchmarks/digests.py after.json --compare before.json

Of each image, model and engine a digest of the labels, of the table and of the entropy; of a run of 30 steps one of its
weights. `--data` adds ten real images (BBBC038v1). They belong to one kind of processor: another rounds differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from safetensors.numpy import load_file

MODELS = {"fluorescence": "fluorescence", "brightfield": "tissue"}
"""The embedded models, and the style of the images that are drawn for each."""

ENGINES = ("torch", "openvino", "openvino-int8")

DRAW = """
import sys
from pathlib import Path
from nucleate.data.synthetic import write_folder
for style in ("fluorescence", "tissue"):
    write_folder(Path(sys.argv[1]) / style, style, 3, 17, height=320, width=400)
"""

TRAIN = """
import sys
from pathlib import Path
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import fit
fit(Path(sys.argv[1]), Path(sys.argv[2]), TrainingConfig(seed=0, epochs=1, samples=120))
"""


def run(script: str, *arguments: Path) -> None:
    subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=True)


def predict(model: str, engine: str, images: list[Path], out: Path) -> bool:
    """Whether this processor has the engine."""
    command = [sys.executable, "-m", "nucleate", "predict", model, *map(str, images), "--out", str(out), "--entropy"]
    done = subprocess.run([*command, "--engine", engine], stdout=subprocess.DEVNULL)
    return done.returncode == 0


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def of_image(out: Path, name: str) -> dict[str, str]:
    labels = tifffile.imread(out / f"{name}_labels.tif").astype(np.uint32)
    entropy = tifffile.imread(out / f"{name}_entropy.tif").astype(np.float32)
    return {
        "labels": digest(labels.tobytes()),
        "table": digest((out / f"{name}.csv").read_bytes()),
        "entropy": digest(entropy.tobytes()),
    }


def of_weights(path: Path) -> str:
    """Of the values, whatever the tensors are called."""
    tensors = load_file(path)
    return digest(" ".join(sorted(digest(tensor.tobytes()) for tensor in tensors.values())).encode())


def collect(data: Path | None) -> dict[str, object]:
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run(DRAW, folder / "drawn")
        for model, style in MODELS.items():
            images = sorted((folder / "drawn" / style / "images").iterdir())
            if data is not None:
                real = sorted((data / "bbbc038" / model / "val" / "images").iterdir())
                images += real[:5]
            for engine in ENGINES:
                out = folder / f"{model}-{engine}"
                if predict(model, engine, images, out):
                    found |= {f"{model} {engine} {image.stem}": of_image(out, image.stem) for image in images}
        run(TRAIN, folder / "drawn" / "fluorescence", folder / "model")
        found["weights after 30 steps"] = of_weights(folder / "model" / "weights.safetensors")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", type=Path, help="Folder that holds bbbc038/.")
    parser.add_argument("--compare", type=Path, help="Compare `file` with this one; nothing is computed.")
    arguments = parser.parse_args()
    if arguments.compare is None:
        arguments.file.write_text(json.dumps(collect(arguments.data), indent=1) + "\n")
        return
    after, before = (json.loads(path.read_text()) for path in (arguments.file, arguments.compare))
    differs = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    for key in sorted(differs):
        print(f"{key}: {before.get(key)} -> {after.get(key)}")
    print(f"{len(differs)} of {len(before)} differ.")
    sys.exit(bool(differs))


if __name__ == "__main__":
    main()
