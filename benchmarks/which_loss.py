"""Which loss of the pixel classes finds real nuclei best, where few images are labelled.

    python benchmarks/which_loss.py --data DATA     # goes on where it was; prints the table of what is done so far
    python benchmarks/which_loss.py --quick         # drawn images and the shortest runs: whether it works

DATA holds fluorescence/{train,val}/{images,masks}/ID.png and fluorescence/few_labels.json (BBBC038v1). A run learns
from the first images of a seed's list and chooses its epoch and thresholds on a part of them, as `nucleate train` does
(`hold_out`). It is scored on the images of `val`, which it neither learns from nor chooses on. No image of `test` is
read: what is chosen by this table can still be measured there.

The runs are small, so that many fit: a narrow network, samples of 128 x 128, and a fixed number of steps, the same for
every loss, with the usual cool-down. The seed decides images, weights and samples, so the losses of one seed see the
same, and their differences from cross entropy are taken seed by seed. Each finished run is a file in --out. Seeds are
done one after the other, each with all losses, so that a table cut short compares like with like.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nucleate.data.augment import AugmentationConfig
from nucleate.data.dataset import find, pair
from nucleate.data.normalization import normalise
from nucleate.data.synthetic import fluorescence
from nucleate.inference.backends import TorchBackend
from nucleate.io.atomic import write_text
from nucleate.networks.unet import Architecture
from nucleate.postprocess.scores import mean_ap
from nucleate.training.config import TrainingConfig
from nucleate.training.hold_out import Pair, hold_out
from nucleate.training.parallel import Threads
from nucleate.training.segmentation import SegmentationTask, ValidationSet, tune_thresholds
from nucleate.training.trainer import Trainer, new_network
from nucleate.types import Thresholds

LOSSES = (
    "cross_entropy",
    "focal",
    "multiclass_hinge",
    "dice",
    "lovasz_softmax",
    "cross_entropy+0.5*dice",
    "cross_entropy+0.5*lovasz_softmax",
    "cross_entropy+0.02*boundary",
)
STANDARD = LOSSES[0]
NETWORK = Architecture(widths=(16, 32, 48))
SEEN, CHOOSING, SAMPLES = 256, 8, 96
"""Pixels of an image that is judged; the most whole images to choose on; samples of an epoch."""


@dataclass(frozen=True)
class Plan:
    data: Path | None
    out: Path
    losses: tuple[str, ...]
    labels: tuple[int, ...]
    seeds: int
    epochs: int

    def path(self, loss: str, labels: int, seed: int) -> Path:
        kind = "drawn" if self.data is None else "real"
        return self.out / f"{kind}-{self.epochs}" / f"{labels}-{seed}-{loss.replace('*', 'x')}.json"

    def runs(self) -> Iterator[tuple[int, int, str]]:
        for seed in range(self.seeds):
            for labels in self.labels:
                for loss in self.losses:
                    yield labels, seed, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="without it, drawn images")
    parser.add_argument("--losses", nargs="+", default=LOSSES)
    parser.add_argument("--labels", type=int, nargs="+", default=(5, 20))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "which_loss")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many")
    parser.add_argument("--quick", action="store_true")
    o = parser.parse_args()
    plan = Plan(o.data, o.out, tuple(o.losses), tuple(o.labels), o.seeds, o.epochs)
    if o.quick:
        plan = Plan(o.data, o.out, (STANDARD, "cross_entropy+0.5*dice"), (3,), seeds=1, epochs=1)
    begin, judged = time.monotonic(), None
    for labels, seed, loss in plan.runs():
        path = plan.path(loss, labels, seed)
        if path.exists() or time.monotonic() - begin > 60 * o.minutes:
            continue
        judged = judged or ValidationSet(_judged(plan.data))
        found = run(_labelled(plan.data, seed, labels), judged, loss, seed, plan.epochs)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"loss": loss, "labels": labels, "seed": seed, **found}))
        print(f"{path.name}: {found}", flush=True)
    print(table(plan))


def run(images: list[Pair], judged: ValidationSet, loss: str, seed: int, epochs: int) -> dict[str, float]:
    """Train, choose, and score on the images that the run has not seen."""
    begin = time.monotonic()
    pairs, chosen, _ = hold_out(images)
    if len(chosen) < len(pairs):  # whole images; with few labels they are strips, of which nothing may be cut
        chosen = [_middle(one) for one in chosen[:CHOOSING]]
    config = TrainingConfig(
        seed=seed, loss=loss, epochs=epochs, minimum=epochs, samples=SAMPLES, variation=AugmentationConfig(crop=128)
    )
    task = SegmentationTask(pairs, ValidationSet(chosen), config, NETWORK.classes)
    with Threads() as threads:
        result = Trainer(new_network(NETWORK, seed), task, config, parallel=threads).train()
    engine = TorchBackend(result.network)
    maps = task.validation.evaluate(engine, task.criterion, Thresholds()).maps
    thresholds, _ = tune_thresholds(task.validation, maps, Thresholds())
    scores = judged.evaluate(engine, task.criterion, thresholds).scores
    return {
        "steps": result.state.step,
        "mean AP": round(mean_ap(scores), 4),
        "PQ": round(scores.panoptic_quality, 4),
        "seconds": round(time.monotonic() - begin, 1),
    }


def table(plan: Plan) -> str:
    """Of each loss and number of labels: mean over seeds, standard deviation, and what it is less cross entropy."""
    heads = [
        f"{labels} labels: {what}" for labels in plan.labels for what in ("mean AP", "less that of cross entropy", "PQ")
    ]
    lines = ["| loss | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for loss in plan.losses:
        cells = [cell for labels in plan.labels for cell in _cells(plan, loss, labels)]
        lines.append(f"| `{loss}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(plan: Plan, loss: str, labels: int) -> tuple[str, str, str]:
    own, standard = (_found(plan, name, labels) for name in (loss, STANDARD))
    both = sorted(own.keys() & standard.keys())
    gained = [own[seed]["mean AP"] - standard[seed]["mean AP"] for seed in both] if loss != STANDARD else []
    return (
        _spread([one["mean AP"] for one in own.values()]),
        _spread(gained, sign="+"),
        _spread([one["PQ"] for one in own.values()]),
    )


def _found(plan: Plan, loss: str, labels: int) -> dict[int, dict[str, float]]:
    paths = {seed: plan.path(loss, labels, seed) for seed in range(plan.seeds)}
    return {seed: json.loads(path.read_text()) for seed, path in paths.items() if path.exists()}


def _spread(values: list[float], sign: str = "") -> str:
    """Mean, standard deviation and number of runs."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.3f}{spread} ({len(values)})"


