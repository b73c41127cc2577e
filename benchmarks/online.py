"""On-line learning on real nuclei: what it reaches, what it forgets, what it costs, and what a kill leaves.

    python benchmarks/online.py stream --data DATA [--tiles 40] [--orders 0 1 2] [--test 0]
    python benchmarks/online.py choose --data DATA [--labels 5] --tiles 20 [--seeds 0 1 2]
    python benchmarks/online.py curve  --data DATA [--nuclei 200] [--seeds 0]
    python benchmarks/online.py kills  [--kills 200]
    python benchmarks/online.py speed  [--updates 10]

`stream`: from the embedded fluorescence model, tiles of brightfield images one at a time, beside (a) the model as it
is, (b) naive fine-tuning, the same steps on the new tile alone, and (c) off-line training on the same tiles and on old
images for the same time. AP at 0.5 on the test images of both kinds. `choose`: after some labelled images, corrected
tiles chosen by entropy against tiles at random. `curve`: AP over corrected nuclei, of the tiles that the model is worst
at. `kills`: SIGKILL at random moments. DATA is laid out as `protocol` says. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

import nucleate
from nucleate.data.augment import AugmentationConfig
from nucleate.data.dataset import find, pair
from nucleate.data.normalization import between, normalise, percentiles
from nucleate.data.synthetic import fluorescence
from nucleate.io.label_file import read_labels
from nucleate.io.reader import read_image
from nucleate.losses.measures import entropy
from nucleate.networks import store
from nucleate.postprocess.matching import match
from nucleate.postprocess.scores import mean_ap, pool
from nucleate.training.config import TrainingConfig
from nucleate.training.copying import copied
from nucleate.training.online import OnlineConfig, OnlineLearner
from nucleate.training.replay import Memory
from nucleate.training.update import ReplaySampler, improve
from nucleate.types import Image, Labels

SIDE = 256


def grey(image: Image) -> Image:
    """One channel, the mean of colours, as a model of one channel sees it."""
    if image.pixels.shape[2] == 1:
        return image
    mean = np.rint(image.pixels.mean(axis=2, keepdims=True)).astype(image.pixels.dtype)
    return replace(image, pixels=mean, channels=("grey",))


class Tile(NamedTuple):
    """A part of an image, its labels, and the intensities of the whole image that become 0 and 1."""

    image: Image
    labels: Labels
    window: tuple[float, float]

    @property
    def normalised(self) -> NDArray[np.float32]:
        """As a network of one channel sees it."""
        return between(self.image.pixels, *self.window, 1)


def tiles(folder: Path, count: int, seed: int) -> list[Tile]:
    """One tile of each of so many images, about a nucleus, in a seeded order."""
    rng, found = np.random.default_rng(seed), []
    samples = find(folder).labelled
    for index in rng.permutation(len(samples)):
        image, labels = pair(samples[index])
        image = grey(image)
        y, x = np.nonzero(labels > 0)
        if not y.size:
            continue
        at = rng.integers(y.size)
        (top, left) = (
            int(np.clip(centre - SIDE // 2, 0, max(0, length - SIDE)))
            for centre, length in zip((y[at], x[at]), labels.shape, strict=True)
        )
        part = slice(top, top + SIDE), slice(left, left + SIDE)
        low, high = percentiles(image.pixels, (1.0, 99.8)).tolist()
        cut = replace(image, pixels=image.pixels[part])
        found.append(Tile(cut, np.ascontiguousarray(labels[part]), (low, high)))
        if len(found) == count:
            break
    return found


def test(model: Path, folder: Path, most: int) -> dict[str, float]:
    """AP at 0.5 and mean AP on test images, the first `most` of them or all."""
    segmenter = nucleate.load(model, engine="torch")
    samples = find(folder).labelled[: most or None]
    found = []
    for sample in samples:
        assert sample.mask is not None
        labels = segmenter.segment(grey(read_image(sample.image)).pixels).labels
        found.append(match(read_labels(sample.mask), labels))
    scores = pool(found)
    return {"AP": round(scores.at[0].ap, 4), "mean AP": round(mean_ap(scores), 4)}


def both(model: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    kinds = ("brightfield", "fluorescence")
    return {kind: test(model, options.data / kind / options.judge, options.test) for kind in kinds}


def with_training_crops(folder: Path, data: Path) -> Path:
    """Give a copy of an embedded model the crops that `train` would have saved with it, of its own training images."""
    parts = (map(pair, find(data / "fluorescence" / split).labelled) for split in ("train", "val"))
    training, held_out = ([(normalise(grey(image), 1), labels) for image, labels in part] for part in parts)
    content = Memory.of(training, held_out).encoded()
    weights, manifest = (folder / store.WEIGHTS).read_bytes(), store.read_manifest(folder)
    manifest = manifest.model_copy(update={"replay_sha256": hashlib.sha256(content).hexdigest()})
    store.write(folder, manifest, weights, store.read_history(folder), {store.REPLAY: content})
    return folder


def teach(folder: Path, stream: Sequence[Tile], config: OnlineConfig) -> dict[str, object]:
    """Learn a stream, one tile at a time: prequential AP, seconds of each update, what was taken back."""
    begin = time.monotonic()
    with OnlineLearner.open(folder, config) as learner:
        updates = [
            learner.learn(learner.record(one.image, one.labels, f"tile{number}", window=one.window))
            for number, one in enumerate(stream)
        ]
    scores = [one.before for one in updates if one.before is not None]
    return {
        "prequential AP": round(statistics.mean(scores), 4),
        "last ten": round(statistics.mean(scores[-10:]), 4),
        "sentinel": [round(updates[0].sentinel_before, 4), round(updates[-1].sentinel, 4)],
        "taken back": sum(one.taken_back for one in updates),
        "drift after": [one.number for one in updates if one.drift],
        "seconds an update": round(statistics.median(one.seconds for one in updates), 2),
        "seconds": round(time.monotonic() - begin, 1),
    }


def naive(folder: Path, stream: Sequence[Tile], config: OnlineConfig) -> None:
    """The same steps on the new tile alone: nothing is replayed, and nothing held."""
    config = replace(config, remember=0.0, tolerance=1.0)
    with OnlineLearner.open(folder, config) as learner:
        state, steps = learner.state, 0
        tensors, average = state.tensors, None
        for number, one in enumerate(stream):
            tile = one.normalised, one.labels
            sampler = ReplaySampler(tile, (), (), number, config.variation)
            tensors, average = improve(
                tensors, learner.architecture, steps, sampler, config,
                bfloat16=learner.teacher.bfloat16, parallel=learner.teacher.parallel,
            )  # fmt: skip
            steps += config.steps
    assert average is not None
    weights = store.encode_weights(average)
    manifest = store.read_manifest(folder)
    store.write(
        folder,
        manifest.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()}),
        weights,
        store.read_history(folder),
    )


def offline(
    folder: Path, stream: Sequence[Tile], old: Path, count: int, seed: int, minutes: float, model: Path
) -> None:
    """Off-line training from the embedded model on the tiles and so many old images."""
    for number, (image, labels, _) in enumerate([*stream, *tiles(old, count, seed)]):
        for part, values in (("images", image.pixels[..., 0]), ("masks", labels.astype(np.uint16))):
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"{number:04d}.tif", values)
    nucleate.train(folder, model, config=TrainingConfig(minutes=minutes), parent="fluorescence", masks="labels",
                   warn=lambda _: None)  # fmt: skip


def run_stream(options: argparse.Namespace, here: Path) -> dict[str, object]:
    config = replace(
        OnlineConfig(),
        steps=options.steps,
        learning_rate=options.rate,
        remember=options.remember,
        decay=options.decay,
        tolerance=options.tolerance,
    )
    frozen = copied("fluorescence", here / "frozen")
    results: dict[str, object] = {"frozen": both(frozen, options)}
    print(json.dumps(results), flush=True)
    for order in options.orders:
        stream = tiles(options.data / "brightfield" / "train", options.tiles, order)
        model = copied("fluorescence", here / f"online{order}")
        if options.crops == "training":
            with_training_crops(model, options.data)
        told = teach(model, stream, config)
        found: dict[str, object] = {"on-line": {**told, **both(model, options)}}
        print(json.dumps(found), flush=True)
        if not options.only_online:
            other = copied("fluorescence", here / f"naive{order}")
            naive(other, stream, config)
            found["naive"] = both(other, options)
            print(json.dumps(found["naive"]), flush=True)
            minutes = options.minutes or float(str(told["seconds"])) / 60
            old = options.data / "fluorescence" / "train"
            offline(here / f"data{order}", stream, old, options.old, order, minutes, here / f"offline{order}")
            found["off-line"] = {"minutes": round(minutes, 2), **both(here / f"offline{order}", options)}
            print(json.dumps(found["off-line"]), flush=True)
        results[f"order {order}"] = found
    return results


def uncertainty(learner: OnlineLearner, tile: Tile) -> float:
    """The mean predictive entropy of a tile, in bits."""
    foreground = torch.from_numpy(learner.predict(tile.normalised)[1].foreground)
    p = foreground.clamp(1e-6, 1 - 1e-6)
    return float(entropy(torch.stack([torch.log1p(-p), p.log()])[None], base=2))


def run_choose(options: argparse.Namespace, here: Path) -> dict[str, object]:
    """Both arms begin with a model of the same labelled images; the tiles are those of the other images."""
    results: dict[str, object] = {}
    train = options.data / "fluorescence" / "train"
    lists = json.loads((options.data / "fluorescence" / "few_labels.json").read_text())
    for seed in options.seeds:
        few = here / f"few{seed}"
        for part in ("images", "masks"):
            (few / part).mkdir(parents=True)
            for name in lists[str(seed)][: options.labels]:
                shutil.copyfile(train / part / f"{name}.png", few / part / f"{name}.png")
        start = here / f"start{seed}"
        nucleate.train(
            few,
            start,
            config=TrainingConfig(seed=seed, minutes=options.minutes or 8.0),
            parent="scratch",
            warn=lambda _: None,
        )
        pool_of = tiles(train, options.pool, 100 + seed)
        begin = test(start, options.data / "fluorescence" / options.judge, options.test)
        print(json.dumps({"seed": seed, "without corrections": begin}), flush=True)
        curves: dict[str, object] = {"without corrections": begin}
        for arm in ("entropy", "random"):
            model = copied(str(start), here / f"{arm}{seed}")
            left, chance, curve = list(range(len(pool_of))), random.Random(seed), []
            for number in range(options.tiles):
                with OnlineLearner.open(model) as learner:
                    if arm == "entropy":
                        best = max(left, key=lambda one: uncertainty(learner, pool_of[one]))
                    else:
                        best = chance.choice(left)
                    left.remove(best)
                    image, labels, window = pool_of[best]
                    learner.learn(learner.record(image, labels, f"tile{best}", window=window))
                if (number + 1) % options.every == 0:
                    curve.append(test(model, options.data / "fluorescence" / options.judge, options.test))
                    print(json.dumps({"seed": seed, arm: curve[-1], "tiles": number + 1}), flush=True)
            curves[arm] = curve
        results[f"seed {seed}"] = curves
    return results


def run_curve(options: argparse.Namespace, here: Path) -> dict[str, object]:
    """The true masks of the tiles that the model is worst at, until so many nuclei were corrected."""
    results: dict[str, object] = {}
    kind = options.kind
    for seed in options.seeds:
        model = copied(options.model, here / f"curve{seed}")
        pool_of, nuclei, seconds, curve = tiles(options.data / kind / "train", options.pool, seed), 0, 0.0, []
        curve.append({"nuclei": 0, **test(model, options.data / kind / options.judge, options.test)})
        print(json.dumps(curve[-1]), flush=True)
        while pool_of and nuclei < options.nuclei:
            with OnlineLearner.open(model) as learner:
                found = [learner.predict(one.normalised)[0] for one in pool_of]
                qualities = [
                    pool([match(labels, one)]).panoptic_quality
                    for (_, labels, _), one in zip(pool_of, found, strict=True)
                ]
                image, labels, window = pool_of.pop(qualities.index(min(qualities)))
                update = learner.learn(learner.record(image, labels, "worst", window=window))
            nuclei, seconds = nuclei + update.nuclei, seconds + update.seconds
            curve.append({"nuclei": nuclei, "seconds": round(seconds, 1),
                          **test(model, options.data / kind / options.judge, options.test)})  # fmt: skip
            print(json.dumps(curve[-1]), flush=True)
        results[f"seed {seed}"] = curve
    return results


def run_speed(options: argparse.Namespace, here: Path) -> dict[str, object]:
    model = copied("fluorescence", here / "speed")
    with OnlineLearner.open(model) as learner:
        drawn = [fluorescence(seed=(5, number)) for number in range(options.updates)]
        seconds, cores, looks = [], [], []
        for number, (image, labels) in enumerate(drawn):
            begin = time.monotonic()
            learner.predict(normalise(image, 1))
            looks.append(time.monotonic() - begin)
            begin, used = time.monotonic(), time.process_time()
            learner.learn(learner.record(image, labels, f"tile{number}"))
            seconds.append(time.monotonic() - begin)
            cores.append(time.process_time() - used)
    return {
        "threads": torch.get_num_threads(),
        "seconds an update": [round(one, 2) for one in seconds],
        "median": round(statistics.median(seconds), 2),
        "processor seconds an update": round(statistics.median(cores), 2),
        "seconds a prediction": round(statistics.median(looks), 3),
    }


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def ended_within(process: int, seconds: float) -> int | None:
    """The exit code of a process, None where it goes on after so many seconds."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


