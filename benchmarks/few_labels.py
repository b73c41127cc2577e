"""What helps where few images are labelled: from scratch, from a model, pre-trained, with pseudo-labels.

    python benchmarks/few_labels.py --data DATA --minutes 8                 # full length; nothing else on the machine
    python benchmarks/few_labels.py --data DATA --epochs 4 --labels 5       # the same steps however busy it is
    python benchmarks/few_labels.py --data DATA --epochs 4 --arms scratch "from the other" --modality brightfield

DATA holds MODALITY/{train,val,test}/{images,masks}/ID.png and fluorescence/few_labels.json (BBBC038v1). Draw D with N
labels: the first N images of list D are labelled, all other `train` images are seen without their masks, and nothing
else is. The lists of brightfield are drawn by the number. An arm is the commands that a person would type; it is scored
on the images of `--judge`: by default `rest`, the `train` images without labels, which are many more than those of
`val` and so tell arms apart that `val` cannot; what is chosen by the table can still be measured on `test`. What is
finished stays in --out, and a second call goes on from there. Prints for each arm the mean over draws,
and its paired difference from scratch with a 95% interval (Student's t over draws).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protocol import Case, run, score
from scipy.stats import t

from nucleate.postprocess.scores import mean_ap
from nucleate.training.choice import choose_start
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import load_labelled

MODALITIES = ("fluorescence", "brightfield")
PRETRAINING = 0.375
"""The part of the time that pre-training takes."""


@dataclass(frozen=True)
class Draw:
    """A case of few labels: the labelled images alone, and beside those without labels."""

    modality: str
    labels: int
    number: int
    folder: Path
    data: Path
    judge: str

    @property
    def labelled(self) -> Path:
        return self.folder / "labelled"

    @property
    def every(self) -> Path:
        return self.folder / "every"

    @property
    def case(self) -> Case:
        judge = self.folder / "rest" if self.judge == "rest" else self.data / self.modality / self.judge
        return Case(self.folder.name, self.labelled, None, judge, 1)

    def write(self) -> None:
        """Link the images; a mask that may not be read is not there."""
        source = self.data / self.modality / "train"
        names = sorted(path.name for path in (source / "images").iterdir())
        if self.modality == "fluorescence":
            lists = json.loads((self.data / self.modality / "few_labels.json").read_text())
            chosen = [f"{name}.png" for name in lists[str(self.number)]]
        else:
            chosen = random.Random(self.number).sample(names, len(names))
        few = chosen[: self.labels]
        rest = [name for name in names if name not in few]
        for folder, seen, masks in (
            (self.labelled, few, few),
            (self.every, names, few),
            (self.folder / "rest", rest, rest),
        ):
            for part, kept in (("images", seen), ("masks", masks)):
                (folder / part).mkdir(parents=True, exist_ok=True)
                for name in kept:
                    with contextlib.suppress(FileExistsError):  # another call may be making the same draw
                        (folder / part / name).symlink_to((source / part / name).absolute())


@dataclass(frozen=True)
class Limit:
    """Of a run: minutes, or epochs of 512 samples."""

    minutes: float | None
    epochs: int | None

    def part(self, share: float) -> list[str]:
        if self.minutes is not None:
            return ["--minutes", f"{share * self.minutes:g}"]
        assert self.epochs is not None
        return ["--epochs", str(max(1, round(share * self.epochs)))]


Arm = Callable[[Draw, Path, Limit], None]


def nucleate(*words: object) -> None:
    run([sys.executable, "-m", "nucleate", *words])


def train(draw: Draw, out: Path, limit: list[str], *options: object, every: bool = False) -> None:
    """On the labelled images alone, or on `every` image, those without labels among them."""
    folder = draw.every if every else draw.labelled
    nucleate("train", folder, "--out", out / "model", "--seed", draw.number, *limit, *options)


def scratch(draw: Draw, out: Path, limit: Limit) -> None:
    train(draw, out, limit.part(1), "--from", "scratch")


def other(draw: Draw, limit: Limit) -> str | Path:
    """A model of the other modality that never saw these images: the package's `fluorescence`; and, as its
    `brightfield` was trained from `fluorescence`, one of brightfield that is trained from scratch, once."""
    if draw.modality == "brightfield":
        return "fluorescence"
    model = draw.folder.parent / "brightfield"
    if not (model / "model.json").exists():
        source = draw.data / "brightfield"
        words = ("--validation", source / "val", "--from", "scratch", *limit.part(1))
        nucleate("train", source / "train", "--out", model, *words)
    return model


def from_other(draw: Draw, out: Path, limit: Limit) -> None:
    train(draw, out, limit.part(1), "--from", other(draw, limit))


def pretrained(*options: object) -> Arm:
    def arm(draw: Draw, out: Path, limit: Limit) -> None:
        words = ("--out", out / "first", "--seed", draw.number, *limit.part(PRETRAINING), *options)
        nucleate("pretrain", draw.every, *words)
        train(draw, out, limit.part(1 - PRETRAINING), "--from", out / "first")

    return arm


def pseudo(draw: Draw, out: Path, limit: Limit) -> None:
    train(draw, out, limit.part(1), "--from", "scratch", "--unlabelled", "pseudo", every=True)


def from_other_pseudo(draw: Draw, out: Path, limit: Limit) -> None:
    train(draw, out, limit.part(1), "--from", other(draw, limit), "--unlabelled", "pseudo", every=True)


def auto(draw: Draw, out: Path, limit: Limit) -> None:
    """By the rules of `training.choice`; the package's models that have seen these images are left out."""
    data = load_labelled(draw.labelled)
    start = choose_start(data, TrainingConfig(seed=draw.number), [str(other(draw, limit))])
    print(start.reason)
    train(draw, out, limit.part(1), "--from", start.parent or "scratch", "--unlabelled", "auto", every=True)