def _labelled(data: Path | None, seed: int, labels: int) -> list[Pair]:
    if data is None:
        return _drawn(range(1000 * seed, 1000 * seed + labels))
    names = json.loads((data / "fluorescence" / "few_labels.json").read_text())[str(seed)][:labels]
    return _read(data / "fluorescence" / "train", names)


def _judged(data: Path | None) -> list[Pair]:
    images = _drawn(range(900_000, 900_006)) if data is None else _read(data / "fluorescence" / "val")
    return [_middle(one) for one in images]


def _drawn(seeds: range) -> list[Pair]:
    drawn = [fluorescence(seed=seed, height=160, width=160) for seed in seeds]
    return [(normalise(image, 1), labels) for image, labels in drawn]


def _read(folder: Path, names: list[str] | None = None) -> list[Pair]:
    files = {file.name: file for file in find(folder).labelled}
    read = [pair(files[name]) for name in names or sorted(files)]
    return [(normalise(image, 1), labels) for image, labels in read]


def _middle(one: Pair) -> Pair:
    """The middle of an image: no more than SEEN x SEEN pixels."""
    image, labels = one
    top, left = (max(0, (length - SEEN) // 2) for length in labels.shape)
    cut = np.s_[top : top + SEEN, left : left + SEEN]
    return np.ascontiguousarray(image[:, *cut]), np.ascontiguousarray(labels[cut])


if __name__ == "__main__":
    main()
