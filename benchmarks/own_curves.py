"""Where the rule that ends a run would have ended Nucleate's own runs, and at what loss.

    python benchmarks/own_curves.py record --data DATA       # writes benchmarks/curves/*.csv; goes on where it was
    python benchmarks/own_curves.py cool --data DATA         # writes benchmarks/curves/cooled/*.csv; the same
    python benchmarks/own_curves.py score                    # all take --plan long, for the long runs

DATA holds fluorescence/{train,val}/{images,masks}/ID.png and fluorescence/few_labels.json (BBBC038v1). A run learns
from 2, 5, 20 or all images of `train`, validates as `nucleate train` does (`hold_out`), and is scored after every
epoch on images of `val`, which it neither learns from nor chooses on. No image of `test` is read.

The runs are small, so that many fit: a narrow network, samples of 128 x 128 varied as `nucleate train` varies them, a
learning rate that is constant to the end. There are two plans of them: the first (`--plan .`) of 48 epochs of 24 steps,
and `--plan long` of 64 epochs of 48 steps with few labels, in which over-fitting shows. There every image of two is
left out of a run in turn, too, and that run judged on it: cross-validation.

A recorded run has no cool-down, as its curve is to go on to the end. What `nucleate train --epochs` makes of the same
budget is a run whose learning rate falls to zero over its last steps: `cool` trains each run so and scores the weights
that it keeps. Regret of those counts what the cool-down gains.

The scores, less is better in all: epochs spent over those of the best epoch; regret in loss, the loss of the epoch
kept over the lowest of the run, less 1; regret in panoptic quality, the highest of the run less that of the epoch
kept. All three on the images held back. A rule keeps the epoch of lowest validation loss. "Nucleate" is
`LossAndScoreStopping`, which asks about loss and score, and keeps the epoch that `select_epoch` names.

The highest of many noisy numbers is too high. So the images held back are two halves, and beside the plain regret
stands the crossed one: the best epoch is chosen on one half, and it and the epoch kept are compared on the other; the
mean of both ways.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nucleate.curves.rules import FixedNumber, Patience, ProgressQuotient
from nucleate.data.augment import AugmentationConfig
from nucleate.data.dataset import find, pair
from nucleate.data.normalization import normalise
from nucleate.inference.backends import Backend, TorchBackend
from nucleate.io.atomic import write_text
from nucleate.networks.unet import Architecture
from nucleate.training.config import Limits, TrainingConfig
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.early_stopping import EarlyStopping, LossAndScoreStopping, select_epoch
from nucleate.training.hold_out import Pair, hold_out
from nucleate.training.parallel import Parallel, Threads
from nucleate.training.segmentation import SegmentationTask, ValidationResult, ValidationSet
from nucleate.training.stopping_rule import StoppingRule
from nucleate.training.trainer import Trainer, TrainingResult, new_network
from nucleate.types import Thresholds

CURVES = Path(__file__).parent / "curves"
SEEN, CHOOSING = 256, 8
"""Pixels of an image that are judged; the most whole images held out for validation."""

NETWORK = Architecture(widths=(16, 32, 48))


@dataclass(frozen=True)
class Plan:
    """The runs of one folder: numbers of labelled images, losses, seeds, epochs of a run and samples of an epoch; and
    for which numbers every image is left out of a run in turn."""

    labels: tuple[str, ...]
    losses: tuple[str, ...]
    seeds: int
    epochs: int
    samples: int
    folds: tuple[str, ...] = ()


PLANS = {
    ".": Plan(("2", "5", "20", "all"), ("cross_entropy", "focal"), 5, 48, 96),
    "long": Plan(("1", "2", "5"), ("cross_entropy",), 4, 64, 192, folds=("2",)),
}
HALVES = ("test_pq_a", "test_pq_b")
COLUMNS = ("epoch", "train", "valid", "valid_score", "valid_pq", "test_a", "test_b", "test_pq_a", "test_pq_b")


def record(data: Path, out: Path, plan: Plan) -> None:
    """Record every run that is not there yet, one after the other."""
    held_back = _held_back(data)
    for name, images, config in _runs(data, plan):
        pairs, chosen = _held_out(images)
        _write(out / f"{name}.csv", pairs, Watched(chosen, held_back), config)
        for left_out in range(len(images) if name.split("-")[0] in plan.folds else 0):
            rest = [one for index, one in enumerate(images) if index != left_out]
            watched = Watched([_middle(images[left_out], 2 * SEEN)])
            _write(out / "folds" / f"{name}-{left_out}.csv", rest, watched, config)


def cool(data: Path, out: Path, plan: Plan) -> None:
    """Train every run that is not there yet with its cool-down, and write what the weights kept are worth."""
    held_back = _held_back(data)
    for name, images, config in _runs(data, plan):
        path = out / "cooled" / f"{name}.csv"
        if path.exists():
            continue
        pairs, chosen = _held_out(images)
        result = _train(pairs, ValidationSet(chosen), replace(config, cool_down=TrainingConfig().cool_down))
        engine, criterion = TorchBackend(result.network), SegmentationCriterion(NETWORK.classes, config.loss)
        found = [half.evaluate(engine, criterion, Thresholds()) for half in held_back]
        values = [one.loss for one in found] + [one.scores.panoptic_quality for one in found]
        _save(path, ("epoch", *COLUMNS[5:]), [[result.state.best_epoch, *values]])
        print(f"{path.name}: {result.state.seconds:.0f} s", flush=True)


def _runs(data: Path, plan: Plan) -> Iterator[tuple[str, list[Pair], TrainingConfig]]:
    """Of each run its name, its labelled images and its config."""
    lists = json.loads((data / "fluorescence" / "few_labels.json").read_text())
    for seed, loss, labels in itertools.product(range(plan.seeds), plan.losses, plan.labels):
        images = _read(data / "fluorescence" / "train", None if labels == "all" else lists[str(seed)][: int(labels)])
        config = TrainingConfig(
            seed=seed, loss=loss, epochs=plan.epochs, minimum=plan.epochs, samples=plan.samples, learning_rate=4e-3,
            cool_down=0.0, variation=AugmentationConfig(crop=128),
        )  # fmt: skip
        yield f"{labels}-{loss}-{seed}", images, config


def _held_back(data: Path) -> tuple[ValidationSet, ...]:
    """The two halves of the images that no run learns from or chooses on."""
    others = [_middle(one, SEEN) for one in _read(data / "fluorescence" / "val")]
    return ValidationSet(others[::2]), ValidationSet(others[1::2])


def _held_out(images: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """What a run learns from, and what it chooses on."""
    pairs, chosen, _ = hold_out(images)
    if len(chosen) < len(pairs):
        # Whole images; with few labels they are strips of the same ones, of which nothing may be cut.
        chosen = [_middle(one, SEEN) for one in chosen[:CHOOSING]]
    return pairs, chosen


class Watched(ValidationSet):
    """Judges the images that choose and, beside them, those held back; keeps what it found on the latter."""

    def __init__(self, chosen: list[Pair], held_back: tuple[ValidationSet, ...] = ()) -> None:
        super().__init__(chosen)
        self.held_back = held_back
        self.found: list[tuple[float, ...]] = []

    def evaluate(
        self,
        engine: Backend,
        criterion: SegmentationCriterion,
        thresholds: Thresholds,
        parallel: Parallel | None = None,
    ) -> ValidationResult:
        halves = [half.evaluate(engine, criterion, thresholds, parallel) for half in self.held_back]
        self.found.append((*(one.loss for one in halves), *(one.scores.panoptic_quality for one in halves)))
        return super().evaluate(engine, criterion, thresholds, parallel)


def _write(path: Path, pairs: list[Pair], watched: Watched, config: TrainingConfig) -> None:
    """Train for all epochs, where that is not done yet; the run as CSV."""
    if path.exists():
        return
    start = time.monotonic()
    state = _train(pairs, watched, config).state
    rows = []
    for row, other in zip(state.history, watched.found, strict=True):
        rows.append([row["epoch"], row["train_loss"], row["valid_loss"], row["score"], row["panoptic_quality"], *other])
    _save(path, COLUMNS if watched.held_back else COLUMNS[:5], rows)
    print(f"{path.name}: {time.monotonic() - start:.0f} s", flush=True)


def _train(pairs: list[Pair], validation: ValidationSet, config: TrainingConfig) -> TrainingResult:
    task = SegmentationTask(pairs, validation, config, NETWORK.classes)
    with Threads() as threads:
        return Trainer(new_network(NETWORK, config.seed), task, config, parallel=threads).train()


def _save(path: Path, columns: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([epoch, *(f"{value:.5g}" for value in values)] for epoch, *values in rows)
    path.parent.mkdir(exist_ok=True, parents=True)
    write_text(path, text.getvalue())


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


RULES: dict[str, Callable[[], StoppingRule | LossAndScoreStopping]] = {
    "Nucleate": LossAndScoreStopping,
    "Nucleate, up to a limit": Limits(TrainingConfig(epochs=400)).stopping,
    "early stopping": EarlyStopping,
    "patience 10": lambda: Patience(10),
    "PQ 0.75": lambda: ProgressQuotient(0.75),
    "fixed 100": lambda: FixedNumber(100),
    "fixed 400": lambda: FixedNumber(400),
}
Run = dict[str, NDArray[np.float64]]


def score(folder: Path, plan: Plan, console: Console) -> None:
    """Print what each rule would have spent and lost, over all recorded runs and by the number of labels."""
    runs = {path.stem: load(path) for path in sorted(folder.glob("*.csv"))}
    for labels in ("all runs", *plan.labels):
        chosen = [run for name, run in runs.items() if labels in ("all runs", name.split("-")[0])]
        table = Table(title=f"{len(chosen)} runs of {plan.epochs} epochs, labelled images: {labels}")
        table.add_column("rule")
        for head in ("ended", "epochs", "/ best for loss", "/ best for PQ", "regret, loss", "regret, PQ", "crossed"):
            table.add_column(head, justify="right")
        for name, rule in RULES.items():
            values = np.array([_judge(rule(), run) for run in chosen])
            ended, spent, best_loss, best_pq, loss, quality, crossed = values.mean(axis=0)
            cells = (f"{ended:.0%}", f"{spent:.0f}", f"{spent / best_loss:.2f}", f"{spent / best_pq:.2f}")
            table.add_row(name, *cells, f"{loss:.2%}", f"{quality:.4f}", f"{crossed:+.4f}")
        console.print(table)
    _compare_kept(folder, runs, plan, console)
    if plan.folds:
        _compare_folds(folder, runs, console)
    rises = [run["valid"][-5:].mean() / run["valid"].min() - 1 for run in runs.values()]
    console.print(f"{np.mean(np.array(rises) > 0.02):.0%} end with a validation error more than 2% above their lowest.")
    change = np.mean([np.abs(np.diff(run["test_pq"][plan.epochs // 2 :])).mean() for run in runs.values()])
    console.print(f"Panoptic quality changes by {change:.4f} from epoch to epoch (mean over the second half).")


def _judge(rule: StoppingRule | LossAndScoreStopping, run: Run) -> tuple[float, ...]:
    """Whether it ended the run, epochs spent, those of the best for loss and for quality, and the three regrets."""
    for errors in zip(run["train"].tolist(), run["valid"].tolist(), run["valid_score"].tolist(), strict=True):
        decision = rule.update(*errors) if isinstance(rule, LossAndScoreStopping) else rule.update(*errors[:2])
        if decision.stop:
            break
    # As `nucleate train` does.
    epoch = (
        select_epoch(run["valid"][: decision.epoch].tolist())
        if isinstance(rule, LossAndScoreStopping)
        else decision.best_epoch
    )
    # A fixed number beyond what was recorded is spent all the same, and has at least the best epoch of the record.
    spent = rule.epochs if isinstance(rule, FixedNumber) else decision.epoch
    loss, quality = run["test"], run["test_pq"]
    lacks = (loss[epoch - 1] / loss.min() - 1, *regrets(run, epoch))
    return float(decision.stop), spent, loss.argmin() + 1, quality.argmax() + 1, *lacks


def regrets(run: Run, epoch: int) -> tuple[float, float]:
    """Regret in panoptic quality of keeping this epoch, plain and crossed."""
    return lacks(run, {half: run[half][epoch - 1] for half in HALVES})


def lacks(run: Run, kept: Mapping[str, float]) -> tuple[float, float]:
    """The same of keeping weights of this panoptic quality on either half."""
    a, b = HALVES
    crossed = [run[on][run[by].argmax()] - kept[on] for by, on in ((a, b), (b, a))]
    return float(run["test_pq"].max() - np.mean([kept[a], kept[b]])), float(np.mean(crossed))


KEPT: dict[str, Callable[[Run], int]] = {
    "`select_epoch`": lambda run: select_epoch(run["valid"].tolist()),
    "lowest validation loss": lambda run: int(run["valid"].argmin()) + 1,
    "highest validation score": lambda run: int(run["valid_score"].argmax()) + 1,
    "highest validation PQ": lambda run: int(run["valid_pq"].argmax()) + 1,
    "the last": lambda run: len(run["valid"]),
}


def _compare_kept(folder: Path, runs: dict[str, Run], plan: Plan, console: Console) -> None:
    """Print what it costs to keep which epoch of the whole run, and what the cool-down makes of it."""
    table = Table(title="Which epoch of a whole run to keep: regret in PQ, and crossed")
    for head in ("kept", *plan.labels, "all runs"):
        table.add_column(head)
    ways = {name: {key: regrets(run, choose(run)) for key, run in runs.items()} for name, choose in KEPT.items()}
    cooled = {path.stem: _columns(path) for path in (folder / "cooled").glob("*.csv")}
    if cooled.keys() == runs.keys():
        last = {key: {half: one[half][-1] for half in HALVES} for key, one in cooled.items()}
        ways["`select_epoch`, of a run with its cool-down"] = {key: lacks(runs[key], last[key]) for key in runs}
    for name, found in ways.items():
        groups = [[f for key, f in found.items() if key.split("-")[0] == labels] for labels in plan.labels]
        means = (np.mean(group, axis=0) for group in (*groups, list(found.values())))
        table.add_row(name, *(f"{plain:.4f} {crossed:+.4f}" for plain, crossed in means))
    console.print(table)


def _compare_folds(folder: Path, runs: dict[str, Run], console: Console) -> None:
    """Print what it costs to keep the epoch that cross-validation names: by the mean validation error of the runs from
    each of which one image was left out, and judged on it."""
    table = Table(
        title="By which validation error `select_epoch` chooses: epoch kept and regret in PQ, in brackets crossed"
    )
    names = [name for name in runs if list((folder / "folds").glob(f"{name}-*.csv"))]
    for head in ("run", "best", "strips", "images left out in turn", "the last"):
        table.add_column(head)
    found = []
    for name in names:
        run = runs[name]
        folds = np.mean([_columns(path)["valid"] for path in sorted((folder / "folds").glob(f"{name}-*.csv"))], axis=0)
        epochs = select_epoch(run["valid"].tolist()), select_epoch(folds.tolist()), len(folds)
        found.append([regrets(run, epoch) for epoch in epochs])
        cells = (
            f"{epoch}: {plain:.4f} ({cross:+.4f})" for epoch, (plain, cross) in zip(epochs, found[-1], strict=True)
        )
        table.add_row(name, f"{run['test_pq'].argmax() + 1}", *cells)
    means = np.mean(found, axis=0)
    table.add_row("mean", "", *(f"{plain:.4f} ({cross:+.4f})" for plain, cross in means))
    console.print(table)


def _columns(path: Path) -> Run:
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def load(path: Path) -> Run:
    run = _columns(path)
    halves = {name: (run[f"{name}_a"] + run[f"{name}_b"]) / 2 for name in ("test", "test_pq")}
    return {**run, **halves}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "cool", "score"))
    parser.add_argument("--data", type=Path, help="needed for all but score")
    parser.add_argument("--plan", choices=PLANS, default=".", help="which runs")
    parser.add_argument("--out", type=Path, default=CURVES)
    options = parser.parse_args()
    if options.what == "score":
        score(options.out / options.plan, PLANS[options.plan], Console(width=120))
    elif options.data is None:
        parser.error(f"{options.what} needs --data")
    else:
        {"record": record, "cool": cool}[options.what](options.data, options.out / options.plan, PLANS[options.plan])


if __name__ == "__main__":
    main()
