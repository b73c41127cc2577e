"""One `nucleate predict` of one slide, in a process of its own, with a clock and a look at its memory.

    python benchmarks/segment.py MODEL slide.tif --out DIR [--float32] [--warm SLIDE] [-- --tile 512 --engine torch ...]
    python benchmarks/segment.py MODEL slide.tif --out DIR [--float32] --whole [--block 3072] [--engine torch]

What stands behind `--` goes to `nucleate predict`. With `--whole` all pixels are grouped at once, in memory, which the
command line does not offer for images this large; `--block` is the side of what the network sees at once. The other
benchmarks of slides call it.

The last line printed is JSON: `seconds` from the slide to the finished files, the model's start included, and `loading
seconds`, those of them that this start took;
`network seconds`, those of them in which at least one thread was inside the network; `peak`, the most resident memory
above that of the process with its packages and the model loaded, in MiB (VmHWM less VmRSS of /proc/self/status).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from nucleate import cli
from nucleate.inference import select
from nucleate.inference.backends import Backend
from nucleate.inference.block_store import MemoryBlockStore
from nucleate.inference.image_input import Selection, open_image
from nucleate.inference.predictor import Predictor
from nucleate.inference.quantize import Ranges
from nucleate.inference.sliding_window import SIDE
from nucleate.io.formats import label_tiff
from nucleate.networks.store import locate, read
from nucleate.networks.unet import UNet


class Clock:
    """When any thread was inside the network, and how long the model took to load."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self.loading = 0.0  # seconds until the model and its engine were ready

    def watch(self, engine: Backend) -> Backend:
        run = engine.run

        def timed(image: Tensor) -> Tensor:
            begin = time.perf_counter()
            try:
                return run(image)
            finally:
                self.spans.append((begin, time.perf_counter()))

        engine.run = timed  # of this engine alone, not of its class
        return engine

    def seconds(self) -> float:
        """The length of the spans' union."""
        total, reached = 0.0, 0.0
        for begin, end in sorted(self.spans):
            total += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return total


@contextmanager
def watched(*, float32: bool) -> Iterator[Clock]:
    """Meanwhile every engine is watched by a clock; where float32 is asked for, it computes in nothing else."""
    clock, make = Clock(), select.make  # through which the command line and `Predictor` get theirs

    def watched_make(
        network: UNet, name: str, *, bfloat16: bool | None = None, ranges: Ranges | None = None
    ) -> Backend:
        if float32:
            name, bfloat16 = name.removesuffix("-int8"), False
        return clock.watch(make(network, name, bfloat16=bfloat16, ranges=ranges))

    start = Predictor.__init__

    def watched_start(self: Predictor, *arguments: Any, **options: Any) -> None:
        begin = time.perf_counter()
        start(self, *arguments, **options)
        clock.loading += time.perf_counter() - begin

    with mock.patch.object(select, "make", watched_make), mock.patch.object(Predictor, "__init__", watched_start):
        yield clock


def memory(field: str) -> float:
    """MiB of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) / 1024


def report_progress(every: float) -> None:
    """Say each `every` seconds how much memory is held."""
    begin = time.monotonic()
    while True:
        time.sleep(every)
        print(f"{time.monotonic() - begin:.0f} s: {memory('VmRSS'):.0f} MiB, at most {memory('VmHWM'):.0f}", flush=True)


def predict(model: str, slide: Path, out: Path, extra: Sequence[str]) -> None:
    """`nucleate predict`; raises where it fails."""
    try:
        cli.main(["predict", model, str(slide), "--out", str(out), *extra])
    except SystemExit as end:
        if end.code not in (0, None):
            raise RuntimeError(f"nucleate predict ended with {end.code}") from end


def in_one_piece(options: argparse.Namespace) -> None:
    """Group all pixels at once."""
    predictor = Predictor(read(locate(options.model)), engine=options.engine, side=options.block)
    options.out.mkdir(parents=True, exist_ok=True)
    with open_image(options.slide, Selection()).reader as reader:
        pipeline = predictor.run(reader, MemoryBlockStore(), region=reader.box, tile=max(reader.shape))
        label_tiff.write(options.out / f"{reader.name}_labels.tif", pipeline.instances(reader.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("slide", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--whole", action="store_true", help="group all pixels at once")
    parser.add_argument("--block", type=int, default=SIDE, help="with --whole: pixels that the network sees at once")
    parser.add_argument("--engine", default="torch", help="with --whole: what runs the network")
    parser.add_argument("--warm", type=Path, help="an image that is segmented beforehand, so that all is loaded")
    parser.add_argument("--progress", type=float, help="say each so many seconds how much memory is held")
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    options, extra = parser.parse_args(own), sys.argv[len(own) + 2 :]
    with watched(float32=options.float32) as clock:
        if options.warm:
            predict(options.model, options.warm, options.out / "warm", extra)
            clock.spans.clear()
            clock.loading = 0.0
        held = read(locate(options.model))
        Path("/proc/self/clear_refs").write_text("5")  # from here on VmHWM is counted anew
        before = memory("VmRSS")
        if options.progress:
            threading.Thread(target=report_progress, args=(options.progress,), daemon=True).start()
        begin = time.perf_counter()
        if options.whole:
            in_one_piece(options)
        else:
            predict(options.model, options.slide, options.out, extra)
        seconds = time.perf_counter() - begin
    report = {
        "seconds": seconds,
        "loading seconds": clock.loading,
        "network seconds": clock.seconds(),
        "peak": memory("VmHWM") - before,
        "before": before,
        "parameters": sum(p.numel() for p in held.network.parameters()),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
