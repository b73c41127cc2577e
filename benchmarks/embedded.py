"""Makes the two models inside the package, from the runs that benchmarks/accuracy.py leaves in benchmarks/out.

    python benchmarks/accuracy.py full       --data DATA --minutes 40
    python benchmarks/accuracy.py brightfield --data DATA --minutes 20
    python benchmarks/embedded.py --data DATA [--only fluorescence]
    python benchmarks/embedded.py --data DATA --prototypes

The last makes anew only what stands for the training images of the models that are there, without training.

Trained on the `train` images, chosen on `val`; the scores on `test` are added to the card. Weights become float16.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from protocol import full, row, score, table

from nucleate.data.normalization import normalise
from nucleate.io.reader import read_image
from nucleate.networks import store
from nucleate.networks.prototypes import prototypes_of
from nucleate.postprocess.scores import mean_ap
from nucleate.report.card import card

SOURCE = "BBBC038v1, stage 1 training images of the 2018 Data Science Bowl, Broad Bioimage Benchmark Collection"
LICENCE = "CC0 1.0"
PACKAGE = Path(__file__).parents[1] / "src" / "nucleate" / "networks" / "pretrained"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    parser.add_argument("--only", choices=store.EMBEDDED, help="one of the two; the other stays as it is")
    parser.add_argument("--prototypes", action="store_true", help="make those of the models that are there, no more")
    options = parser.parse_args()
    rows = {}
    for modality in store.EMBEDDED if options.only is None else (options.only,):
        if options.prototypes:
            add_prototypes(PACKAGE / modality, full(options.data, modality).train)
            continue
        case = full(options.data, modality)
        run = options.out / case.name / "nucleate"
        trained = store.read(run / "model")
        scores = score(case, run / "predicted")
        rows[modality] = row(scores)
        weights = store.encode_weights(trained.network, half=True)
        old = trained.manifest
        manifest = old.model_copy(
            update={
                "name": modality,
                "data": old.data.model_copy(update={"source": f"{SOURCE}, {modality} images", "licence": LICENCE}),
                # Not those of the models that are replaced.
                "scores": {
                    "validation": old.scores["validation"],
                    "test": scores.as_dict() | {"mean_ap": mean_ap(scores)},
                },
                "weights_sha256": hashlib.sha256(weights).hexdigest(),
            }
        )
        folder = PACKAGE / modality
        extra = {
            store.CARD: card(manifest, modality, "test").encode(),
            store.CURVES: (run / "model" / store.CURVES).read_bytes(),
        }
        manifest = manifest.model_copy(update={"prototypes_sha256": None})
        store.write(folder, manifest, weights, store.read_history(run / "model"), extra)
        add_prototypes(folder, case.train)
    if rows:
        print(table(rows))


def add_prototypes(folder: Path, train: Path) -> None:
    """Write the prototypes of the training images into a model folder."""
    model = store.read(folder)
    channels = model.manifest.architecture.channels
    images = (normalise(read_image(path), channels) for path in sorted((train / "images").iterdir()))
    prototypes = prototypes_of(model.network, images)
    assert prototypes is not None
    content = prototypes.encoded(half=True)
    manifest = model.manifest.model_copy(update={"prototypes_sha256": hashlib.sha256(content).hexdigest()})
    weights = (folder / store.WEIGHTS).read_bytes()
    store.write(folder, manifest, weights, store.read_history(folder), {store.PROTOTYPES: content})
    print(f"{folder.name}: {len(prototypes.points)} prototypes. {prototypes.measured.sentence()}")


if __name__ == "__main__":
    main()
