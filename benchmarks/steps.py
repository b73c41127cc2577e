"""What a run learns in a given number of steps: for comparing two versions of the code, whatever their speed.

    python benchmarks/steps.py --data DATA --steps 2000 [--seed 0] [--few 5]

Trains on the fluorescence `train` images but every sixth (or on the first `--few` of the seed's list), and scores the
averaged weights on the `val` images and on every sixth, none of which was learnt from. Thresholds are tuned on all of
these, with `--few` on the strips of the labelled ones. Run it in a checkout of each version. Prints a table, and as its
last line JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from protocol import few, full, row, table

from nucleate.data.augment import TrainingImage
from nucleate.inference.backends import TorchEngine
from nucleate.networks.unet import Architecture
from nucleate.training.criterion import Objective
from nucleate.training.fit import Labelled, load
from nucleate.training.trainer import Settings, train
from nucleate.training.validation import Validation, tune
from nucleate.types import Thresholds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--few", type=int, help="so many labelled images")
    options = parser.parse_args()
    case = full(options.data, "fluorescence")
    images = load(case.train, case.val)
    names = sorted(path.stem for path in (case.train / "images").glob("*.png"))
    labelled, known = choose(options, images)
    left_out = [pair for index, pair in enumerate(images.training) if index % 6 == 5 and names[index] not in known]
    judges = Validation([*images.validation, *left_out])
    architecture = Architecture(channels=len(images.channels))
    settings = Settings(seed=options.seed, epochs=1, samples=options.steps * Settings().batch)
    tuned_on = Validation(labelled.validation) if options.few else judges
    result = train([TrainingImage.of(*pair) for pair in labelled.training], tuned_on, architecture, settings)
    objective, engine = Objective(architecture.classes), TorchEngine(result.network)
    thresholds, _ = tune(tuned_on, tuned_on.judge(engine, objective, Thresholds()).maps, Thresholds())
    judgement = judges.judge(engine, objective, thresholds)
    rows = {"all": row(judgement.scores)}
    rows["val"] = row(Validation(images.validation).judge(engine, objective, thresholds).scores)
    print(table(rows))
    errors = {"training error": result.state.history[-1]["train_loss"], "error": judgement.loss}
    print(json.dumps({"steps": options.steps, "few": options.few, **errors, "rows": rows}))


def choose(options: argparse.Namespace, images: Labelled) -> tuple[Labelled, set[str]]:
    """What is learnt from, and the names of the images that it may share with those left out."""
    if options.few is None:
        rest = [pair for index, pair in enumerate(images.training) if index % 6 != 5]
        return replace(images, training=rest), set()
    with tempfile.TemporaryDirectory() as folder:
        case = few(options.data, options.seed, options.few, Path(folder))
        return load(case.train), {path.stem for path in (case.train / "images").iterdir()}


if __name__ == "__main__":
    main()
