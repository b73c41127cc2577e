"""Megapixels a second from a slide to its finished labels, Nucleate against StarDist, and what takes the time.

    python benchmarks/slide_speed.py --slide slide.tif --model MODEL --stardist PYTHON --stardist-model DIR
                                     [--repeats 3] [--side 6000] [--whole-side 3000] [-- --tile 1024 ...]

The slide is one that benchmarks/slide.py assembles. The three take turns (A, B, C, A, B, C ...), each in a process of
its own, with nothing else on the machine; medians are compared. Time runs from the file to the written label image.
All three have their model loaded and are warm beforehand; `Nucleate, its start included` counts the loading of its
model and engine, too.
`predict_instances_big` has blocks of 2048; `predict_instances` is measured on the upper left `--whole-side` pixels, as
it takes memory for the whole. The share inside the network is the time in which any thread was in it.

`--through` starts each measured process through a command, such as one that waits until the machine is idle. With
`--engines` the engines alone are measured instead, on blocks of 1024 x 1024, as the prediction runs them. What
stands behind `--` goes to `nucleate predict`. Prints a table, and as its last line JSON.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from statistics import median

import tifffile
from protocol import HERE, PEER, run

BLOCK = 2048  # pixels; of predict_instances_big
SIDE = 1024  # pixels; of a block of the network


def nucleate(options: argparse.Namespace, folder: Path, extra: list[str], k: int) -> dict[str, float]:
    """What segment.py reports of one run, all packages loaded."""
    command = [*options.through, sys.executable, HERE / "segment.py", options.model, options.slide]
    with tifffile.TiffFile(options.slide) as tiff:
        small = tiff.pages[0].asarray()[:512, :512]
    tifffile.imwrite(folder / "warm.tif", small)
    out = run([*command, "--out", folder / f"n{k}", "--warm", folder / "warm.tif", "--", "--format", "tif", *extra])
    report: dict[str, float] = json.loads(out.splitlines()[-1])
    return report


def stardist(options: argparse.Namespace, folder: Path, block: int, side: int) -> float:
    """Seconds of one run."""
    command = [*options.through, options.stardist, PEER, "slide", "--model", options.stardist_model]
    where = ["--image", options.slide, "--out", folder / f"s{block}"]
    out = run([*command, *where, "--side", side, "--blocks", block])
    return float(json.loads(out.splitlines()[-1])["seconds"][str(block)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--stardist", type=Path, help="Python of StarDist's environment; without it, Nucleate alone")
    parser.add_argument("--stardist-model", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=6000, help="of the slide, for predict_instances_big")
    parser.add_argument("--whole-side", type=int, default=3000, help="of the slide, for predict_instances")
    parser.add_argument("--through", type=shlex.split, default=[], metavar="COMMAND")
    parser.add_argument("--engines", action="store_true", help="the engines alone")
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    options, extra = parser.parse_args(own), sys.argv[len(own) + 2 :]
    if options.engines:
        sides = ["--sides", SIDE, "--repeats", options.repeats]
        print(run([*options.through, sys.executable, HERE / "engines.py", "--model", options.model, *sides]), end="")
        return
    with tifffile.TiffFile(options.slide) as tiff:
        height, width = tiff.pages[0].shape
    rates: dict[str, list[float]] = {"Nucleate": [], "Nucleate, its start included": []}
    shares = []
    with tempfile.TemporaryDirectory() as name:
        for k in range(options.repeats):
            report = nucleate(options, Path(name), extra, k)
            seconds = report["seconds"] - report["loading seconds"]
            for who, took in zip(rates, (seconds, report["seconds"]), strict=False):
                rates[who].append(height * width / 1e6 / took)
            shares.append(report["network seconds"] / seconds)
            print(f"Nucleate: {rates['Nucleate'][-1]:.2f} megapixels/s, {shares[-1]:.0%} in the network", flush=True)
            if options.stardist:
                ways = (("predict_instances_big", BLOCK, options.side), ("predict_instances", 0, options.whole_side))
                for way, block, side in ways:
                    seconds = stardist(options, Path(name), block, side)
                    rates.setdefault(way, []).append(side**2 / 1e6 / seconds)
                    print(f"StarDist {way}: {rates[way][-1]:.3f} megapixels/s, {side} x {side}", flush=True)
    middle = {who: median(values) for who, values in rates.items()}
    print("| | megapixels/s | Nucleate is faster by |\n| --- | ---: | ---: |")
    for who, rate in middle.items():
        print(f"| {who} | {rate:.2f} | {middle['Nucleate'] / rate:.1f} |")
    print(f"Inside the network: {median(shares):.0%} of Nucleate's time.")
    print(json.dumps({"megapixels_per_second": rates, "share": shares}))


if __name__ == "__main__":
    main()
