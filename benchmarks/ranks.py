"""Ranks beside threads: the same cores as one process with threads, and as ranks of one thread each.

    python benchmarks/ranks.py [--cores 2] [--rounds 5]

Alternates the two, round by round, and prints the medians and the ratio of each pair of runs: training steps of a batch
of 4 with the network that `nucleate train` takes, and the segmentation of a folder of small images. Needs
`pip install 'nucleate[mpi]'`. Images are drawn; the time to start Python and to load is left out of both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from nucleate import signals
from nucleate.data.synthetic.microscopy import write_folder
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.networks.store import locate, read
from nucleate.networks.unet import Architecture, UNet
from nucleate.parallel import Communicator, launch
from nucleate.training import fit
from nucleate.training.config import TrainingConfig
from nucleate.training.parallel import Threads
from nucleate.training.segmentation import SegmentationTask, ValidationSet
from nucleate.training.trainer import Trainer, new_network

BEFORE, STEPS = 4, 24
"""Training steps that are not timed, and that are."""

GRADIENT = sum(parameter.numel() for parameter in UNet(Architecture()).parameters())
"""Numbers that ranks sum in a step."""


def training(cells: Path, batch: int, ranks: Communicator) -> dict[str, Any]:
    """Seconds of each step, of which each waits for all ranks."""
    data = fit.load_labelled(cells)
    config = TrainingConfig(batch=batch)
    task = SegmentationTask(data.training, ValidationSet(data.validation), config, 2)
    with Threads() as threads:
        trainer = Trainer(new_network(Architecture(), 0), task, config, parallel=threads, ranks=ranks, bfloat16=False)
        taken = []
        for _ in range(BEFORE + STEPS):
            begin = time.perf_counter()
            trainer.step(trainer.batches())
            taken.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        trainer.task.evaluate(trainer.average.network, bfloat16=False, parallel=threads, ranks=ranks)
        validation = time.perf_counter() - begin
    return {"step": taken[BEFORE:], "validation": validation, "images": len(data.validation)}


def prediction(cells: Path, scratch: Path, ranks: Communicator) -> dict[str, Any]:
    """Seconds of the whole folder, once a first image has made everything ready."""
    predictor = Predictor(read(locate("fluorescence")), engine="torch")
    images = sorted((cells / "images").iterdir())
    predict(predictor, images[:1], scratch / "first", Request(), ranks=ranks)
    ranks.barrier()
    begin = time.perf_counter()
    predict(predictor, images, scratch / "all", Request(), ranks=ranks)
    ranks.barrier()
    return {"seconds": time.perf_counter() - begin, "images": len(images)}


def messages(ranks: Communicator, numbers: int) -> dict[str, Any]:
    """Seconds of a sum of one number and of the gradient's, medians."""
    found = {}
    for name, count in (("small", 1), ("gradient", numbers)):
        values, taken = torch.ones(count), []
        for _ in range(60):
            ranks.barrier()
            begin = time.perf_counter()
            ranks.sum(values)
            taken.append(time.perf_counter() - begin)
        found[name] = statistics.median(taken[10:])
    return found


def work(what: str, cells: Path, scratch: Path, batch: int) -> None:
    """What one rank does; the first one prints it."""
    ranks = launch.join()
    try:
        if what == "training":
            found = training(cells, batch, ranks)
        elif what == "prediction":
            found = prediction(cells, scratch, ranks)
        else:
            found = messages(ranks, GRADIENT)
    except BaseException as error:
        launch.end_others(error, 1)
        raise
    if ranks.rank == 0:
        print(json.dumps(found))
    signals.leave(0)


def run(what: str, cells: Path, ranks: int, threads: int, batch: int = 4) -> dict[str, Any]:
    """One job of so many ranks."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("mpiexec"), "-n", str(ranks)),
                *(sys.executable, Path(__file__).resolve(), "--work", what, cells, scratch, str(batch)),
            ],
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(threads),
                "OMP_WAIT_POLICY": "passive",
                "OMPI_ALLOW_RUN_AS_ROOT": "1",
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
                "PRTE_MCA_hwloc_default_binding_policy": "none",
            },
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def drawn(place: Path, images: int) -> Path:
    """A folder of labelled images of 256 x 256 pixels."""
    write_folder(place / "cells", "fluorescence", images, seed=0, height=256, width=256, diameter=20)
    return place / "cells"


def rate(what: str, found: dict[str, Any]) -> float:
    """Samples or images a second."""
    if what == "training":
        return 4 / statistics.median(found["step"])
    return float(found["images"] / found["seconds"])


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        cells = drawn(Path(place), 60)
        print("| | ranks x threads | a second, median | beside one process | of each round |")
        print("| --- | --- | ---: | ---: | --- |")
        for what in ("training", "prediction"):
            rates = {arm: list[float]() for arm in ((1, options.cores), (options.cores, 1))}
            for number in range(options.rounds):
                for arm in sorted(rates, reverse=number % 2 == 1):
                    rates[arm].append(rate(what, run(what, cells, *arm)))
            alone, together = rates.values()
            ratios = [many / one for one, many in zip(alone, together, strict=True)]
            print(f"| {what} | 1 x {options.cores} | {statistics.median(alone):.2f} | | |")
            listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(
                f"| {what} | {options.cores} x 1 | {statistics.median(together):.2f} |"
                f" {statistics.median(ratios):.2f} | {listed} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
