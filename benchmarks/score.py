"""Scores a finished model on the test images, as `nucleate predict` and a user get them.

    python benchmarks/score.py fluorescence --data DATA [-- --tta 4 --engine torch ...]

MODEL is a folder, or the name of an embedded model. What stands behind `--` goes to `nucleate predict`. Prints a table,
and as its last line JSON; `seconds` are those of the whole command, to be compared within one run of the machine only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from protocol import full, row, run, score, table

from nucleate.networks.store import locate, read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("options", nargs="*", help="for nucleate predict, behind --")
    options = parser.parse_intermixed_args()
    grey = read_manifest(locate(options.model)).architecture.channels == 1
    case = full(options.data, "fluorescence" if grey else "brightfield")
    with tempfile.TemporaryDirectory() as name:
        begin = time.monotonic()
        command = [sys.executable, "-m", "nucleate", "predict", options.model, case.test / "images", "--out", name]
        run([*command, *options.options])
        seconds = time.monotonic() - begin
        found = row(score(case, Path(name)))
    print(table({options.model: found}))
    print(json.dumps({"model": options.model, "options": options.options, "seconds": round(seconds, 1), "row": found}))


if __name__ == "__main__":
    main()
