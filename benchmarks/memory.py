"""Peak memory of `nucleate predict` above the loaded model, for slides of 1 to 10,000 megapixels.

    python benchmarks/memory.py --data DATA --model MODEL [--megapixels 1 100 2500] [--empty 0] [-- --tile 1024 ...]

The slides are square and repeat one mosaic of nuclei (benchmarks/slide.py --repeat), so the file is small, and every
tile is read, segmented and written all the same. `--empty` leaves out that share of the mosaics, as slides have glass.
Each size runs in a process of its own (benchmarks/segment.py); the memory is what the kernel says (VmHWM), at its
highest, less that of the process with its packages and the model loaded: engine, reader, tiles, writer and all buffers
count. What stands behind `--` goes to `nucleate predict`. Prints a table, and as its last line JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from protocol import HERE
from slide import write_repeated


def measure(slide: Path, model: str, out: Path, extra: list[str]) -> dict[str, float]:
    """What segment.py reports; its progress is shown as it comes."""
    command = [sys.executable, HERE / "segment.py", model, slide, "--out", out, "--progress", "30", "--", *extra]
    last = ""
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for last in child.stdout:
            if not last.startswith("{"):
                print(f"  {last.rstrip()}", flush=True)
    if child.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {child.returncode}")
    report: dict[str, float] = json.loads(last)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 100, 2500])
    parser.add_argument("--empty", type=float, default=0.0)
    parser.add_argument("--out", type=Path, help="where there is room for the results; they are deleted")
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    options, extra = parser.parse_args(own), sys.argv[len(own) + 2 :]
    rows: dict[float, dict[str, float]] = {}
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out) as name:
        for size in options.megapixels:
            side = round(1000 * math.sqrt(size))
            slide, out = Path(name) / "slide.tif", Path(name) / "found"
            write_repeated(slide, options.data, (side, side), seed=0, empty=options.empty)
            print(f"{size:g} megapixels, {side} x {side}, a file of {slide.stat().st_size} bytes", flush=True)
            rows[size] = measure(slide, options.model, out, extra)
            shutil.rmtree(out)
    print("| megapixels | MiB above the loaded model | with all | seconds | megapixels/s |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for size, row in rows.items():
        cells = f"{row['peak']:.0f} | {row['peak'] + row['before']:.0f} | {row['seconds']:.0f}"
        print(f"| {size:g} | {cells} | {size / row['seconds']:.2f} |")
    print(json.dumps({"empty": options.empty, "rows": rows}))


if __name__ == "__main__":
    main()
