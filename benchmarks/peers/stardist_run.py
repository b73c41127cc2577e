"""StarDist 0.9.2 under the same protocol as Nucleate; run with the Python of StarDist's own environment.

    python benchmarks/peers/stardist_run.py train   --plan plan.json --out DIR --minutes 8 [--seed 0] [--steps 25]
    python benchmarks/peers/stardist_run.py predict --model DIR --plan plan.json --out DIR
    python benchmarks/peers/stardist_run.py slide   --model DIR --image slide.tif --out DIR [--side 6000]
                                                    [--blocks 0 512 1000 2048]

`plan.json` holds {"train": [[image, mask], ...], "val": [...], "test": [...], "channels": 1 or 3}. The settings are
StarDist's own defaults and those of its example notebooks (32 rays, grid 2, patches of 256, batches of 4, flips,
turns, random brightness and noise); the best weights by validation loss are kept, thresholds are optimised on `val`.
`slide` segments the upper left `side` x `side` pixels of a grey image, normalised as a whole, with
`predict_instances_big` in blocks of each size, and for 0 with `predict_instances`, its network run over as many tiles
as StarDist itself advises. It writes DIR/BLOCK.tif and gives the seconds from the file to the written labels, the model
loaded and warm.

The last line printed is JSON.
"""

import argparse
import contextlib
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tifffile
from csbdeep.utils import normalize
from skimage.io import imread
from stardist import fill_label_holes
from stardist.models import Config2D, StarDist2D

PATCH = 256
RANDOM = np.random.default_rng()


def read_image(path, channels):
    image = imread(path)
    if channels == 1:
        image = image if image.ndim == 2 else image[..., :3].mean(-1)
        return normalize(image.astype(np.float32), 1, 99.8)
    image = np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image[..., :3]
    return normalize(image.astype(np.float32), 1, 99.8, axis=(0, 1, 2))


def read_pairs(pairs, channels):
    images, masks = [], []
    for image_path, mask_path in pairs:
        image, mask = read_image(image_path, channels), fill_label_holes(imread(mask_path).astype(np.int32))
        grow = [(0, max(0, PATCH - size)) for size in mask.shape]
        images.append(np.pad(image, grow + [(0, 0)] * (image.ndim - 2), mode="reflect"))
        masks.append(np.pad(mask, grow, mode="reflect"))
    return images, masks


def augment(image, mask):
    turns, flip = RANDOM.integers(4), RANDOM.integers(2)
    image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if flip:
        image, mask = image[::-1], mask[::-1]
    image = image * RANDOM.uniform(0.6, 2) + RANDOM.uniform(-0.2, 0.2)
    noise = 0.02 * RANDOM.uniform(0, 1) * RANDOM.normal(0, 1, image.shape)
    return (image + noise).astype(np.float32), mask


def train(options):
    import tensorflow as tf
    from tensorflow import keras

    global RANDOM
    RANDOM = np.random.default_rng(options.seed)
    np.random.seed(options.seed)  # noqa: NPY002 - StarDist draws from NumPy's global generator and takes no seed
    tf.random.set_seed(options.seed)
    plan = json.loads(Path(options.plan).read_text())
    channels = plan["channels"]
    images, masks = read_pairs(plan["train"], channels)
    val_images, val_masks = read_pairs(plan["val"], channels)
    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=channels,
        train_patch_size=(PATCH, PATCH),
        train_batch_size=4,
        train_tensorboard=False,
    )
    out = Path(options.out)
    model = StarDist2D(config, name=out.name, basedir=str(out.parent))
    model.prepare_for_training()

    class StopAfter(keras.callbacks.Callback):
        """Ends training when its minutes are over; counts steps and the time that they alone took."""

        def on_train_begin(self, logs=None):
            self.begin, self.steps, self.inside, self.since = time.monotonic(), 0, 0.0, None

        def on_train_batch_begin(self, batch, logs=None):
            self.since = time.monotonic()

        def on_train_batch_end(self, batch, logs=None):
            now = time.monotonic()
            self.steps += 1
            if self.steps > 5:
                self.inside += now - self.since
            if now - self.begin > options.minutes * 60:
                self.model.stop_training = True
                raise TimeoutError

    clock = StopAfter()
    model.callbacks.append(clock)
    with contextlib.suppress(TimeoutError):
        model.train(
            images,
            masks,
            validation_data=(val_images, val_masks),
            augmenter=augment,
            epochs=100_000,
            steps_per_epoch=options.steps,
            seed=options.seed,
        )
    seconds = time.monotonic() - clock.begin
    name = "weights_best.h5" if (out / "weights_best.h5").exists() else "weights_now.h5"
    if (out / name).exists():
        model.load_weights(name)
    report = {
        "steps": clock.steps,
        "seconds": seconds,
        "images_per_second": 4 * clock.steps / seconds,
        "images_per_second_in_steps": 4 * (clock.steps - 5) / max(clock.inside, 1e-9),
        "parameters": int(model.keras_model.count_params()),
    }
    if options.no_predict:
        print("\n" + json.dumps(report))  # a progress bar may stand on this line
        return
    model.optimize_thresholds(val_images, val_masks)
    model.keras_model.save_weights(str(out / "weights_best.h5"))
    (out / "training.json").write_text(json.dumps(report))
    predict_all(model, plan["test"], channels, out / "predicted")
    print("\n" + json.dumps(report))  # a progress bar may stand on this line