TINY = OnlineConfig(steps=2, tolerance=1.0, variation=AugmentationConfig(crop=32))


def correct(model: Path, corrections: int) -> None:
    """Learn what is left, and then further corrections up to so many, each drawn from its number."""
    with OnlineLearner.open(model, TINY) as learner:
        learner.catch_up()
        for number in range(learner.recorded + 1, corrections + 1):
            image, labels = fluorescence(seed=(6, number), height=64, width=64, diameter=12.0)
            learner.learn(learner.record(image, labels, f"tile{number}"))


def forked(model: Path, corrections: int) -> int:
    """`correct` in a process of its own; its number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            correct(model, corrections)
            code = 0
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        os._exit(code)
    return child


def serves(model: Path) -> bool:
    """Whether the folder is a whole model."""
    try:
        store.read(model)
    except nucleate.errors.NucleateError as error:
        print(error, flush=True)
        return False
    return True


def run_kills(options: argparse.Namespace, here: Path) -> dict[str, object]:
    """Killed at random moments until so many kills; every few corrections are compared with an undisturbed run."""
    chance, corrections = random.Random(options.seed), options.corrections
    prepare = os.fork()  # a process that has computed something must not be forked, so another one does
    if prepare == 0:
        small(here / "start")
        os._exit(0)
    assert ended(prepare) == 0
    shutil.copytree(here / "start", here / "straight")
    assert ended(forked(here / "straight", 1)) == 0  # all kernels are compiled
    begin = time.monotonic()
    assert ended(forked(here / "straight", corrections)) == 0
    seconds = time.monotonic() - begin
    print(f"{corrections - 1} corrections take {seconds:.1f} s", flush=True)
    expected, kills, wrong, runs, starts = files(here / "straight"), 0, list[str](), 0, 0
    while kills < options.kills:
        runs += 1
        model = here / f"run{runs}"
        shutil.copytree(here / "start", model)
        while True:
            child = forked(model, corrections)
            starts += 1
            code = ended_within(child, chance.uniform(0.0, seconds))
            if code is not None:
                wrong += [f"run {runs}: exit code {code}"] if code else []
                break
            if kills >= options.kills:
                assert ended(child) == 0
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            recorded = len(list((model / "corrections").glob("*_masks.tif")))
            if not serves(model):
                wrong.append(f"run {runs}: no whole model after kill {kills}, with {recorded} corrections")
        differs = [name for name, content in files(model).items() if expected[name] != content]
        wrong += [f"run {runs}: other {differs}"] if differs or files(model).keys() != expected.keys() else []
        shutil.rmtree(model)
        print(f"run {runs}: {kills} kills in {starts} starts, {len(wrong)} failures", flush=True)
    return {"kills": kills, "runs": runs, "starts": starts, "corrections": runs * corrections, "failures": wrong}


def files(model: Path) -> dict[str, bytes]:
    """The files of a model but for those that tell the time, and without the day in its card."""
    every = (one for one in model.rglob("*") if one.is_file() and one.name not in ("journal.jsonl", "lock"))
    found = {str(one.relative_to(model)): one.read_bytes() for one in every}
    return {**found, store.CARD: re.sub(rb"the last of [0-9-]+", b"", found[store.CARD])}


def small(folder: Path) -> None:
    """A small model that was trained for a moment."""
    from nucleate.data.synthetic import write_folder

    data = folder.parent / "cells"
    write_folder(data, "fluorescence", 2, seed=1, height=64, width=64, diameter=12.0)
    config = TrainingConfig(epochs=1, samples=8, widths=(8, 16), variation=AugmentationConfig(crop=32))
    nucleate.train(data, folder, config=config, warn=lambda _: None)


RUNS = {"stream": run_stream, "choose": run_choose, "curve": run_curve, "kills": run_kills, "speed": run_speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=RUNS)
    parser.add_argument("--data", type=Path, help="the folder of real nuclei")
    parser.add_argument("--out", type=Path, help="keep the models here")
    for name, number in (("tiles", 40), ("test", 0), ("old", 40), ("labels", 5), ("pool", 100), ("every", 5),
                         ("nuclei", 200), ("kills", 200), ("corrections", 4), ("updates", 10), ("seed", 0),
                         ("steps", OnlineConfig().steps)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--orders", type=int, nargs="+", default=[0, 1, 2], help="seeds of `stream`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of `choose` and `curve`")
    parser.add_argument("--judge", choices=("val", "test"), default="test", help="the images that models are scored on")
    parser.add_argument("--decay", type=float, default=OnlineConfig().decay)
    parser.add_argument("--rate", type=float, default=OnlineConfig().learning_rate)
    parser.add_argument("--remember", type=float, default=OnlineConfig().remember)
    parser.add_argument("--tolerance", type=float, default=OnlineConfig().tolerance)
    parser.add_argument("--minutes", type=float, help="of off-line training; by default what the stream took, or 8")
    parser.add_argument("--model", default="fluorescence", help="that `curve` begins with")
    parser.add_argument("--kind", default="brightfield", help="of images, of `curve`")
    parser.add_argument("--crops", choices=("training", "drawn"), default="training",
                        help="what the embedded model is reminded of, in `stream`")  # fmt: skip
    parser.add_argument("--only-online", action="store_true", help="leave the other arms of `stream` out")
    options = parser.parse_args()
    if options.what == "choose" and options.tiles > options.pool:
        parser.error(f"--tiles {options.tiles}: --pool {options.pool} holds fewer")
    with tempfile.TemporaryDirectory() as name:
        here = options.out or Path(name)
        here.mkdir(parents=True, exist_ok=True)
        found = RUNS[options.what](options, here)
    print(json.dumps({"what": options.what, **found}))
    sys.exit(1 if found.get("failures") else 0)


if __name__ == "__main__":
    main()
