"""Images a second in training and megapixels a second in prediction, Nucleate against StarDist, side by side.

    python benchmarks/speed.py --data DATA --stardist PYTHON --nucleate-model MODEL --stardist-model DIR

Each is measured `--repeats` times, in turn (A, B, A, B ...), with nothing else on the machine; medians are compared.
Training: 256 x 256 crops at each program's own settings, after five steps to warm up, sampling and variation of the
crops included, validation left out. Prediction: test image file to label image file, model loaded and warm; each
process does all images three times, and its median counts. What it takes the first time, when each size of image is new
to the engines, is in the JSON ("first").
The models are those that benchmarks/accuracy.py leaves behind. Prints a table, and as its last line JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from protocol import PEER, full, run, write_plan


def train_rate(data: Path, seconds: float) -> float:
    """Images a second of Nucleate's training loop."""
    from nucleate.networks.unet import Architecture
    from nucleate.training.checkpoint import TrainingState
    from nucleate.training.config import TrainingConfig
    from nucleate.training.fit import load_labelled
    from nucleate.training.parallel import Threads
    from nucleate.training.segmentation import SegmentationTask, ValidationSet
    from nucleate.training.trainer import Trainer, new_network

    case = full(data, "fluorescence")
    labelled = load_labelled(case.train, case.val)
    config = TrainingConfig(samples=10**6, minutes=1e6)
    marks: list[tuple[int, float]] = []

    def observe(state: TrainingState, _: float) -> None:
        marks.append((state.step, time.monotonic()))
        if marks[-1][1] - marks[0][1] > seconds:
            raise InterruptedError

    task = SegmentationTask(labelled.training, ValidationSet(labelled.validation[:1]), config)
    with contextlib.suppress(InterruptedError), Threads() as threads:
        Trainer(new_network(Architecture(), config.seed), task, config, parallel=threads, observe=observe).train()
    (first, begin), (last, end) = marks[4], marks[-1]
    return config.batch * (last - first) / (end - begin)


def predict_rates(data: Path, model: str) -> list[float]:
    """Megapixels a second, file to label image, of three passes over the test images."""
    from nucleate.inference.predict import Request, predict
    from nucleate.inference.predictor import Predictor
    from nucleate.io.reader import read_image
    from nucleate.networks.runtime import keep_memory
    from nucleate.networks.store import locate, read

    keep_memory()
    files = sorted((full(data, "fluorescence").test / "images").glob("*.png"))
    pixels = sum(read_image(file).pixels[..., 0].size for file in files)
    predictor = Predictor(read(locate(model)))
    request, rates = Request(formats=("tif",)), []
    with tempfile.TemporaryDirectory() as out:
        predict(predictor, files[:3], Path(out), request)
        for _ in range(3):
            begin = time.monotonic()
            predict(predictor, files, Path(out), request)
            rates.append(pixels / 1e6 / (time.monotonic() - begin))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stardist", type=Path)
    parser.add_argument("--nucleate-model", help="its folder, or the name of an embedded one")
    parser.add_argument("--stardist-model", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--one", choices=("train", "predict"), help="measure Nucleate alone, in this process")
    options = parser.parse_args()
    if options.one == "train":
        print(train_rate(options.data, options.seconds))
        return
    if options.one == "predict":
        print(json.dumps({"all": predict_rates(options.data, options.nucleate_model)}))
        return
    rates: dict[str, list[float]] = {name: [] for name in ("train A", "train B", "predict A", "predict B")}
    first: dict[str, list[float]] = {"predict A": [], "predict B": []}
    own = [sys.executable, __file__, "--data", options.data, "--seconds", options.seconds]
    with tempfile.TemporaryDirectory() as name:
        plan = write_plan(full(options.data, "fluorescence"), Path(name) / "plan.json")
        for k in range(options.repeats):
            rates["train A"].append(float(run([*own, "--one", "train"]).split()[-1]))
            peer = [options.stardist, PEER]
            limits = ["--minutes", options.seconds / 60, "--steps", 1000, "--no-predict"]
            out = run([*peer, "train", "--plan", plan, "--out", Path(name) / f"t{k}", *limits])
            rates["train B"].append(json.loads(out.splitlines()[-1])["images_per_second_in_steps"])
        for _ in range(options.repeats):
            ours = [*own, "--one", "predict", "--nucleate-model", options.nucleate_model]
            theirs = [*peer, "predict", "--model", options.stardist_model, "--plan", plan, "--out", Path(name) / "p"]
            theirs += ["--repeats", 3]
            for who, command in (("predict A", ours), ("predict B", theirs)):
                passes = json.loads(run(command).splitlines()[-1])["all"]
                rates[who].append(median(passes))
                first[who].append(passes[0])
    middle = {key: median(values) for key, values in rates.items()}
    print("| | Nucleate | StarDist | ratio |\n| --- | ---: | ---: | ---: |")
    report: dict[str, object] = {"rates": rates, "first": first}
    for what, unit in (("train", "images/s"), ("predict", "megapixels/s")):
        ratio = report[f"{what} ratio"] = middle[f"{what} A"] / middle[f"{what} B"]
        print(f"| {what}, {unit} | {middle[f'{what} A']:.2f} | {middle[f'{what} B']:.2f} | {ratio:.2f} |")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
