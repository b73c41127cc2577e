"""What the benchmarks on real nuclei share: the data, the two programs run as a user would, and one way of scoring.

Data: the folder that `--data` names, laid out as MODALITY/SPLIT/{images,masks}/ID.png with
fluorescence/few_labels.json (BBBC038v1 of the Broad Bioimage Benchmark Collection, CC0). StarDist: the Python of an
environment of its own, named by `--stardist`:

    python3 -m venv stardist && stardist/bin/pip install stardist==0.9.2 tensorflow-cpu==2.21.0
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from nucleate.io.label_file import read_labels
from nucleate.postprocess.matching import match
from nucleate.postprocess.scores import Scores, mean_ap, pool

HERE = Path(__file__).parent
PEER = HERE / "peers" / "stardist_run.py"
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Case:
    """Images to train on, to choose on (none: the program's own rule) and to score on, in one folder each."""

    name: str
    train: Path
    val: Path | None
    test: Path
    channels: int


def full(data: Path, modality: str) -> Case:
    channels = 1 if modality == "fluorescence" else 3
    return Case(f"full-{modality}", *(data / modality / split for split in ("train", "val", "test")), channels)


def few(data: Path, seed: int, labels: int, out: Path) -> Case:
    """The first `labels` images of a seed's list, copied to a folder of their own; nothing else is seen."""
    source = data / "fluorescence" / "train"
    ids = json.loads((data / "fluorescence" / "few_labels.json").read_text())[str(seed)][:labels]
    folder = out / "train"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name in ids:
            shutil.copyfile(source / part / f"{name}.png", folder / part / f"{name}.png")
    return Case(f"few{labels}-seed{seed}", folder, None, data / "fluorescence" / "test", 1)


def train_nucleate(case: Case, out: Path, minutes: float, seed: int) -> Path:
    """Train and predict through the command line; gives the folder of predictions. A finished part is kept."""
    command = [sys.executable, "-m", "nucleate"]
    model, predicted = out / "model", out / "predicted"
    if not (model / "model.json").exists():
        extra = ["--validation", str(case.val)] if case.val else []
        limits = ["--minutes", minutes, "--seed", seed, "--from", "scratch"]
        run([*command, "train", case.train, "--out", model, *limits, *extra])
    if not predicted.exists():
        run([*command, "predict", str(model), str(case.test / "images"), "--out", str(predicted)])
    return predicted


def train_stardist(case: Case, out: Path, minutes: float, seed: int, python: Path, steps: int) -> Path:
    """The same for StarDist. Where the case has no validation images it chooses on the labelled ones themselves."""
    out.mkdir(parents=True, exist_ok=True)
    predicted = out / "model" / "predicted"
    if not predicted.exists():
        plan = write_plan(case, out / "plan.json")
        run([python, PEER, "train", "--plan", plan, "--out", out / "model", "--minutes", minutes,
             "--seed", seed, "--steps", steps])  # fmt: skip
    return predicted


def write_plan(case: Case, path: Path) -> Path:
    def pairs(folder: Path) -> list[tuple[str, str]]:
        return [(str(p), str(folder / "masks" / p.name)) for p in sorted((folder / "images").glob("*.png"))]

    plan = {"train": pairs(case.train), "val": pairs(case.val or case.train), "test": pairs(case.test)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**plan, "channels": case.channels}))
    return path


def run(command: list[object]) -> str:
    """Run a command and give what it printed; its errors are shown where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=os.environ)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def score(case: Case, predicted: Path) -> Scores:
    """Pooled over the test images, by the matching of `nucleate evaluate`."""
    matchings = []
    for mask in sorted((case.test / "masks").glob("*.png")):
        found = next(p for p in (predicted / f"{mask.stem}_labels.tif", predicted / f"{mask.stem}.tif") if p.exists())
        matchings.append(match(read_labels(mask), read_labels(found)))
    return pool(matchings)


def row(scores: Scores) -> dict[str, float]:
    """AP at 0.5 to 0.9 and their mean, the mean over images, panoptic quality, AJI."""
    at = {level.threshold: level for level in scores.at}
    return {
        **{f"AP@{level}": round(at[level].ap, 4) for level in LEVELS},
        "mean AP": round(mean_ap(scores), 4),
        "mean AP by image": round(mean_ap(scores, over_images=True), 4),
        "PQ": round(scores.panoptic_quality, 4),
        "AJI": round(scores.aji, 4),
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """Rows as a Markdown table."""
    heads = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    lines += [
        f"| {name} | " + " | ".join(f"{values[head]:.3f}" for head in heads) + " |" for name, values in rows.items()
    ]
    return "\n".join(lines)
