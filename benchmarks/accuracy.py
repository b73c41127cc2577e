"""Nucleate and StarDist trained on the same images for the same minutes, scored once on the same test images.

    python benchmarks/accuracy.py full --data DATA --stardist PYTHON --minutes 20
    python benchmarks/accuracy.py few  --data DATA --stardist PYTHON --minutes 8 --seeds 0 1 2
    python benchmarks/accuracy.py brightfield --data DATA --stardist PYTHON --minutes 10

Run it with nothing else on the machine: both are given time, not steps. What is finished stays in --out, and a second
call goes on from there. Prints a table, and as its last line JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from protocol import Case, few, full, row, score, table, train_nucleate, train_stardist


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("full", "few", "brightfield"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stardist", type=Path, help="Python of StarDist's environment; without it, Nucleate alone")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--labels", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    for seed in options.seeds:
        case, folder = choose(options, seed)
        predicted = train_nucleate(case, folder / "nucleate", options.minutes, seed)
        rows[f"Nucleate, seed {seed}"] = row(score(case, predicted))
        if options.stardist:
            steps = 25 if options.what == "few" else 100
            predicted = train_stardist(case, folder / "stardist", options.minutes, seed, options.stardist, steps)
            rows[f"StarDist, seed {seed}"] = row(score(case, predicted))
    if len(options.seeds) > 1:
        for name in ("Nucleate", "StarDist"):
            own = [values for key, values in rows.items() if key.startswith(name)]
            if own:
                rows[f"{name}, mean"] = {head: sum(values[head] for values in own) / len(own) for head in own[0]}
    print(table(rows))
    print(json.dumps({"what": options.what, "minutes": options.minutes, "rows": rows}))


def choose(options: argparse.Namespace, seed: int) -> tuple[Case, Path]:
    if options.what == "few":
        folder = options.out / f"few{options.labels}-seed{seed}"
        return few(options.data, seed, options.labels, folder), folder
    case = full(options.data, "brightfield" if options.what == "brightfield" else "fluorescence")
    return case, options.out / (case.name if seed == 0 else f"{case.name}-seed{seed}")


if __name__ == "__main__":
    main()
