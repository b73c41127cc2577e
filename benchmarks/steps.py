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

from nucleate.inference.backends import TorchBackend
from nucleate.networks.unet import Architecture
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import LabelledImages, load_labelled
from nucleate.training.parallel import Threads
from nucleate.training.segmentation import SegmentationTask, ValidationSet, tune_thresholds
from nucleate.training.trainer import Trainer, new_network
from nucleate.types import Thresholds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--few", type=int, help="so many labelled images")
    options = parser.parse_args()
    case = full(options.data, "fluorescence")
    images = load_labelled(case.train, case.val)
    names = sorted(path.stem for path in (case.train / "images").glob("*.png"))
    labelled, known = choose(options, images)
    left_out = [pair for index, pair in enumerate(images.training) if index % 6 == 5 and names[index] not in known]
    judges = ValidationSet([*images.validation, *left_out])
    architecture = Architecture(channels=len(images.channels))
    config = TrainingConfig(seed=options.seed, epochs=1, samples=options.steps * TrainingConfig().batch)
    tuned_on = ValidationSet(labelled.validation) if options.few else judges
    task = SegmentationTask(labelled.training, tuned_on, config)
    with Threads() as threads:
        result = Trainer(new_network(architecture, config.seed), task, config, parallel=threads).train()
    criterion, engine = task.criterion, TorchBackend(result.network)
    thresholds, _ = tune_thresholds(tuned_on, tuned_on.evaluate(engine, criterion, Thresholds()).maps, Thresholds())
    judgement = judges.evaluate(engine, criterion, thresholds)
    rows = {"all": row(judgement.scores)}
    rows["val"] = row(ValidationSet(images.validation).evaluate(engine, criterion, thresholds).scores)
    print(table(rows))
    errors = {"training error": result.state.history[-1]["train_loss"], "error": judgement.loss}
    print(json.dumps({"steps": options.steps, "few": options.few, **errors, "rows": rows}))


def choose(options: argparse.Namespace, images: LabelledImages) -> tuple[LabelledImages, set[str]]:
    """What is learnt from, and the names of the images that it may share with those left out."""
    if options.few is None:
        rest = [pair for index, pair in enumerate(images.training) if index % 6 != 5]
        return replace(images, training=rest), set()
    with tempfile.TemporaryDirectory() as folder:
        case = few(options.data, options.seed, options.few, Path(folder))
        return load_labelled(case.train), {path.stem for path in (case.train / "images").iterdir()}


if __name__ == "__main__":
    main()