def predict_all(model, pairs, channels, out):
    out.mkdir(parents=True, exist_ok=True)
    pixels, begin = 0, time.monotonic()
    for image_path, _ in pairs:
        image = read_image(image_path, channels)
        labels = model.predict_instances(image)[0]
        tifffile.imwrite(out / (Path(image_path).stem + ".tif"), labels.astype(np.uint16), compression="zlib")
        pixels += labels.size
    return pixels / 1e6 / (time.monotonic() - begin)


def predict(options):
    plan = json.loads(Path(options.plan).read_text())
    path = Path(options.model)
    model = StarDist2D(None, name=path.name, basedir=str(path.parent))
    model.predict_instances(read_image(plan["test"][0][0], plan["channels"]))
    rates = [predict_all(model, plan["test"], plan["channels"], Path(options.out)) for _ in range(options.repeats)]
    print(json.dumps({"megapixels_per_second": float(np.median(rates)), "all": rates}))


def slide(options):
    path = Path(options.model)
    model = StarDist2D(None, name=path.name, basedir=str(path.parent))
    model.predict_instances(np.zeros((512, 512), np.float32))
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    seconds, nuclei = {}, {}
    for block in options.blocks:
        begin = time.monotonic()
        image = normalize(imread(options.image)[: options.side, : options.side].astype(np.float32), 1, 99.8)
        if block:
            # The overlap of its documentation; of the context it knows itself how much is enough.
            labels, found = model.predict_instances_big(image, "YX", block, 128, None, show_progress=False)
        else:
            tiles = model._guess_n_tiles(image)  # what its own examples call
            labels, found = model.predict_instances(image, n_tiles=tiles, show_tile_progress=False)
        tifffile.imwrite(out / f"{block}.tif", labels.astype(np.int32), compression="zlib")
        seconds[block], nuclei[block] = time.monotonic() - begin, len(found["prob"])
        print(f"block {block}: {nuclei[block]} nuclei, {seconds[block]:.1f} s", flush=True)
    print(json.dumps({"side": options.side, "seconds": seconds, "nuclei": nuclei}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("train")
    sub.add_argument("--plan", required=True)
    sub.add_argument("--out", required=True)
    sub.add_argument("--minutes", type=float, required=True)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--steps", type=int, default=25, help="steps an epoch")
    sub.add_argument("--no-predict", action="store_true", help="measure the training speed and stop")
    sub.set_defaults(run=train)
    sub = commands.add_parser("predict")
    sub.add_argument("--model", required=True)
    sub.add_argument("--plan", required=True)
    sub.add_argument("--out", required=True)
    sub.add_argument("--repeats", type=int, default=1)
    sub.set_defaults(run=predict)
    sub = commands.add_parser("slide")
    sub.add_argument("--model", required=True)
    sub.add_argument("--image", required=True)
    sub.add_argument("--out", required=True)
    sub.add_argument("--side", type=int, default=6000)
    sub.add_argument("--blocks", type=int, nargs="+", default=[0, 512, 1000, 2048], help="0: predict_instances")
    sub.set_defaults(run=slide)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
