"""Finds the thresholds and the engines of a trained model anew, as `nucleate train` finds them now; same weights.

    python benchmarks/retune.py fluorescence --data DATA --out benchmarks/out/full-fluorescence/nucleate/model
    python benchmarks/retune.py fluorescence --data DATA --engines

MODEL is a folder, or the name of an embedded model; it is judged on the `val` images. `benchmarks/accuracy.py` takes
what is written for a run that is finished, so that it is scored and can be embedded. With `--engines` thresholds and
scores stay, and the model's own folder learns what its engines do on this processor.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from protocol import full, row, table

from nucleate.io.atomic import atomic
from nucleate.networks import store
from nucleate.postprocess.scores import mean_ap
from nucleate.training.criterion import Objective
from nucleate.training.fit import card, engines_of, load, ready
from nucleate.training.validation import Validation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path)
    where.add_argument("--engines", action="store_true")
    options = parser.parse_args()
    folder = store.locate(options.model)
    trained = store.read(folder)
    old, network = trained.manifest, trained.network
    case = full(options.data, "fluorescence" if network.architecture.channels == 1 else "brightfield")
    judge = Validation(load(case.train, case.val).validation)
    objective = Objective(network.architecture.classes, old.training.loss)
    if options.engines:
        found = engines_of(network, judge, objective, trained.thresholds)
        weights, text = (folder / store.WEIGHTS).read_bytes(), (folder / store.CARD).read_text()
        store.write(folder, old.model_copy(update={"engines": found}), weights, store.read_history(folder), text)
        print(found.model_dump_json(indent=2))
        return
    thresholds, scores, engines = ready(network, judge, objective)
    manifest = old.model_copy(
        update={
            "thresholds": store.ThresholdsPart(**asdict(thresholds)),
            "scores": {"validation": scores.as_dict() | {"mean_ap": mean_ap(scores)}},
            "engines": engines,
        }
    )
    weights, curves = ((folder / name).read_bytes() for name in (store.WEIGHTS, store.CURVES))
    store.write(options.out, manifest, weights, store.read_history(folder), card(manifest, scores))
    with atomic(options.out / store.CURVES) as file:
        file.write(curves)
    print(thresholds)
    print(table({"validation": row(scores)}))


if __name__ == "__main__":
    main()
