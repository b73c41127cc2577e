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

from nucleate.networks import store
from nucleate.networks.manifest import ThresholdsPart
from nucleate.postprocess.scores import mean_ap
from nucleate.report.card import card
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.fit import compare_engines, load_labelled, tune_prediction
from nucleate.training.segmentation import ValidationSet


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
    validation = ValidationSet(load_labelled(case.train, case.val).validation)
    criterion = SegmentationCriterion(network.architecture.classes, old.training.loss)
    if options.engines:
        found = compare_engines(network, validation, criterion, trained.thresholds)
        weights = (folder / store.WEIGHTS).read_bytes()
        store.write(folder, old.model_copy(update={"engines": found}), weights, store.read_history(folder))
        print(found.model_dump_json(indent=2))
        return
    thresholds, scores, engines, _ = tune_prediction(network, validation, criterion)
    manifest = old.model_copy(
        update={
            "thresholds": ThresholdsPart(**asdict(thresholds)),
            "scores": {"validation": scores.as_dict() | {"mean_ap": mean_ap(scores)}},
            "engines": engines,
        }
    )
    weights, curves = ((folder / name).read_bytes() for name in (store.WEIGHTS, store.CURVES))
    extra = {store.CARD: card(manifest, options.out).encode(), store.CURVES: curves}
    store.write(options.out, manifest, weights, store.read_history(folder), extra)
    print(thresholds)
    print(table({"validation": row(scores)}))


if __name__ == "__main__":
    main()
