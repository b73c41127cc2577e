"""Is it better to label the images that `nucleate suggest` names, or images at random?

    python benchmarks/suggest.py --data DATA --epochs 4                          # both kinds of images, five repeats
    python benchmarks/suggest.py --data DATA --epochs 4 --modality brightfield --repeats 0 1

DATA holds MODALITY/train/{images,masks}/ID.png (BBBC038v1). Repeat R: half of the images, drawn by R, are a pool
without labels. Of it five are named by `nucleate suggest`, with a model that saw none of these images, and five drawn
by R; on the masks of each five a model is trained from scratch, with the same seed, and scored on the other half of the
images. For fluorescence that model is --model, a model folder; brightfield is seen by the package's `fluorescence`.
What is finished stays in --out. Prints the mean AP of both, their paired difference, and its 95% interval.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from pathlib import Path

from protocol import Case, run, score
from scipy.stats import t

from nucleate.postprocess.scores import mean_ap

LABELS = 5
ARMS = ("suggested", "random")


def link(source: Path, folder: Path, images: list[str], masks: list[str]) -> Path:
    """A folder of these images and masks."""
    for part, names in (("images", images), ("masks", masks)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (folder / part / name).is_symlink():
                (folder / part / name).symlink_to((source / part / name).absolute())
    return folder


def chosen(arm: str, pool: Path, names: list[str], model: str, repeat: int) -> list[str]:
    """The images of the pool that are labelled."""
    if arm == "random":
        return random.Random(repeat).sample(names, LABELS)
    words = ("suggest", pool, "--model", model, "-n", LABELS, "--quiet", "--overwrite", "--json", pool / "suggest.json")
    nucleate(*words)
    return [Path(one["file"]).name for one in json.loads((pool / "suggest.json").read_text())["images"]]


def nucleate(*words: object) -> None:
    run([sys.executable, "-m", "nucleate", *words])


def one(arm: str, modality: str, repeat: int, options: argparse.Namespace) -> float:
    """The mean AP of a model that learnt from the images of this arm."""
    source, here = options.data / modality / "train", options.out / f"{modality}-{repeat}-{options.epochs}"
    kept = here / f"{arm}.json"
    if not kept.exists():
        names = sorted(path.name for path in (source / "images").iterdir())
        random.Random(1000 + repeat).shuffle(names)
        pool, rest = sorted(names[: len(names) // 2]), names[len(names) // 2 :]
        model = "fluorescence" if modality == "brightfield" else options.model
        labelled = chosen(arm, link(source, here / "pool", pool, []), pool, model, repeat)
        few = link(source, here / arm / "labelled", labelled, labelled)
        test = link(source, here / "rest", rest, rest)
        words = ("--from", "scratch", "--epochs", options.epochs, "--seed", repeat)
        nucleate("train", few, "--out", here / arm / "model", *words)
        nucleate("predict", here / arm / "model", test / "images", "--out", here / arm / "found", "--overwrite")
        value = mean_ap(score(Case("rest", few, None, test, 1), here / arm / "found"))
        kept.write_text(json.dumps({"mean AP": value, "labelled": labelled}))
    return float(json.loads(kept.read_text())["mean AP"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--modality", nargs="+", default=["brightfield", "fluorescence"])
    parser.add_argument("--model", help="that saw none of the fluorescence images")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "suggest")
    options = parser.parse_args()
    if "fluorescence" in options.modality and options.model is None:
        parser.error("name a --model for fluorescence: those of the package have seen its images")
    rows = {}
    for modality in options.modality:
        values: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for repeat in options.repeats:
            for arm in ARMS:
                values[arm].append(one(arm, modality, repeat, options))
                print(f"{modality}, repeat {repeat}, {arm}: {values[arm][-1]:.4f}", flush=True)
        gains = [a - b for a, b in zip(values["suggested"], values["random"], strict=True)]
        said = ", ".join(f"{arm} {statistics.fmean(found):.3f}" for arm, found in values.items())
        said += f", difference {statistics.fmean(gains):+.3f}"
        if len(gains) > 1:
            half = float(t.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / math.sqrt(len(gains))
            said += f" ({statistics.fmean(gains) - half:+.3f} to {statistics.fmean(gains) + half:+.3f})"
        print(f"{modality}: {said}", flush=True)
        rows[modality] = values
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
