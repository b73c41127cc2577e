"""What many nodes would do: a model of training and prediction over ranks, from what is measured here.

    python benchmarks/scaling_model.py [--cores 2] [--rounds 3] [--node-speed 16]

Measures the time of a training step by its number of samples, of validation by image, of a message by its size, and of
the parts of a slide's prediction; compares the model with 1 to 4 ranks of one thread here; and prints the efficiency
expected at 8, 64 and 512 nodes with networks of 10 and 100 Gbit/s. `--node-speed` is how many times faster a node is
than one thread here. Needs `pip install 'nucleate[mpi]'`.

The model, for W ranks and a batch of B samples:

    step       = fixed + sample * ceil(B / W) + sum(gradient) + 3 sums of a few numbers
    sum(n)     = 2 ceil(log2 W) latency + 2 (W - 1) / W * bytes / bandwidth      (Rabenseifner, 2004)
    validation = image * ceil(V / W), once an epoch
    slide      = read and segment / W + write
    efficiency = time of one rank with its own share of the work / time of W ranks
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from ranks import GRADIENT, drawn, run

from nucleate.data.synthetic.microscopy import fluorescence
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.networks.store import locate, read

SMALL_SUMS = 3
"""Messages of a step besides the gradient: weights, totals, the time."""

NETWORKS = {"10 Gbit/s Ethernet": (30e-6, 1.1e9), "100 Gbit/s InfiniBand": (2e-6, 11e9)}
"""Latency in seconds and bytes a second that MPI reaches on them; assumed, not measured."""

SAMPLES, IMAGES = 512, 20
"""Samples of an epoch; validation images after it."""

SLIDE = 100_000**2 / 1e6
"""Megapixels of the slide that the table is about."""


@dataclass(frozen=True)
class Node:
    """Seconds of compute on a rank: of a step, of each of its samples, and of a validation image."""

    fixed: float
    sample: float
    image: float

    def faster(self, times: float) -> Node:
        return Node(self.fixed / times, self.sample / times, self.image / times)


@dataclass(frozen=True)
class Network:
    """`latency` in seconds, `bandwidth` in bytes a second."""

    latency: float
    bandwidth: float

    def sum(self, ranks: int, numbers: int) -> float:
        if ranks == 1:
            return 0.0
        moved = 2 * (ranks - 1) / ranks * 4 * numbers
        return 2 * math.ceil(math.log2(ranks)) * self.latency + moved / self.bandwidth


def step(node: Node, network: Network, ranks: int, batch: int, cores: float = math.inf) -> float:
    """Seconds of a step; ranks that are more than `cores` take turns."""
    turns = max(1.0, ranks / cores)
    compute = turns * (node.fixed + node.sample * math.ceil(batch / ranks))
    return compute + network.sum(ranks, GRADIENT) + SMALL_SUMS * network.sum(ranks, 1)


def epoch(node: Node, network: Network, ranks: int, batch: int) -> float:
    """Seconds of an epoch with its validation."""
    return SAMPLES / batch * step(node, network, ranks, batch) + node.image * math.ceil(IMAGES / ranks)


def measured_node(cells: Path, rounds: int) -> Node:
    """A line through the medians of steps of 1, 2 and 4 samples on one thread."""
    batches = (1, 2, 4)
    medians = {batch: list[float]() for batch in batches}
    image = []
    for number in range(rounds):
        for batch in sorted(batches, reverse=number % 2 == 1):
            found = run("training", cells, 1, 1, batch)
            medians[batch].append(statistics.median(found["step"]))
            image.append(found["validation"] / found["images"])
    sample, fixed = np.polyfit(batches, [statistics.median(medians[batch]) for batch in batches], 1)
    return Node(max(0.0, float(fixed)), float(sample), statistics.median(image))


def measured_slide(side: int = 3000) -> tuple[float, float]:
    """Seconds a megapixel, on one thread, to read and segment, and to write labels and a table, of a drawn slide."""
    pixels = fluorescence(0, side, side, diameter=20)[0].pixels[..., 0]
    predictor = Predictor(read(locate("fluorescence")), engine="torch")
    moments: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as place:
        tifffile.imwrite(Path(place) / "slide.tif", pixels, tile=(512, 512))
        begin = time.perf_counter()
        predict(
            predictor,
            [Path(place) / "slide.tif"],
            Path(place) / "out",
            Request(tile=1024, formats=("tif", "csv")),
            observe=lambda name, share, megapixels: moments.append((share, time.perf_counter() - begin)),
        )
        end = time.perf_counter() - begin
    segmented = max(moment for share, moment in moments if share <= 0.9)
    return segmented / (side * side / 1e6), (end - segmented) / (side * side / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--node-speed", type=float, default=16.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        cells = drawn(Path(place), 20)
        node = measured_node(cells, options.rounds)
        found = run("messages", cells, 2, 1)
        latency = found["small"] / 2
        here = Network(latency, 4 * GRADIENT / max(found["gradient"] - 2 * latency, 1e-9))
        print(
            f"Here, one thread a rank: {node.fixed:.3f} s a step, {node.sample:.3f} s a sample, {node.image:.3f} s an"
        )
        print(
            f"image of validation; {1e6 * latency:.0f} us latency, {here.bandwidth / 1e9:.2f} GB/s between two ranks;"
        )
        print(f"{4 * GRADIENT / 1e6:.2f} MB of gradient.\n")
        print("| ranks here | step, s | by the model, s | model / measured |\n| ---: | ---: | ---: | ---: |")
        for ranks in (1, 2, 3, 4):
            real = statistics.median(
                statistics.median(run("training", cells, ranks, 1)["step"]) for _ in range(options.rounds)
            )
            model = step(node, here, ranks, 4, options.cores)
            print(f"| {ranks} | {real:.3f} | {model:.3f} | {model / real:.2f} |", flush=True)
    fast = node.faster(options.node_speed)
    print(f"\nNodes {options.node_speed:g} times as fast as one thread here.\n")
    print("| training on | nodes | 4 samples a node and step | 64 samples a step in all | an epoch, 4 a node |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (latency, bandwidth) in NETWORKS.items():
        network = Network(latency, bandwidth)
        for ranks in (8, 64, 512):
            weak = step(fast, network, 1, 4) / step(fast, network, ranks, 4 * ranks)
            strong = step(fast, network, 1, 64) / (ranks * step(fast, network, ranks, 64))
            batch = min(4 * ranks, SAMPLES)
            whole = epoch(fast, network, 1, 4) / (ranks * epoch(fast, network, ranks, batch))
            print(f"| {name} | {ranks} | {weak:.2f} | {strong:.2f} | {whole:.2f} |")
    segment, write = (part * SLIDE / options.node_speed for part in measured_slide())
    print(f"\nA slide of {SLIDE:,.0f} megapixels: {segment / 60:.0f} min to segment, {write / 60:.0f} min to write.\n")
    print("| nodes | one slide, min | efficiency | efficiency with as many slides as nodes |")
    print("| ---: | ---: | ---: | ---: |")
    for ranks in (8, 64, 512):
        together = segment / ranks + write
        print(f"| {ranks} | {together / 60:.1f} | {(segment + write) / (ranks * together):.2f} | 1.00 |")


if __name__ == "__main__":
    main()
