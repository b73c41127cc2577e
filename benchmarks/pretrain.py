"""What pre-training without labels learns in some minutes, and how fast it is beside training.

    python benchmarks/pretrain.py --data DATA --minutes 10 [--seed 0] [--contrast 1] [--reconstruction 1]
    python benchmarks/pretrain.py --data DATA --speed 5

The first command pre-trains on the fluorescence `train` images, of which every fifth is held out, and prints how often
the other view of one of 256 held-out crops is the nearest: by chance, with random weights, and after each epoch. The
second takes crops of the same size through a step of training and a step of pre-training in turn, so many times, on one
thread, and prints crops a second. Both print JSON as their last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from nucleate.data.augment import AugmentationConfig, TrainingImage
from nucleate.data.sampler import Sampler
from nucleate.data.views import ViewSampler
from nucleate.networks.pretraining import PretrainingNetwork
from nucleate.networks.runtime import device, keep_memory, place
from nucleate.networks.unet import Architecture
from nucleate.report.pretraining import pretraining_files
from nucleate.training.contrast import PairBackpropagation, PretrainingConfig, PretrainingCriterion
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.fit import load_labelled
from nucleate.training.gradient import Backpropagation
from nucleate.training.optimiser import Optimiser
from nucleate.training.pretrain import BATCH, Pretrained, pretrain, run_config
from nucleate.training.trainer import new_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contrast", type=float, default=1.0)
    parser.add_argument("--reconstruction", type=float, default=1.0)
    parser.add_argument("--out", type=Path, help="keep the model here")
    parser.add_argument("--speed", type=int, help="measure the speed instead, so many times")
    options = parser.parse_args()
    folder = options.data / "fluorescence" / "train"
    print(json.dumps(speed(folder, options.speed) if options.speed else learn(folder, options)))


def learn(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Pre-train, and give what the held-out crops said."""
    kept: list[Pretrained] = []

    def files(pretrained: Pretrained) -> dict[str, bytes]:
        kept.append(pretrained)
        return pretraining_files(pretrained)

    config = run_config(seed=options.seed, minutes=options.minutes)
    what = PretrainingConfig.of(options.contrast, options.reconstruction)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary) / "model"
        manifest = pretrain(folder, out, config, what, phase=print, warn=print, extra_files=files)
    done = kept[0]
    for row in done.history:
        print(json.dumps(row), flush=True)
    training = manifest.training
    return {
        "crops": len(done.images),
        "images": len(set(done.images)),
        "chance": 1 / len(done.images),
        "before": done.before.score,
        "after": done.after.score,
        "spread": done.after.spread,
        "effective rank": done.after.effective_rank,
        "epochs": training.epochs,
        "steps": training.steps,
        "views": 2 * BATCH * training.steps,
        "seconds": training.seconds,
    }


def speed(folder: Path, times: int) -> dict[str, object]:
    """Crops a second of training and of pre-training, in turn, samples and optimiser included."""
    torch.set_num_threads(1)
    keep_memory()
    data, what = load_labelled(folder), PretrainingConfig()
    crop, number = what.view.variation.crop, 2 * BATCH
    variation = AugmentationConfig(crop=crop)
    labelled = Sampler([TrainingImage.of(image, labels) for image, labels in data.training], 0, variation)
    views = ViewSampler([torch.from_numpy(image) for image, _ in data.training], 0, what.view)
    network, criterion = new_network(Architecture(), 0), SegmentationCriterion()
    other = place(PretrainingNetwork(Architecture()), device())
    training, pairs = Backpropagation(network), PairBackpropagation(other, PretrainingCriterion(what))
    optimisers = Optimiser(network, 0.02), Optimiser(other, 0.02)

    def train(step: int) -> None:
        batch = labelled.batch(range(step * number, (step + 1) * number))
        training.backward(criterion, [batch], bfloat16=False)
        optimisers[0].step(0.001)

    def pretrain(step: int) -> None:
        pairs.of_pairs([views.batch(range(step * BATCH, (step + 1) * BATCH))], bfloat16=False)
        optimisers[1].step(0.001)

    rates: dict[str, list[float]] = {"training": [], "pre-training": []}
    works = {"training": train, "pre-training": pretrain}
    for step in range(times + 1):
        for name in list(works) if step % 2 else list(works)[::-1]:
            begin = time.perf_counter()
            works[name](step)
            rates[name].append(number / (time.perf_counter() - begin))
    # The first time is for compiling and taking memory.
    medians = {name: statistics.median(values[1:]) for name, values in rates.items()}
    ratios = [b / a for a, b in zip(rates["training"][1:], rates["pre-training"][1:], strict=True)]
    return {"crop": crop, "crops a second": medians, "ratio": statistics.median(ratios), "ratios": ratios}


if __name__ == "__main__":
    main()
