"""Megapixels a second of each engine on one tile at a time, against PyTorch in float32, channels-last.

    python benchmarks/engines.py [--model MODEL] [--sides 512 1024] [--repeats 5]

The engines take turns (A, B, C, A, B, C ...), with all threads; medians are compared, with nothing else on the machine.
bfloat16 and 8-bit integers are measured where the processor has them. The speeds go into the table of
`nucleate.networks.runtime.PROCESSORS`, which decides what is used. Without `--model` the network is the default one,
with random weights; the numbers do not depend on them. Prints a table, and as its last line JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch

from nucleate.inference.backends import Backend
from nucleate.inference.quantize import calibrate
from nucleate.inference.select import make
from nucleate.networks.runtime import has_bfloat16, keep_memory, processor
from nucleate.networks.store import locate, read
from nucleate.networks.unet import UNet

REFERENCE = "torch float32"


def variants(network: UNet) -> dict[str, Callable[[], Backend]]:
    """The engines by name; each is made, and its packages loaded, when it is called."""
    found = {
        REFERENCE: lambda: make(network, "torch", bfloat16=False),
        "openvino float32": lambda: make(network, "openvino", bfloat16=False),
    }
    if has_bfloat16(torch.device("cpu")):
        found["torch bfloat16"] = lambda: make(network, "torch", bfloat16=True)
        found["openvino bfloat16"] = lambda: make(network, "openvino", bfloat16=True)
    if processor().int8:
        noise = torch.rand(network.architecture.channels, 256, 256).numpy()
        found["openvino int8"] = lambda: make(network, "openvino-int8", ranges=calibrate(network, [noise]))
    return found


def rates(engines: dict[str, Backend], side: int, repeats: int) -> dict[str, float]:
    """Megapixels a second of each engine on images of side x side, in turn, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(repeats + 1):
        for name, engine in engines.items():
            image = torch.rand(1, engine.architecture.channels, side, side)
            begin = time.perf_counter()
            engine.raw(image)
            seconds[name].append(time.perf_counter() - begin)
    return {name: side**2 / 1e6 / median(times[1:]) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model folder, or the name of an embedded one")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    keep_memory()
    network = read(locate(options.model)).network if options.model else UNet()
    engines, started = {}, {}
    for name, start in variants(network).items():
        begin = time.perf_counter()
        engines[name] = start()
        started[name] = time.perf_counter() - begin
    found = {side: rates(engines, side, options.repeats) for side in options.sides}
    print(f"{processor().name}; megapixels/s, in brackets against {REFERENCE}")
    print(f"{'engine':20}{'start, s':>10}" + "".join(f"{side:>16}" for side in options.sides))
    for name in engines:
        cells = (f"{found[side][name]:8.2f} ({found[side][name] / found[side][REFERENCE]:.2f})" for side in found)
        print(f"{name:20}{started[name]:>10.2f}" + "".join(f"{cell:>16}" for cell in cells))
    report = {"processor": processor().name, "seconds_to_start": started, "megapixels_per_second": found}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