ARMS: dict[str, Arm] = {
    "scratch": scratch,
    "contrast": pretrained("--reconstruction", 0),
    "reconstruction": pretrained("--contrast", 0),
    "contrast and reconstruction": pretrained(),
    "pseudo-labels": pseudo,
    "from the other": from_other,
    "from the other, pseudo-labels": from_other_pseudo,
    "auto": auto,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--modality", nargs="+", choices=MODALITIES, default=MODALITIES)
    parser.add_argument("--labels", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=tuple(ARMS))
    parser.add_argument("--judge", choices=("rest", "val", "test"), default="rest")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "few_labels")
    options = parser.parse_args()
    if (options.minutes is None) == (options.epochs is None):
        parser.error("give --minutes or --epochs")
    limit = Limit(options.minutes, options.epochs)
    length = "-".join(limit.part(1)).strip("-")
    found: dict[tuple[str, int, str], dict[int, float]] = {}
    for number in options.draws:
        for modality in options.modality:
            for labels in options.labels:
                draw = Draw(
                    modality, labels, number, options.out / f"{modality}-{labels}-{number}", options.data, options.judge
                )
                draw.write()
                for arm in options.arms:
                    value = one(draw, arm, limit, length)
                    found.setdefault((modality, labels, arm), {})[number] = value
                    print(f"{modality}, {labels} labels, draw {number}, {arm}: {value:.4f}", flush=True)
    print(table(found))
    rows = [[*key, values] for key, values in found.items()]
    print(json.dumps({"limit": length, "judge": options.judge, "rows": rows}))


def one(draw: Draw, arm: str, limit: Limit, length: str) -> float:
    """The mean AP of an arm, made once."""
    out = draw.folder / length / arm.replace(", ", "-").replace(" ", "-")
    kept = out / f"{draw.judge}.json"
    if not kept.exists():
        if not (out / "model" / "model.json").exists():
            ARMS[arm](draw, out, limit)
        predicted = out / draw.judge
        nucleate("predict", out / "model", draw.case.test / "images", "--out", predicted, "--overwrite")
        kept.write_text(json.dumps(mean_ap(score(draw.case, predicted))))
    value: float = json.loads(kept.read_text())
    return value


def table(found: dict[tuple[str, int, str], dict[int, float]]) -> str:
    lines = [
        "| images | labels | arm | draws | mean AP | more than scratch | 95% interval |",
        "| --- | ---: | --- | ---: | ---: | ---: | --- |",
    ]
    for (modality, labels, arm), values in found.items():
        base = found.get((modality, labels, "scratch"), {})
        gains = [values[number] - base[number] for number in values if number in base]
        cells = ["", ""]
        if arm != "scratch" and gains:
            mean = statistics.fmean(gains)
            cells[0] = f"{mean:+.3f}"
            if len(gains) > 1:
                half = float(t.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / math.sqrt(len(gains))
                cells[1] = f"{mean - half:+.3f} to {mean + half:+.3f}"
        mean = statistics.fmean(values.values())
        lines.append(f"| {modality} | {labels} | {arm} | {len(values)} | {mean:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
