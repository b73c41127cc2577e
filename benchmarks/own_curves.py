"""Where the rule that ends a run would have ended Nucleate's own runs, and at what loss.

    python benchmarks/own_curves.py record --data DATA       # writes benchmarks/curves/*.csv; goes on where it was
    python benchmarks/own_curves.py score

DATA holds fluorescence/{train,val}/{images,masks}/ID.png and fluorescence/few_labels.json (BBBC038v1). A run learns
from 2, 5, 20 or all images of `train`, validates as `nucleate train` does (`hold_out`), and is scored after every
epoch on images of `val`, which it neither learns from nor chooses on. No image of `test` is read.

The runs are small, so that many fit, and made so that over-fitting comes within them: a narrow network; 12 steps of 4
crops of 64 pixels an epoch, which are turned by right angles and flipped but otherwise shown as they are; only the
middle 128 pixels of each image are learnt from; the learning rate is constant to the end.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import time
from pathlib import Path

import numpy as np

from nucleate.images.dataset import find, pair
from nucleate.images.intensity import normalise
from nucleate.images.writer import write_text
from nucleate.networks.unet import Architecture
from nucleate.objects.grouping import Thresholds
from nucleate.prediction.engine import TorchEngine
from nucleate.tiles.augment import Source
from nucleate.tiles.sample import Variation
from nucleate.training.offline import Settings, train
from nucleate.training.step import Objective
from nucleate.training.validation import Judgement, Pair, Validation, hold_out

CURVES = Path(__file__).parent / "curves"
EPOCHS = 64
PART, SEEN, CHOOSING = 128, 256, 8
"""Pixels of an image that are learnt from, and judged; the largest number of whole images held out for validation."""

NETWORK = Architecture(widths=(16, 32, 48))
PLAIN = Variation(
    crop=64, scale=1.0, unzoomed=0.0, stretch=1.0, turned=0.0, gamma=0.0, gain=0.0, shift=0.0, noise=0.0, blurred=0.0
)
LABELS: dict[str, int | None] = {"2": 2, "5": 5, "20": 20, "all": None}
COLUMNS = ("epoch", "train", "valid", "valid_score", "valid_pq", "test", "test_score", "test_pq")


def record(data: Path, out: Path) -> None:
    """Record every run that is not there yet, one after the other."""
    held_back = Validation([_middle(one, SEEN) for one in _read(data / "fluorescence" / "val")[::3]])
    lists = json.loads((data / "fluorescence" / "few_labels.json").read_text())
    for seed, loss, labels in itertools.product(range(5), ("cross_entropy", "focal"), LABELS):
        path = out / f"{labels}-{loss}-{seed}.csv"
        if not path.exists():
            start = time.monotonic()
            names = lists[str(seed)][: LABELS[labels]] if LABELS[labels] else None
            pairs, chosen, _ = hold_out(_read(data / "fluorescence" / "train", names))
            if len(chosen) < len(pairs):
                # Whole images; with few labels they are strips of the same ones, of which nothing may be cut.
                chosen = [_middle(one, SEEN) for one in chosen[:CHOOSING]]
            write_text(path, _run([_middle(one, PART) for one in pairs], chosen, held_back, seed, loss))
            print(f"{path.name}: {time.monotonic() - start:.0f} s", flush=True)


class Watched(Validation):
    """Judges the images that choose and, beside them, those held back; keeps what it found on the latter."""

    def __init__(self, chosen: list[Pair], held_back: Validation) -> None:
        super().__init__(chosen)
        self.held_back = held_back
        self.found: list[Judgement] = []

    def judge(self, engine: TorchEngine, objective: Objective, thresholds: Thresholds) -> Judgement:
        self.found.append(self.held_back.judge(engine, objective, thresholds))
        return super().judge(engine, objective, thresholds)


def _run(pairs: list[Pair], chosen: list[Pair], held_back: Validation, seed: int, loss: str) -> str:
    """Train for all epochs; the run as CSV."""
    watched = Watched(chosen, held_back)
    settings = Settings(
        seed=seed, loss=loss, epochs=EPOCHS, minimum=EPOCHS, batch=4, samples=48, learning_rate=5e-3, warm_up=50,
        cool_down=0.0, variation=PLAIN,
    )  # fmt: skip
    state = train([Source.of(*one) for one in pairs], watched, NETWORK, settings).state
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row, found in zip(state.history, watched.found, strict=True):
        own = (row["train_loss"], row["valid_loss"], row["score"], row["panoptic_quality"])
        other = (found.loss, found.score, found.scores.panoptic_quality)
        writer.writerow([row["epoch"], *(f"{value:.5g}" for value in own + other)])
    return text.getvalue()


def _read(folder: Path, names: list[str] | None = None) -> list[Pair]:
    """The labelled images of a folder, or those of these names in their order."""
    files = {file.name: file for file in find(folder).labelled}
    read = [pair(files[name]) for name in names or sorted(files)]
    return [(normalise(image, 1), labels) for image, labels in read]


def _middle(one: Pair, side: int) -> Pair:
    """The middle of an image: no more than side x side pixels."""
    image, labels = one
    top, left = (max(0, (length - side) // 2) for length in labels.shape)
    cut = np.s_[top : top + side, left : left + side]
    return np.ascontiguousarray(image[:, *cut]), np.ascontiguousarray(labels[cut])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "score"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=CURVES)
    options = parser.parse_args()
    record(options.data, options.out)


if __name__ == "__main__":
    main()
